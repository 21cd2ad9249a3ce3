"""Cross-entropy of class logits, with class weights and label smoothing."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from sharpfit.objective.sample_loss import Reduction, SampleLoss, Task

_FEW_CLASSES = 16


class CrossEntropy(SampleLoss):
    r"""Softmax cross-entropy, :math:`l(z, y) = -\sum_c w_c\, q_c \log p_c(z)`.

    With :math:`s = \sum_c w_c q_c` the gradient is :math:`s\,p - w \odot q` and the
    curvature :math:`A = s\,(\mathrm{diag}(p) - p p^\top)`. Label smoothing only
    changes :math:`q`, and so leaves :math:`A` as it is when there are no class weights.

    Parameters
    ----------
    weight : Tensor of shape (C,), optional
        Class weights.
    label_smoothing : float, default=0.0
        Mass spread evenly over the classes.
    ignore_index : int, default=-100
        Target of samples that do not count.
    reduction : {"mean", "sum"}, default="mean"
        The mean is PyTorch's: over the summed class weights for class-number targets.

    Examples
    --------
    >>> import torch
    >>> from sharpfit.objective import CrossEntropy
    >>> CrossEntropy().values(torch.zeros(1, 4), torch.tensor([2])).item()  # log 4
    1.386...
    """

    task: Task = "classification"

    def __init__(
        self,
        weight: Tensor | None = None,
        label_smoothing: float = 0.0,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
    ):
        self.weight = weight
        self.label_smoothing = label_smoothing
        self.ignore_index = ignore_index
        self.reduction = reduction

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Loss of every sample; see `SampleLoss.values`."""
        by_columns = self.weight is None and _is_faster_by_columns(outputs, targets)
        values = F.cross_entropy(
            # As one row of many places.
            outputs.T.unsqueeze(0) if by_columns else outputs,
            targets.t().unsqueeze(0) if by_columns else targets,
            weight=None if self.weight is None else self._class_weights(outputs),
            ignore_index=self.ignore_index,
            reduction="none",
            label_smoothing=self.label_smoothing,
        )
        return values.squeeze(0) if by_columns else values

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Gradient in the logits; see `SampleLoss.gradient`."""
        weighted = self._weighted_distribution(outputs, targets)
        return weighted.sum(dim=1, keepdim=True) * _probabilities(outputs) - weighted

    def curvature(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Curvature in the logits; see `SampleLoss.curvature`."""
        probabilities = _probabilities(outputs)
        outer = probabilities.unsqueeze(2) * probabilities.unsqueeze(1)
        return self._scale(outputs, targets).unsqueeze(2) * (
            torch.diag_embed(probabilities) - outer
        )

    def curvature_product(self, outputs: Tensor, targets: Tensor, vectors: Tensor) -> Tensor:
        """Products with the curvature; see `SampleLoss.curvature_product`."""
        return self.curvature_map(outputs, targets)(vectors)

    def curvature_map(self, outputs: Tensor, targets: Tensor) -> Callable[[Tensor], Tensor]:
        """Keep the probabilities; see `SampleLoss.curvature_map`."""
        probabilities = _probabilities(outputs)
        scaled = self._scale(outputs, targets) * probabilities

        def multiply(vectors: Tensor) -> Tensor:
            return scaled * (vectors - (probabilities * vectors).sum(dim=1, keepdim=True))

        return multiply

    def curvature_root(self, outputs: Tensor, targets: Tensor) -> Tensor:
        r"""Roots of the curvature; see `SampleLoss.curvature_root`.

        With :math:`r = \sqrt p`, :math:`(\mathrm{diag}(r) - p r^\top)` is a root of
        :math:`\mathrm{diag}(p) - p p^\top` because :math:`r^\top r = 1`.
        """
        probabilities = _probabilities(outputs)
        roots = probabilities.sqrt()
        root = torch.diag_embed(roots) - probabilities.unsqueeze(2) * roots.unsqueeze(1)
        return self._scale(outputs, targets).sqrt().unsqueeze(2) * root

    def _counts(self, targets: Tensor) -> Tensor:
        if targets.is_floating_point():
            return super()._counts(targets)
        counted = targets != self.ignore_index
        if self.weight is None:
            return counted.double()
        present = torch.where(counted, targets, 0)
        return counted * self.weight.double().to(targets.device)[present]

    def _scale(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if self.weight is None and not targets.is_floating_point():
            return (targets != self.ignore_index).to(outputs.dtype).unsqueeze(1)
        return self._weighted_distribution(outputs, targets).sum(dim=1, keepdim=True)

    def _class_weights(self, outputs: Tensor) -> Tensor:
        if self.weight is None:
            return torch.ones(outputs.shape[1], dtype=outputs.dtype, device=outputs.device)
        return self.weight.to(outputs)

    def _weighted_distribution(self, outputs: Tensor, targets: Tensor) -> Tensor:
        classes = outputs.shape[1]
        if targets.is_floating_point():
            distribution = targets.to(outputs.dtype)
            counted = torch.ones_like(distribution[:, :1])
        else:
            counted = (targets != self.ignore_index).to(outputs.dtype).unsqueeze(1)
            present = torch.where(targets == self.ignore_index, 0, targets)
            # Built by comparison: one_hot reads its argument and cannot be traced by torch.func.
            numbers = torch.arange(classes, device=outputs.device)
            distribution = (present.unsqueeze(1) == numbers).to(outputs.dtype)
        smoothed = (1 - self.label_smoothing) * distribution + self.label_smoothing / classes
        return counted * smoothed * self._class_weights(outputs)


def _probabilities(outputs: Tensor) -> Tensor:
    if not _has_few_columns(outputs):
        return outputs.softmax(dim=1)
    probabilities = outputs.T.softmax(dim=0).T
    # As the outputs lie, and so what they are combined with.
    return probabilities if outputs.T.is_contiguous() else probabilities.contiguous()


def _has_few_columns(outputs: Tensor) -> bool:
    """Whether PyTorch takes a fraction of the time along columns: rows are of a few numbers."""
    return outputs.shape[1] <= _FEW_CLASSES and outputs.device.type == "cpu"


def _is_faster_by_columns(outputs: Tensor, targets: Tensor) -> bool:
    """Whether that holds of a loss, for targets that PyTorch takes either way."""
    if targets.is_floating_point():
        taken = targets.shape == outputs.shape
    else:
        taken = targets.dtype == torch.long and targets.shape == outputs.shape[:1]
    return taken and outputs.ndim == 2 and _has_few_columns(outputs)
