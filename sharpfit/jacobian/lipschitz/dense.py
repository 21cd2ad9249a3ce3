"""Lipschitz constants of dense layers and of margins read off a dense head."""

import torch
from torch import Tensor, nn

from sharpfit.jacobian.lipschitz.registry import register_lipschitz
from sharpfit.jacobian.lipschitz.rounding import (
    UNIT_ROUNDOFF,
    product_up,
    root_up,
    spectral_norm_up,
)


def linear_constant(module: nn.Linear, input_shape: tuple[int, ...]) -> float:
    """Spectral norm of the weight."""
    return spectral_norm_up(module.weight)


def largest_row_difference(weight: Tensor) -> float:
    """Largest distance between two rows, rounded upwards; the norm of a single row.

    For a dense head with rows ``w_k``, the margin ``f_y - max_{k != y} f_k`` is a minimum of
    functions ``(w_y - w_k) h + const``, so ``max_{j != k} |w_j - w_k|_2`` bounds its Lipschitz
    constant in the features ``h``, whatever the label ``y``. With a single logit the margin is
    ``+-w h + const``.

    Parameters
    ----------
    weight : Tensor of shape (n_outputs, n_features)

    Returns
    -------
    float
    """
    rows = weight.detach().to(device="cpu", dtype=torch.float64)
    if len(rows) == 1:
        squares = [rows.square().sum(1)]
    else:
        # Differences themselves: expanding their squares would cancel for close rows.
        squares = [(rows[index + 1 :] - row).square().sum(1) for index, row in enumerate(rows[:-1])]
    largest = float(torch.cat(squares).max())
    # A rounded difference has relative error u; its square and their sum add n + 1 more.
    return product_up(root_up(largest), 1.0 + (rows.shape[1] + 4) * 2.0 * UNIT_ROUNDOFF)


register_lipschitz(nn.Linear, linear_constant)
