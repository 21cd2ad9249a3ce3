"""A criterion's weighted mean over rows."""

import copy

import torch
from torch import Tensor, nn


def check_can_be_weighted(criterion: nn.Module) -> None:
    """Refuse a criterion whose values on single rows cannot be weighted."""
    reduction = getattr(criterion, "reduction", None)
    if reduction not in ("mean", "sum"):
        raise ValueError(
            f"sample_weight and class_weight need a criterion whose reduction is 'mean' or 'sum'; "
            f"{type(criterion).__name__} has reduction={reduction!r}."
        )
    if getattr(criterion, "weight", None) is not None:
        raise ValueError(
            f"{type(criterion).__name__} has weights of its own (criterion__weight); give them as "
            "class_weight= instead, which combines with sample_weight."
        )


def weighted_loss(
    criterion: nn.Module, outputs: Tensor, targets: Tensor, weights: Tensor
) -> Tensor:
    """Return the loss of a batch whose rows are weighted.

    With ``l_i`` the criterion's value on row `i`, this is ``sum_i w_i l_i / sum_i w_i`` where the
    criterion takes a mean, and ``sum_i w_i l_i`` where it takes a sum. The mean is the one torch
    takes under class weights: weights of one batch are normalised by their sum in that batch. A
    batch whose weights are all zero has loss 0.

    Parameters
    ----------
    criterion : nn.Module
        A criterion with the attribute ``reduction``.
    outputs : tensor of shape (n, ...)
        Outputs of the module.
    targets : tensor of shape (n, ...)
        Targets.
    weights : tensor of shape (n,)
        Non-negative weights.

    Returns
    -------
    tensor of shape ()
    """
    check_can_be_weighted(criterion)
    by_row = copy.copy(criterion)
    by_row.reduction = "none"
    values = by_row(outputs, targets).reshape(len(weights), -1)
    if criterion.reduction == "sum":
        return weights @ values.sum(1)
    smallest = torch.finfo(weights.dtype).tiny
    return weights @ values.mean(1) / weights.sum().clamp_min(smallest)
