"""The Jacobians of a network's layers, and of its outputs in what leaves each layer."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from sharpfit.jacobian.arguments import check_positive
from sharpfit.jacobian.dense_chain import elementwise_derivative
from sharpfit.jacobian.exact import ExactJacobians
from sharpfit.jacobian.layer_calls import LayerCall, record_calls
from sharpfit.jacobian.layer_kinds import (
    AFFINE,
    ELEMENTWISE,
    IDENTITIES,
    RowsFlattened,
    is_plain,
)
from sharpfit.jacobian.linearisation import FrozenModule, chunks
from sharpfit.jacobian.progress import followed
from sharpfit.jacobian.surroundings import in_plain_mode


@dataclass(frozen=True)
class LayerJacobians:
    """Jacobians of the calls of a network's layers, at every sample.

    Entries of images and sequences are flattened, in their order in memory.

    Attributes
    ----------
    names : tuple of str
        Qualified names of the layers in the order of their calls; a layer that is called again
        is listed again.
    kinds : tuple of str
        Class names of the layers.
    factors : tuple of Tensor of shape (n, k, j), or (n, k)
        Of every call, the derivative of the `k` entries that leave the layer in the `j` entries
        that enter it; of an elementwise layer the diagonal only. The rows of layers that are the
        same affine map at every sample share memory.
    output_jacobians : tuple of Tensor of shape (n, C, k)
        Derivatives of the network's outputs in what leaves the layer. Times the layer's factor,
        they are the derivatives in what enters it.
    is_chain : bool
        Whether the network is the composition of these layers, so that the product of the
        factors is its Jacobian.
    skipped : tuple of str
        Layers that do not map one tensor to one tensor, row by row.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    factors: tuple[Tensor, ...]
    output_jacobians: tuple[Tensor, ...]
    is_chain: bool
    skipped: tuple[str, ...]

    def product(self) -> Tensor:
        """Multiply the factors from the last layer to the first.

        Returns
        -------
        Tensor of shape (n, C, d)
            The Jacobian of the network.

        Raises
        ------
        ValueError
            If the network is not a chain of these layers.
        """
        if not self.is_chain:
            raise ValueError(
                "the network is not a chain of these layers (it branches, computes outside of "
                "them, or some were left out), so that their product is not its Jacobian; take "
                "output_jacobians"
            )
        found = self.output_jacobians[-1]
        for factor in reversed(self.factors):
            found = found @ factor if factor.ndim == 3 else found * factor.unsqueeze(1)
        return found


@in_plain_mode
def layer_jacobians(
    module: nn.Module,
    inputs: Tensor,
    *,
    layers: Sequence[str] | None = None,
    batch_size: int | Literal["auto"] = "auto",
    memory_budget: int = 2**28,
    verbose: int = 0,
) -> LayerJacobians:
    """Compute the Jacobian of every layer, and of the outputs in what leaves it.

    Parameters
    ----------
    module : torch.nn.Module
        Returns logits or predictions of shape (n, C); copied and put in evaluation mode.
    inputs : Tensor of shape (n, ...)
        Rows, in the dtype and on the device of the module's parameters.
    layers : sequence of str, optional
        Names of layers, as in ``module.named_modules()``; all that have no layers of their own by
        default.
    batch_size : int or "auto", default="auto"
        Rows of a chunk.
    memory_budget : int, default=2**28
        Bytes that the Jacobians may take, and those that a chunk may use when `batch_size` is
        "auto".
    verbose : int, default=0
        Print one line per this many chunks of rows.

    Returns
    -------
    LayerJacobians

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or the Jacobians do not fit `memory_budget`.

    Examples
    --------
    >>> import torch
    >>> from sharpfit.jacobian import layer_jacobians
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> found = layer_jacobians(net, torch.randn(5, 2))
    >>> [tuple(factor.shape) for factor in found.factors]
    [(5, 3, 2), (5, 3), (5, 1, 3)]
    >>> found.product().shape
    torch.Size([5, 1, 2])
    """
    check_positive("memory_budget", memory_budget, "in bytes")
    frozen = FrozenModule(module, inputs)
    network = copy.deepcopy(module).eval().requires_grad_(False)
    calls = record_calls(network, inputs[:2].detach())
    chosen = _chosen_calls(calls.made, layers)
    numbers = [call.number for call in chosen]
    _check_memory(chosen, frozen.n_outputs, len(inputs), memory_budget)
    parts: list[list[tuple[Tensor, Tensor]]] = []
    row_bytes = frozen.product_bytes(inputs)
    walk = chunks(inputs, batch_size, memory_budget, row_bytes=row_bytes)
    for rows in followed(walk, len(inputs), name="layer_jacobians", verbose=verbose):
        parts.append(_chunk_jacobians(network, inputs[rows], numbers))
    factors, output_jacobians = [], []
    for call, pieces in zip(chosen, zip(*parts, strict=True), strict=True):
        found, behind = zip(*pieces, strict=True)
        factors.append(_joined(found, len(inputs), is_shared=_is_affine(call)))
        output_jacobians.append(torch.cat(behind))
    return LayerJacobians(
        names=tuple(call.name for call in chosen),
        kinds=tuple(type(call.layer).__name__ for call in chosen),
        factors=tuple(factors),
        output_jacobians=tuple(output_jacobians),
        is_chain=calls.is_chain and calls.keeps_order and 0 < len(chosen) == len(calls.made),
        skipped=tuple(dict.fromkeys(calls.skipped)),
    )


def _chosen_calls(calls: list[LayerCall], layers: Sequence[str] | None) -> list[LayerCall]:
    """Return the calls of the layers that were asked for."""
    if layers is None:
        return calls
    if isinstance(layers, str):
        raise TypeError(f"layers must be a sequence of names, got {layers!r}; use [{layers!r}]")
    layers = tuple(layers)
    known = dict.fromkeys(call.name for call in calls)
    for name in layers:
        if name not in known:
            raise ValueError(
                f"layers names {name!r}; the layers that map one tensor to one tensor are "
                f"{', '.join(map(repr, known))}"
            )
    return [call for call in calls if call.name in layers]


def _check_memory(calls: list[LayerCall], n_outputs: int, n_rows: int, memory_budget: int) -> None:
    """Refuse to start what the budget cannot hold."""
    entries = 0
    for call in calls:
        leaving, entering = call.leaving[0].numel(), call.entering[0].numel()
        entries += n_rows * n_outputs * leaving
        if is_plain(call.layer, ELEMENTWISE):
            entries += n_rows * leaving
        elif not is_plain(call.layer, IDENTITIES):
            entries += leaving * entering * (1 if _is_affine(call) else n_rows)
    needed = entries * (calls[0].leaving.element_size() if calls else 0)
    if needed > memory_budget:
        raise ValueError(
            f"the Jacobians of {len(calls)} layer calls at {n_rows} rows take {needed:,} bytes, "
            f"memory_budget is {memory_budget:,}; pass fewer rows at a time, choose some of the "
            "layers with layers=[...], or raise memory_budget"
        )


def _is_affine(call: LayerCall) -> bool:
    return is_plain(call.layer, AFFINE)


def _chunk_jacobians(
    network: nn.Module, inputs: Tensor, numbers: list[int]
) -> list[tuple[Tensor, Tensor]]:
    """Return factor and output Jacobian of some of the calls at a chunk of rows."""
    calls = record_calls(network, inputs.detach().requires_grad_())
    chosen = [call for call in calls.made if call.number in numbers]
    outputs = calls.outputs.reshape(len(inputs), -1)
    behind = [
        outputs.new_zeros(len(inputs), outputs.shape[1], call.leaving[0].numel()) for call in chosen
    ]
    reached = [place for place, call in enumerate(chosen) if call.leaving.requires_grad]
    for output in range(outputs.shape[1] if reached and outputs.requires_grad else 0):
        gradients = torch.autograd.grad(
            outputs[:, output].sum(),
            [chosen[place].leaving for place in reached],
            retain_graph=True,
            materialize_grads=True,
        )
        for place, gradient in zip(reached, gradients, strict=True):
            behind[place][:, output] = gradient.flatten(1)
    return [(_factor(call), after.detach()) for call, after in zip(chosen, behind, strict=True)]


def _factor(call: LayerCall) -> Tensor:
    """Return a layer's own Jacobian: one of all rows if it is affine, else one a row."""
    layer, entering = call.layer, call.entering
    if is_plain(layer, IDENTITIES):
        return entering.new_ones(1, 1).expand(len(entering), entering[0].numel())
    if is_plain(layer, ELEMENTWISE):
        slopes = elementwise_derivative(layer, entering)
        return slopes.to(entering.dtype).reshape(len(entering), -1)
    if isinstance(layer, nn.Linear) and is_plain(layer, AFFINE) and entering.ndim == 2:
        return layer.weight.detach().unsqueeze(0)
    points = entering[:1] if _is_affine(call) else entering
    exact = ExactJacobians(FrozenModule(RowsFlattened(layer), points), points)
    _, jacobians = exact(points)
    return jacobians.clone()


def _joined(parts: Sequence[Tensor], n_rows: int, *, is_shared: bool) -> Tensor:
    return parts[0].expand(n_rows, -1, -1) if is_shared else torch.cat(list(parts))
