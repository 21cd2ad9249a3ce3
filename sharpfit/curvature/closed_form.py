"""Products by hand-written forward and reverse sweeps through a chain of layers."""

import torch
from torch import Tensor

from sharpfit.curvature.layers import Kept, Layer
from sharpfit.curvature.linearisation import Chunk, Linearisation, Parts, storage_bytes
from sharpfit.objective import SampleLoss


class ClosedForm(Linearisation):
    """Derivatives of a chain of layers, whose activations are kept.

    A Hessian product is one sweep forwards with tangents and one sweep back with the
    tangents of the cotangents (Pearlmutter 1994): twice the work of a gradient less the
    forward pass, which is not repeated.

    Parameters
    ----------
    chain : list of Layer
    loss : SampleLoss
    chunk : Chunk
    """

    def __init__(self, chain: list[Layer], loss: SampleLoss, chunk: Chunk) -> None:
        self.loss = loss
        self.chunk = chunk
        self._chain = chain
        self._kept: list[Kept] = []
        x = chunk.inputs
        with torch.no_grad():
            for layer in chain:
                x, kept = layer.forward(x)
                self._kept.append(kept)
        self.outputs = x
        self._cotangents: list[Tensor] | None = None
        # Nothing before the first layer with selected parameters is differentiated.
        self._first = next(index for index, layer in enumerate(chain) if layer.selected)

    def jacobian_product(self, direction: Parts) -> Tensor:
        """Return ``J v``; see `Linearisation`."""
        return self._push(direction)[1]

    def add_transposed_product(self, cotangents: Tensor, total: Parts) -> None:
        """Add ``J^T u``; see `Linearisation`."""
        self._pull(cotangents.clone(), total)  # layers may work in place

    def add_gradient(self, total: Parts) -> None:
        """Add the gradient of ``L``; see `Linearisation`."""
        # The cotangents are those that Hessian products need.
        self._cotangents = self._pull(self.output_gradient(), total)

    def add_hessian_product(self, direction: Parts, total: Parts) -> None:
        """Add ``H v``; see `Linearisation`."""
        if self._cotangents is None:
            self._cotangents = self._pull(self.output_gradient(), None)
        tangents, output_dot = self._push(direction)
        self.tangents = output_dot
        cotangent_dot: Tensor | None = self.curve(output_dot)
        for index in range(len(self._chain) - 1, self._first - 1, -1):
            assert cotangent_dot is not None
            cotangent_dot = self._chain[index].pull_tangent(
                self._kept[index],
                tangents[index],
                self._cotangents[index],
                cotangent_dot,
                direction,
                total,
                index > self._first,
            )

    def state_bytes(self) -> int:
        """Return the bytes kept; see `Linearisation`."""
        kept = [part for parts in self._kept for part in parts if isinstance(part, Tensor)]
        if self.tangents is not None:
            kept.append(self.tangents)
        return storage_bytes([*kept, *(self._cotangents or [])], without=[self.chunk.inputs])

    def _push(self, direction: Parts) -> tuple[list[Tensor | None], Tensor]:
        """Return the tangents of all layers' inputs, and those of the outputs."""
        tangents: list[Tensor | None] = [None] * self._first
        tangent: Tensor | None = None
        for layer, kept in list(zip(self._chain, self._kept, strict=True))[self._first :]:
            tangents.append(tangent)
            tangent = layer.tangent(kept, tangent, direction)
        assert tangent is not None
        return tangents, tangent

    def _pull(self, cotangent: Tensor | None, total: Parts | None) -> list[Tensor]:
        """Add the transposed product, if wanted; return the cotangents of all layers' outputs."""
        cotangents: list[Tensor] = []
        for index in range(len(self._chain) - 1, self._first - 1, -1):
            assert cotangent is not None
            cotangents.append(cotangent)
            cotangent = self._chain[index].pull(
                self._kept[index], cotangent, total, index > self._first
            )
        return [*[self.outputs] * self._first, *reversed(cotangents)]
