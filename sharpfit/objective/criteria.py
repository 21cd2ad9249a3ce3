"""From a PyTorch criterion to the per-sample loss behind it."""

from typing import cast

from torch import nn

from sharpfit.objective.binary_cross_entropy import BinaryCrossEntropy
from sharpfit.objective.cross_entropy import CrossEntropy
from sharpfit.objective.rowwise import RowwiseLoss
from sharpfit.objective.sample_loss import Reduction, SampleLoss, Task
from sharpfit.objective.squared_error import SquaredError

_CLASSIFICATION_CRITERIA = (nn.MultiMarginLoss, nn.MultiLabelMarginLoss)


def as_sample_loss(criterion: nn.Module | SampleLoss, *, task: Task | None = None) -> SampleLoss:
    """Return the per-sample loss of a criterion that acts on logits or predictions.

    Closed forms serve `CrossEntropyLoss`, `MSELoss` and `BCEWithLogitsLoss`. Any other
    criterion is evaluated row by row; call `RowwiseLoss.check_additive` with data
    before relying on it.

    Parameters
    ----------
    criterion : torch.nn.Module or SampleLoss
        A criterion instance with ``reduction="mean"`` or ``"sum"``.
    task : {"classification", "regression"}, optional
        Kind of targets of a criterion without closed form; by default regression, except
        for PyTorch's margin losses.

    Returns
    -------
    SampleLoss

    Raises
    ------
    TypeError
        If `criterion` is not a module instance.
    ValueError
        If the reduction is ``"none"``, or the criterion expects probabilities or
        log-probabilities: take logits first, see `split_head`.

    Examples
    --------
    >>> from torch import nn
    >>> from sharpfit.objective import as_sample_loss
    >>> as_sample_loss(nn.MSELoss())
    SquaredError(reduction='mean')
    """
    if isinstance(criterion, SampleLoss):
        return criterion
    if not isinstance(criterion, nn.Module):
        raise TypeError(
            f"criterion must be an instance of torch.nn.Module, got {criterion!r}; "
            "pass for example torch.nn.CrossEntropyLoss()"
        )
    reduction = cast(Reduction, getattr(criterion, "reduction", "mean"))
    if reduction not in ("mean", "sum"):
        raise ValueError(
            f"criterion {type(criterion).__name__} has reduction={reduction!r}, which gives no "
            "loss to differentiate; use reduction='mean' or 'sum'"
        )
    if isinstance(criterion, nn.CrossEntropyLoss):
        return CrossEntropy(
            weight=criterion.weight,
            label_smoothing=criterion.label_smoothing,
            ignore_index=criterion.ignore_index,
            reduction=reduction,
        )
    if isinstance(criterion, nn.MSELoss):
        return SquaredError(reduction=reduction)
    if isinstance(criterion, nn.BCEWithLogitsLoss):
        return BinaryCrossEntropy(
            positive_weight=criterion.pos_weight,
            output_weight=criterion.weight,
            reduction=reduction,
        )
    if isinstance(criterion, (nn.NLLLoss, nn.BCELoss)):
        raise ValueError(
            f"{type(criterion).__name__} acts on (log-)probabilities, whose curvature splits "
            "differently from that of logits; pass module and criterion through "
            "sharpfit.objective.split_head, which moves the final softmax into the loss"
        )
    if task is None:
        margin = isinstance(criterion, _CLASSIFICATION_CRITERIA)
        task = "classification" if margin else "regression"
    return RowwiseLoss(criterion, task)
