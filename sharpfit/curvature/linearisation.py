"""What products with the derivatives at one chunk of rows need, however it is obtained."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sharpfit.objective import SampleLoss

Parts = tuple[Tensor, ...]  # shaped like the selected parameters


@dataclass(frozen=True)
class Chunk:
    """Some rows of the data.

    Attributes
    ----------
    inputs : Tensor of shape (n, ...)
    targets : Tensor of shape (n, ...)
    weights : Tensor of shape (n, 1)
        Row weights of the loss, in the network's dtype.
    start : int
        Number of rows before this chunk.
    """

    inputs: Tensor
    targets: Tensor
    weights: Tensor
    start: int


class Linearisation(ABC):
    """The network's derivatives at one chunk of rows, as products.

    With ``L = sum_i a_i l(z_i, y_i)`` over the chunk, ``J`` the derivative of all its
    outputs in the selected parameters. Directions and totals are tuples of tensors shaped
    like the parameters; products into parameter space are added to `total` in place.

    Attributes
    ----------
    outputs : Tensor of shape (n, C)
        The network's outputs, detached.
    chunk : Chunk
        The rows.
    loss : SampleLoss
        The loss of the outputs.
    losses : Tensor of shape (n,) or None
        The losses of the rows, where they have been looked at.
    tangents : Tensor of shape (n, C) or None
        ``J v`` of the last Hessian product, where it falls out on the way.
    """

    outputs: Tensor
    chunk: Chunk
    loss: SampleLoss
    losses: Tensor | None = None
    tangents: Tensor | None = None

    @abstractmethod
    def jacobian_product(self, direction: Parts) -> Tensor:
        """Return ``J v``, of shape (n, C)."""

    @abstractmethod
    def add_transposed_product(self, cotangents: Tensor, total: Parts) -> None:
        """Add ``J^T u`` for cotangents `u` of shape (n, C)."""

    @abstractmethod
    def add_hessian_product(self, direction: Parts, total: Parts) -> None:
        """Add the Hessian of ``L`` times a direction."""

    @abstractmethod
    def state_bytes(self) -> int:
        """Return the bytes of what has been built so far and is kept between products."""

    def add_gauss_newton_product(self, direction: Parts, total: Parts) -> None:
        """Add ``J^T A J v``, the Gauss-Newton matrix of ``L`` times a direction."""
        self.add_transposed_product(self.curve(self.jacobian_product(direction)), total)

    def curve(self, tangents: Tensor) -> Tensor:
        """Return ``A u``, the curvature of ``L`` in the outputs times tangents of them."""
        # Not in place: a loss may return the tangents themselves.
        return self._curvature_map(tangents) * self.chunk.weights

    @cached_property
    def _curvature_map(self) -> Callable[[Tensor], Tensor]:
        return self.loss.curvature_map(self.outputs, self.chunk.targets)

    def add_gradient(self, total: Parts) -> None:
        """Add the gradient of ``L``."""
        self.add_transposed_product(self.output_gradient(), total)

    def output_gradient(self) -> Tensor:
        """Return the gradient of ``L`` in the outputs, of shape (n, C)."""
        gradient = self.loss.gradient(self.outputs, self.chunk.targets)
        return gradient * self.chunk.weights


def storage_bytes(tensors: Iterable[Tensor], without: Iterable[Tensor] = ()) -> int:
    """Return the bytes of the distinct storages of tensors, some storages left out."""
    excluded = {tensor.untyped_storage().data_ptr() for tensor in without}
    storages = (tensor.untyped_storage() for tensor in tensors)
    sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
    return sum(size for pointer, size in sizes.items() if pointer not in excluded)


def add_parts(total: Parts, parts: Parts) -> None:
    """Add tensors to tensors in place."""
    torch._foreach_add_(list(total), list(parts))


@torch.no_grad()
def finite_losses(loss: SampleLoss, outputs: Tensor, chunk: Chunk) -> Tensor:
    """Return the losses of rows; refuse outputs and losses not finite, naming the first row."""
    losses = loss.values(outputs, chunk.targets)
    if bool((outputs.sum() + losses.sum()).isfinite()):
        return losses
    finite = outputs.isfinite().all(dim=1) & losses.isfinite()
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0, 0])
        raise ValueError(
            f"row {chunk.start + row} of inputs has outputs {outputs[row].tolist()} "
            f"and loss {losses[row].item()}, which are not finite; remove the row, or check that "
            "the network has not diverged"
        )
    return losses
