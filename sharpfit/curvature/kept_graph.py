"""Products by automatic differentiation, twice backwards through graphs that are kept."""

from collections.abc import Iterator
from functools import cache, cached_property

import torch
from torch import Tensor

from sharpfit.curvature.lean_derivatives import LeanDerivatives
from sharpfit.curvature.linearisation import Chunk, Linearisation, Parts, storage_bytes
from sharpfit.curvature.network import Network, differentiable_kernels
from sharpfit.objective import SampleLoss


class KeptGraph(Linearisation):
    """Derivatives of any module that can be differentiated twice.

    The graph of the gradient does not depend on the direction: it is built once, and every
    product is one more pass backwards through it. Products ``J v`` go backwards through the
    graph of ``u -> J^T u``, which is linear in `u`.

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
        with torch.enable_grad(), differentiable_kernels(), LeanDerivatives():
            self._outputs = network.module(chunk.inputs)
        self.outputs = self._outputs.detach()

    def jacobian_product(self, direction: Parts) -> Tensor:
        """Return ``J v``; see `Linearisation`."""
        cotangents, pulled = self._pullback
        parts, weights = _varying(pulled, direction)
        if not parts:
            return torch.zeros_like(self.outputs)
        return torch.autograd.grad(
            parts, cotangents, weights, retain_graph=True, materialize_grads=True
        )[0]

    def add_transposed_product(self, cotangents: Tensor, total: Parts) -> None:
        """Add ``J^T u``; see `Linearisation`."""
        if self._outputs.requires_grad:
            self._add([self._outputs], [cotangents], total)

    def add_hessian_product(self, direction: Parts, total: Parts) -> None:
        """Add ``H v``; see `Linearisation`."""
        parts, weights = _varying(self._gradient, direction)
        if parts:
            self._add(parts, weights, total)

    def state_bytes(self) -> int:
        """Return the bytes kept; see `Linearisation`."""
        built = [self._outputs]
        for name in ("_pullback", "_gradient"):
            if name in self.__dict__:
                value = self.__dict__[name]
                parts = value[1] if name == "_pullback" else value
                built += [part for part in parts if part is not None]
        return storage_bytes(saved_tensors(built), without=self._parameters)

    def _add(self, of: list[Tensor], weights: list[Tensor], total: Parts) -> None:
        found = torch.autograd.grad(
            of, self._parameters, weights, retain_graph=True, allow_unused=True
        )
        for part, increment in zip(total, found, strict=True):
            if increment is not None:
                part.add_(increment)

    @cached_property
    def _pullback(self) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        cotangents = torch.zeros_like(self.outputs, requires_grad=True)
        if not self._outputs.requires_grad:
            return cotangents, (None,) * len(self._parameters)
        with torch.enable_grad():
            pulled = torch.autograd.grad(
                self._outputs, self._parameters, cotangents, create_graph=True, allow_unused=True
            )
        return cotangents, pulled

    @cached_property
    def _gradient(self) -> tuple[Tensor | None, ...]:
        with torch.enable_grad():
            values = self.loss.values(self._outputs, self.chunk.targets)
            total = (values * self.chunk.weights.squeeze(1)).sum()
            if not total.requires_grad:
                return (None,) * len(self._parameters)
            return torch.autograd.grad(
                total, self._parameters, create_graph=True, allow_unused=True
            )


def saved_tensors(results: list[Tensor]) -> Iterator[Tensor]:
    """Yield the results and all tensors saved in their graphs."""
    yield from results
    pending = [result.grad_fn for result in results]
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


def _varying(
    parts: tuple[Tensor | None, ...], direction: Parts
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the parts that depend on what is differentiated, and their directions."""
    pairs = [
        (part, v)
        for part, v in zip(parts, direction, strict=True)
        if part is not None and part.requires_grad
    ]
    return [part for part, _ in pairs], [v for _, v in pairs]
