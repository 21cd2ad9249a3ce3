"""Jacobian norms of the layers of a network, and how far they line up."""

import copy
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from sharpfit.jacobian.dense_chain import elementwise_derivative
from sharpfit.jacobian.layer_calls import record_calls
from sharpfit.jacobian.layer_kinds import (
    AFFINE,
    ELEMENTWISE,
    IDENTITIES,
    RowsFlattened,
    is_plain,
)
from sharpfit.jacobian.linearisation import FrozenModule, chunks
from sharpfit.jacobian.norms import jacobian_norms
from sharpfit.jacobian.pairs import Floats
from sharpfit.jacobian.progress import followed
from sharpfit.jacobian.surroundings import in_plain_mode


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
        Layers that do not map one tensor to one tensor, row by row.
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
    calls = record_calls(network, inputs[:2].detach())
    numbers = [call.number for call in calls.made]
    parts: list[list[Tensor]] = []
    row_bytes = frozen.product_bytes(inputs)
    walk = chunks(inputs, batch_size, memory_budget, row_bytes=row_bytes)
    for rows in followed(walk, len(inputs), name="layer_norms", verbose=verbose):
        parts.append(
            [
                _layer_norm(call.layer, call.entering, tol, memory_budget, random_state)
                for call in record_calls(network, inputs[rows].detach()).made
                if call.number in numbers
            ]
        )
    by_layer = [torch.cat(list(pieces)).cpu().numpy() for pieces in zip(*parts, strict=True)]
    norms = np.array(by_layer).reshape(len(by_layer), len(inputs))
    alignment = None
    if calls.is_chain:
        product = norms.prod(axis=0)
        alignment = np.divide(
            total.spectral, product, out=np.zeros_like(product), where=product > 0
        )
    return LayerNorms(
        names=tuple(call.name for call in calls.made),
        kinds=tuple(type(call.layer).__name__ for call in calls.made),
        norms=norms,
        total=total.spectral,
        alignment=alignment,
        skipped=tuple(dict.fromkeys(calls.skipped)),
    )


def _layer_norm(
    layer: nn.Module, entering: Tensor, tol: float, memory_budget: int, random_state: int
) -> Tensor:
    rows = len(entering)
    if is_plain(layer, IDENTITIES):
        return torch.ones(rows, dtype=torch.float64, device="cpu")
    if isinstance(layer, nn.Linear) and is_plain(layer, AFFINE):
        norm = torch.linalg.matrix_norm(layer.weight.double(), 2)
        return norm.expand(rows).cpu()
    if is_plain(layer, ELEMENTWISE):
        slopes = elementwise_derivative(layer, entering).double().abs()
        return slopes.reshape(rows, -1).amax(dim=1).cpu()
    found = jacobian_norms(
        RowsFlattened(layer),
        entering[:1] if is_plain(layer, AFFINE) else entering,
        tol=tol,
        memory_budget=memory_budget,
        random_state=random_state,
    )
    return torch.from_numpy(found.spectral).expand(rows)
