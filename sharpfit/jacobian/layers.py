"""Jacobian norms of the layers of a network, and how far they line up."""

import copy
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from sharpfit.jacobian.dense_chain import ELEMENTWISE, IDENTITIES, elementwise_derivative
from sharpfit.jacobian.linearisation import FrozenModule, chunks
from sharpfit.jacobian.norms import jacobian_norms
from sharpfit.jacobian.pairs import Floats
from sharpfit.jacobian.progress import followed
from sharpfit.jacobian.surroundings import in_plain_mode

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class LayerNorms:
    """Spectral norms of the Jacobian of every layer call, at every sample.

    Attributes
    ----------
    names : tuple of str
        Qualified names of the layers in the order of their calls; a layer that is called again
        is listed again.
    kinds : tuple of str
        Class names of the layers.
    norms : ndarray of shape (n_layers, n)
        Spectral norm of each layer's own Jacobian at what enters it.
    total : ndarray of shape (n,)
        Spectral norm of the whole network's Jacobian.
    alignment : ndarray of shape (n,) or None
        `total` over the product of the layers' norms, in [0, 1] up to rounding: one where
        the top singular directions of all layers line up, small where they do not. The growth
        of `total` is thereby split into that of the layers and that of their alignment (after
        Lowell and Kastner, 2024). None if the network is not a chain of layers, and 0 where
        the product is.
    skipped : tuple of str
        Layers that do not map one tensor to one tensor.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    norms: Floats
    total: Floats
    alignment: Floats | None
    skipped: tuple[str, ...]


@in_plain_mode
def layer_norms(
    module: nn.Module,
    inputs: Tensor,
    *,
    tol: float = 1e-3,
    batch_size: int | Literal["auto"] = "auto",
    memory_budget: int = 2**28,
    random_state: int = 0,
    verbose: int = 0,
) -> LayerNorms:
    """Compute the Jacobian norm of every layer at every sample.

    Parameters
    ----------
    module : torch.nn.Module
        Returns logits or predictions of shape (n, C); copied and put in evaluation mode.
    inputs : Tensor of shape (n, ...)
    tol : float, default=1e-3
        Relative error of norms that are found by iteration (convolutions, for example).
    batch_size : int or "auto", default="auto"
        Rows of a chunk.
    memory_budget : int, default=2**28
        Bytes that a chunk may use when `batch_size` is "auto".
    random_state : int, default=0
        Seed of the iterations.
    verbose : int, default=0
        Print one line per this many chunks of rows.

    Returns
    -------
    LayerNorms

    Examples
    --------
    >>> import torch
    >>> from sharpfit.jacobian import layer_norms
    >>> net = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Tanh(), torch.nn.Linear(1, 1))
    >>> layer_norms(net, torch.zeros(1, 1)).alignment.round(6)
    array([1.])
    """
    frozen = FrozenModule(module, inputs)
    total = jacobian_norms(
        module,
        inputs,
        tol=tol,
        batch_size=batch_size,
        memory_budget=memory_budget,
        random_state=random_state,
        verbose=verbose,
    )
    network = copy.deepcopy(module).eval().requires_grad_(False)
    parts: list[list[Tensor]] = []
    row_bytes = frozen.product_bytes(inputs)
    walk = chunks(inputs, batch_size, memory_budget, row_bytes=row_bytes)
    for rows in followed(walk, len(inputs), name="layer_norms", verbose=verbose):
        calls = _record(network, inputs[rows])
        parts.append(
            [
                _layer_norm(layer, entering, tol, memory_budget, random_state)
                for _, layer, entering in calls.made
            ]
        )
    by_layer = [torch.cat(list(pieces)).cpu().numpy() for pieces in zip(*parts, strict=True)]
    norms = np.array(by_layer).reshape(len(by_layer), len(inputs))
    alignment = None
    if calls.is_chain and not calls.skipped:
        product = norms.prod(axis=0)
        alignment = np.divide(
            total.spectral, product, out=np.zeros_like(product), where=product > 0
        )
    return LayerNorms(
        names=tuple(name for name, _, _ in calls.made),
        kinds=tuple(type(layer).__name__ for _, layer, _ in calls.made),
        norms=norms,
        total=total.spectral,
        alignment=alignment,
        skipped=tuple(dict.fromkeys(calls.skipped)),
    )


class _Calls:
    """Calls of the leaves of a module during one forward pass."""

    def __init__(self, inputs: Tensor):
        self.made: list[tuple[str, nn.Module, Tensor]] = []
        self.skipped: list[str] = []
        self.is_chain = True
        self._follow(inputs)

    def _follow(self, tensor: Tensor) -> None:
        self._last, self._version = tensor, tensor._version

    def _continues(self, tensor: Any) -> bool:
        # A view of all entries only renames them, which no norm sees.
        return (
            isinstance(tensor, Tensor)
            and tensor.data_ptr() == self._last.data_ptr()
            and tensor.numel() == self._last.numel()
            and self._last._version == self._version
        )

    def enter(self, name: str, layer: nn.Module, args: tuple[Any, ...]) -> None:
        if len(args) != 1 or not isinstance(args[0], Tensor):
            self.skipped.append(name)
            return
        self.is_chain = self.is_chain and self._continues(args[0])
        entering = args[0].clone() if getattr(layer, "inplace", False) else args[0]
        self.made.append((name, layer, entering))

    def leave(self, output: Any) -> None:
        if isinstance(output, Tensor):
            self._follow(output)

    def finish(self, outputs: Tensor) -> None:
        self.is_chain = self.is_chain and self._continues(outputs)


def _record(module: nn.Module, inputs: Tensor) -> _Calls:
    start = inputs.detach()
    calls = _Calls(start)
    handles = []
    for name, layer in module.named_modules():
        if any(layer.children()):
            continue
        handles.append(
            layer.register_forward_pre_hook(
                lambda layer, args, name=name: calls.enter(name, layer, args)
            )
        )
        handles.append(layer.register_forward_hook(lambda layer, args, out: calls.leave(out)))
    try:
        with torch.no_grad():
            calls.finish(module(start))
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _layer_norm(
    layer: nn.Module, entering: Tensor, tol: float, memory_budget: int, random_state: int
) -> Tensor:
    rows = len(entering)
    if type(layer) in IDENTITIES:
        return torch.ones(rows, dtype=torch.float64)
    if type(layer) is nn.Linear:
        norm = torch.linalg.matrix_norm(layer.weight.double(), 2)
        return norm.expand(rows).cpu()
    if type(layer) in ELEMENTWISE:
        return elementwise_derivative(layer, entering).double().abs().flatten(1).amax(dim=1).cpu()
    # A convolution is the same affine map at every sample.
    points = entering[:1] if type(layer) in _CONVOLUTIONS else entering
    found = jacobian_norms(
        nn.Sequential(layer, nn.Flatten()),
        points,
        tol=tol,
        memory_budget=memory_budget,
        random_state=random_state,
    )
    return torch.as_tensor(found.spectral).expand(rows)
