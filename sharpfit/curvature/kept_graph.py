"""Products by automatic differentiation, twice backwards through graphs that are kept."""

from collections.abc import Callable, Iterable, Iterator
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from sharpfit.curvature.lean_derivatives import LeanDerivatives
from sharpfit.curvature.linearisation import Chunk, Linearisation, Parts, storage_bytes
from sharpfit.curvature.network import Network, differentiable_kernels
from sharpfit.objective import SampleLoss


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
    """

    def __init__(self, network: Network, loss: SampleLoss, chunk: Chunk) -> None:
        self.loss = loss
        self.chunk = chunk
        self._parameters = network.parameters
        self._seen: list[Tensor] = []  # shared with the graph, which must not hold this object
        with torch.enable_grad(), differentiable_kernels(), LeanDerivatives():
            self._outputs = network.module(chunk.inputs)
        self.outputs = self._outputs.detach()

    def jacobian_product(self, direction: Parts) -> Tensor:
        """Return ``J v``; see `Linearisation`."""
        cotangents, gradient = self._gradient
        if not gradient:
            return torch.zeros_like(self.outputs)
        weights = [direction[index] for index in gradient]
        return torch.autograd.grad(
            list(gradient.values()), cotangents, weights, retain_graph=True, materialize_grads=True
        )[0]

    def add_transposed_product(self, cotangents: Tensor, total: Parts) -> None:
        """Add ``J^T u``; see `Linearisation`."""
        if self._outputs.requires_grad:
            self._add([self._outputs], [cotangents], total)

    def add_hessian_product(self, direction: Parts, total: Parts) -> None:
        """Add ``H v``; see `Linearisation`."""
        gradient = self._gradient[1]
        self.tangents = None
        if gradient:
            weights = [direction[index] for index in gradient]
            self._add(list(gradient.values()), weights, total)
            self.tangents = self._seen.pop() if self._seen else None

    def state_bytes(self) -> int:
        """Return the bytes kept; see `Linearisation`."""
        built: list[Tensor | GradientEdge] = [self._outputs]
        if "_gradient" in self.__dict__:
            built += [self._gradient[0], *self._gradient[1].values()]
        if self.tangents is not None:
            built.append(self.tangents)
        return storage_bytes(saved_tensors(built), without=self._parameters)

    def _add(
        self, of: list[Tensor] | list[GradientEdge], weights: list[Tensor], total: Parts
    ) -> None:
        found = torch.autograd.grad(
            of, self._parameters, weights, retain_graph=True, allow_unused=True
        )
        for part, increment in zip(total, found, strict=True):
            if increment is not None:
                part.add_(increment)

    @cached_property
    def _gradient(self) -> tuple[Tensor, dict[int, GradientEdge]]:
        with torch.enable_grad():
            cotangents = _OutputGradient.apply(
                *(self._outputs, self.output_gradient(), self._curvature_map, self.chunk.weights),
                self._seen,
            )
            if not cotangents.requires_grad:
                return cotangents, {}
            gradient = torch.autograd.grad(
                self._outputs, self._parameters, cotangents, create_graph=True, allow_unused=True
            )
            return cotangents, _varying(gradient)


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
    @once_differentiable
    def backward(ctx: Any, tangents: Tensor) -> Any:
        ctx.seen[:] = [tangents]
        # Not in place: a loss may return the tangents themselves.
        return ctx.curvature_map(tangents) * ctx.weights, None, None, None, None


def _varying(parts: tuple[Tensor | None, ...]) -> dict[int, GradientEdge]:
    """Return where graphs end in those parts that depend on what is differentiated.

    The values, as large as the parameters, are not kept.
    """
    # Seen through a view, because a node written in Python does not keep its graph alive.
    return {
        index: get_gradient_edge(part.view_as(part))
        for index, part in enumerate(parts)
        if part is not None and part.requires_grad
    }


def saved_tensors(results: Iterable[Tensor | GradientEdge]) -> Iterator[Tensor]:
    """Yield those results that are tensors, and all tensors saved in the graphs of all."""
    pending: list[Node | None] = []
    for result in results:
        if isinstance(result, Tensor):
            yield result
            pending.append(result.grad_fn)
        else:
            pending.append(result.node)
    seen = set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        pending.extend(following for following, _ in node.next_functions)
        saved = [getattr(node, name) for name in _saved_names(type(node))] or list(
            getattr(node, "saved_tensors", [])
        )
        yield from (tensor for tensor in saved if isinstance(tensor, Tensor))


@cache
def _saved_names(kind: type) -> tuple[str, ...]:
    """Return where a node of the graph holds what it saved; listing them takes a while."""
    return tuple(name for name in dir(kind) if name.startswith("_saved_"))
