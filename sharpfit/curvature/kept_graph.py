"""Products by automatic differentiation, twice backwards through graphs that are kept."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import cache, cached_property
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from sharpfit.curvature.lean_derivatives import (
    LeanDerivatives,
    ThirdDerivativeError,
    refuse_third_derivative,
)
from sharpfit.curvature.linearisation import Chunk, Linearisation, Parts, storage_bytes
from sharpfit.curvature.network import Network, differentiable_kernels
from sharpfit.objective import SampleLoss
from sharpfit.objective.second_derivatives import graph_nodes, require_second_derivatives


class KeptGraph(Linearisation):
    """Derivatives of any module that can be differentiated twice.

    The graph of the gradient does not depend on the direction: it is built once, and every
    product is one more pass backwards through it. The gradient is ``J^T u``, with `u` that of
    the loss in the outputs; as it is linear in `u`, a pass that ends there gives ``J v``.

    Parameters
    ----------
    network : Network
    loss : SampleLoss
    chunk : Chunk
    lean : bool, default=True
        Whether to build graphs that can be differentiated twice and no more; see
        `knows_lean_derivatives`.
    """

    def __init__(
        self, network: Network, loss: SampleLoss, chunk: Chunk, *, lean: bool = True
    ) -> None:
        self.loss = loss
        self.chunk = chunk
        self._parameters = network.parameters
        self._seen: list[Tensor] = []  # shared with the graph, which must not hold this object
        graphs = LeanDerivatives() if lean else nullcontext()
        with torch.enable_grad(), differentiable_kernels(), graphs:
            self._outputs = network.module(chunk.inputs)
        self.outputs = self._outputs.detach()

    def jacobian_product(self, direction: Parts) -> Tensor:
        """Return ``J v``; see `Linearisation`."""
        cotangents, gradient = self._gradient
        pushed = None if gradient is None else gradient.differentiate(direction, [cotangents])[0]
        return torch.zeros_like(self.outputs) if pushed is None else pushed

    def add_transposed_product(self, cotangents: Tensor, total: Parts) -> None:
        """Add ``J^T u``; see `Linearisation`."""
        if self._outputs.requires_grad:
            _add(
                torch.autograd.grad(
                    self._outputs,
                    self._parameters,
                    cotangents,
                    retain_graph=True,
                    allow_unused=True,
                ),
                total,
            )

    def add_hessian_product(self, direction: Parts, total: Parts) -> None:
        """Add ``H v``; see `Linearisation`."""
        gradient = self._gradient[1]
        self.tangents = None
        if gradient is not None:
            _add(gradient.differentiate(direction, self._parameters), total)
            self.tangents = self._seen.pop() if self._seen else None

    def state_bytes(self) -> int:
        """Return the bytes kept; see `Linearisation`."""
        built = [self._outputs]
        if "_gradient" in self.__dict__:
            cotangents, gradient = self._gradient
            built += [cotangents] if gradient is None else [cotangents, gradient.whole]
        if self.tangents is not None:
            built.append(self.tangents)
        return storage_bytes(saved_tensors(built), without=self._parameters)

    @cached_property
    def _gradient(self) -> tuple[Tensor, "_Gradient | None"]:
        with torch.enable_grad():
            cotangents = _OutputGradient.apply(
                *(self._outputs, self.output_gradient(), self._curvature_map, self.chunk.weights),
                self._seen,
            )
            if not cotangents.requires_grad:
                return cotangents, None
            gradient = torch.autograd.grad(
                self._outputs, self._parameters, cotangents, create_graph=True, allow_unused=True
            )
            return cotangents, _Gradient.of(gradient)


def knows_lean_derivatives(network: Network, loss: SampleLoss, example: Chunk) -> bool:
    """Whether a module leaves two derivatives to take: not if it takes one itself.

    Parameters
    ----------
    network : Network
    loss : SampleLoss
    example : Chunk
        A few rows.

    Returns
    -------
    bool

    Raises
    ------
    ValueError
        If one of its operations is known to have no second derivative, which a product would leave
        out without a word.
    """
    try:
        gradient = KeptGraph(network, loss, example)._gradient[1]
    except ThirdDerivativeError:
        return False
    if gradient is not None:
        require_second_derivatives(network.module, gradient.whole)
    return True


class _OutputGradient(torch.autograd.Function):
    """The gradient of the loss in the outputs, with the loss's own curvature for derivative."""

    @staticmethod
    def forward(
        ctx: Any,
        outputs: Tensor,
        gradient: Tensor,
        curvature_map: Callable[[Tensor], Tensor],
        weights: Tensor,
        seen: list[Tensor],
    ) -> Tensor:
        ctx.curvature_map, ctx.weights, ctx.seen = curvature_map, weights, seen
        return gradient.clone()

    @staticmethod
    def backward(ctx: Any, tangents: Tensor) -> Any:
        refuse_third_derivative()
        ctx.seen[:] = [tangents]
        # Not in place: a loss may return the tangents themselves.
        return ctx.curvature_map(tangents) * ctx.weights, None, None, None, None


class _Gradient:
    """The graph of a gradient, to be differentiated along one direction after another.

    Its values, as large as the parameters, are not kept.

    Parameters
    ----------
    indices : list of int
        Which parameters' parts depend on what is differentiated.
    parts : list of Tensor
        Those parts of the gradient.
    """

    def __init__(self, indices: list[int], parts: list[Tensor]) -> None:
        self._indices = indices
        self._weights: list[Tensor] = []
        self._lock = Lock()  # threads may share an operator
        self.whole = _Whole.apply(self._weights, *parts)
        self._one = torch.ones_like(self.whole)

    @classmethod
    def of(cls, gradient: tuple[Tensor | None, ...]) -> "_Gradient | None":
        """Take those parts of a gradient that depend on something; None where there are none."""
        varying = [
            (index, part)
            for index, part in enumerate(gradient)
            if part is not None and part.requires_grad
        ]
        return cls(*map(list, zip(*varying, strict=True))) if varying else None

    def differentiate(self, direction: Parts, by: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        """Return the derivatives of the gradient's product with a direction."""
        with self._lock:
            self._weights[:] = [direction[index] for index in self._indices]
            try:
                return torch.autograd.grad(
                    self.whole, by, self._one, retain_graph=True, allow_unused=True
                )
            finally:
                self._weights.clear()


class _Whole(torch.autograd.Function):
    """A number whose derivatives in a gradient's parts are the weights there are at the time.

    One root in place of one for every part, each of which PyTorch checks anew at every pass.
    """

    @staticmethod
    def forward(ctx: Any, weights: list[Tensor], *parts: Tensor) -> Tensor:
        ctx.weights = weights
        return parts[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> Any:
        refuse_third_derivative()
        return None, *ctx.weights


def _add(increments: tuple[Tensor | None, ...], total: Parts) -> None:
    for part, increment in zip(total, increments, strict=True):
        if increment is not None:
            part.add_(increment)


def saved_tensors(results: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield the results, and all tensors saved in their graphs."""
    seen = set()
    for result in results:
        yield result
        for node in graph_nodes(result):
            if node in seen:
                continue
            seen.add(node)
            saved = [getattr(node, name) for name in _saved_names(type(node))] or list(
                getattr(node, "saved_tensors", [])
            )
            yield from (tensor for tensor in saved if isinstance(tensor, Tensor))


@cache
def _saved_names(kind: type) -> tuple[str, ...]:
    """Return where a node of the graph holds what it saved; listing them takes a while."""
    return tuple(name for name in dir(kind) if name.startswith("_saved_"))
