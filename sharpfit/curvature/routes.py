"""How products are computed: which linearisation serves which module."""

import warnings
from collections.abc import Callable
from typing import Literal

import torch
from torch.func import functional_call, vjp

from sharpfit.curvature.chain import read_chain
from sharpfit.curvature.closed_form import ClosedForm
from sharpfit.curvature.kept_graph import KeptGraph, knows_lean_derivatives
from sharpfit.curvature.layers import Layer
from sharpfit.curvature.linearisation import Chunk, Linearisation
from sharpfit.curvature.network import Network, differentiable_kernels
from sharpfit.curvature.traced import Traced, Tracer
from sharpfit.objective import SampleLoss

RouteChoice = Literal["auto", "closed_form", "traced", "graph"]
Linearise = Callable[[Chunk], Linearisation]

ROUTES = ("auto", "closed_form", "traced", "graph")

# A replayed trace saves a fifth of a product on a kept graph. Tracing costs as much as some
# hundred products at one chunk, so with the few tens of products of a spectrum it has to be
# shared by this many chunks.
_TRACING_PAYS_FROM = 32

_COMPARED_ROWS = 8  # on which closed forms are checked against the module
_TRIED_ROWS = 2  # on which graphs are tried


def choose_route(
    network: Network,
    loss: SampleLoss,
    example: Chunk,
    *,
    route: RouteChoice,
    n_chunks: int,
    second_order: bool,
) -> tuple[str, Linearise]:
    """Choose how chunks are linearised.

    Parameters
    ----------
    network : Network
    loss : SampleLoss
    example : Chunk
        The first chunk.
    route : {"auto", "closed_form", "traced", "graph"}
        A route, or ``"auto"`` for closed forms where the module is a stack of known layers,
        a trace where enough chunks share it, and kept graphs of double backward otherwise.
    n_chunks : int
        Number of chunks.
    second_order : bool
        Whether Hessian products are wanted.

    Returns
    -------
    str
        The route taken.
    callable
        Function from a chunk to its `Linearisation`.

    Raises
    ------
    ValueError
        If the route asked for does not serve the module.
    """
    if route not in ROUTES:
        raise ValueError(f"route must be one of {ROUTES}, got {route!r}")
    if route in ("auto", "closed_form"):
        chain = read_chain(network)
        if chain is not None and _agrees(chain, network, loss, example):
            return "closed_form", lambda chunk: ClosedForm(chain, loss, chunk)
        if route == "closed_form":
            raise ValueError(
                f"module {type(network.module).__name__} is not a chain of layers with "
                "hand-written derivatives (linear, convolution, activation, pooling, flattening, "
                "batch normalisation, dropout); use route='auto'"
            )
    if route == "graph" or (route == "auto" and n_chunks < _TRACING_PAYS_FROM):
        return "graph", _kept_graphs(network, loss, example)
    tracer = Tracer(network, loss)
    try:
        _check_functional_call(network, example)
        if second_order:
            tracer.hessian(example)
    except (RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        if route == "traced":
            raise ValueError(
                f"module {type(network.module).__name__} cannot be traced ({reason}); use "
                "route='graph'"
            ) from error
        warnings.warn(
            f"module {type(network.module).__name__} cannot be traced ({reason}); products use "
            "double backward, which is slower; route='graph' says so without this warning",
            stacklevel=4,
        )
        return "graph", _kept_graphs(network, loss, example)
    return "traced", lambda chunk: Traced(tracer, chunk)


def _kept_graphs(network: Network, loss: SampleLoss, example: Chunk) -> Linearise:
    lean = knows_lean_derivatives(network, loss, _first(example, _TRIED_ROWS))
    return lambda chunk: KeptGraph(network, loss, chunk, lean=lean)


def _first(chunk: Chunk, count: int) -> Chunk:
    rows = slice(count)
    return Chunk(chunk.inputs[rows], chunk.targets[rows], chunk.weights[rows], chunk.start)


def _agrees(chain: list[Layer], network: Network, loss: SampleLoss, example: Chunk) -> bool:
    """Whether a chain computes what the module does."""
    if not any(layer.selected for layer in chain):
        return False
    example = _first(example, _COMPARED_ROWS)
    with torch.no_grad():
        expected = network.module(example.inputs)
    try:
        found = ClosedForm(chain, loss, example).outputs
    except RuntimeError:  # an input of another rank than the layers' derivatives take
        return False
    # Outputs that are not finite are refused, with the row's name, when products begin.
    scale = float(expected.nan_to_num(posinf=0.0, neginf=0.0).abs().max())
    return found.shape == expected.shape and torch.allclose(
        found, expected, rtol=1e-3, atol=1e-3 * scale, equal_nan=True
    )


def _check_functional_call(network: Network, example: Chunk) -> None:
    """Refuse modules that hold on to their parameters, as recurrent layers do."""
    inputs = example.inputs[:1]
    with differentiable_kernels():
        outputs = network.module(inputs)
        if not outputs.requires_grad:
            return
        expected = torch.autograd.grad(outputs.sum(), network.parameters, materialize_grads=True)
        point = tuple(parameter.detach() for parameter in network.parameters)
        pull = vjp(
            lambda parameters: functional_call(
                network.module,
                dict(zip(network.selection.names, parameters, strict=True)),
                (inputs,),
            ),
            point,
        )[1]
        found = pull(torch.ones_like(outputs))[0]
    for name, one, other in zip(network.selection.names, expected, found, strict=True):
        if not torch.allclose(one, other, rtol=1e-3):
            raise RuntimeError(f"torch.func does not see its parameter {name!r}")
