"""Logistic loss of single logits."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sharpfit.objective.sample_loss import Reduction, SampleLoss, Task


class BinaryCrossEntropy(SampleLoss):
    r"""Binary cross-entropy of logits, summed or averaged over the outputs of a sample.

    With one output it is the logistic loss and :math:`A = w\,p(1-p)`, where the weight
    :math:`w` of positive targets is `positive_weight` and 1 otherwise.

    Parameters
    ----------
    positive_weight : Tensor of shape (C,) or (), optional
        PyTorch's ``pos_weight``.
    output_weight : Tensor of shape (C,) or (1,), optional
        PyTorch's ``weight``, when it does not depend on the sample.
    reduction : {"mean", "sum"}, default="mean"
        As in `torch.nn.BCEWithLogitsLoss`.

    Examples
    --------
    >>> import torch
    >>> from sharpfit.objective import BinaryCrossEntropy
    >>> BinaryCrossEntropy().values(torch.zeros(1, 1), torch.ones(1)).item()  # log 2
    0.693...
    """

    task: Task = "classification"

    def __init__(
        self,
        positive_weight: Tensor | None = None,
        output_weight: Tensor | None = None,
        reduction: Reduction = "mean",
    ):
        self.positive_weight = positive_weight
        self.output_weight = output_weight
        self.reduction = reduction

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Loss of every sample; see `SampleLoss.values`."""
        losses = F.binary_cross_entropy_with_logits(
            outputs,
            targets.to(outputs.dtype).reshape(outputs.shape),
            weight=None if self.output_weight is None else self.output_weight.to(outputs),
            pos_weight=None if self.positive_weight is None else self.positive_weight.to(outputs),
            reduction="none",
        )
        return losses.sum(dim=1) * self._factor(outputs)

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Gradient in the logits; see `SampleLoss.gradient`."""
        signs = targets.to(outputs.dtype).reshape(outputs.shape)
        positive = self._positive(outputs)
        residual = (1 - signs) * outputs.sigmoid() - positive * signs * (-outputs).sigmoid()
        return self._factor(outputs) * self._output(outputs) * residual

    def curvature(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Curvature in the logits; see `SampleLoss.curvature`."""
        return torch.diag_embed(self._diagonal(outputs, targets))

    def curvature_product(self, outputs: Tensor, targets: Tensor, vectors: Tensor) -> Tensor:
        """Products with the curvature; see `SampleLoss.curvature_product`."""
        return self._diagonal(outputs, targets) * vectors

    def curvature_root(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Roots of the curvature; see `SampleLoss.curvature_root`."""
        return torch.diag_embed(self._diagonal(outputs, targets).sqrt())

    def _diagonal(self, outputs: Tensor, targets: Tensor) -> Tensor:
        signs = targets.to(outputs.dtype).reshape(outputs.shape)
        weights = (1 - signs) + self._positive(outputs) * signs
        spread = outputs.sigmoid() * (-outputs).sigmoid()
        return self._factor(outputs) * self._output(outputs) * weights * spread

    def _factor(self, outputs: Tensor) -> float:
        return 1.0 if self.reduction == "sum" else 1.0 / outputs.shape[1]

    def _positive(self, outputs: Tensor) -> Tensor:
        if self.positive_weight is None:
            return torch.ones((), dtype=outputs.dtype, device=outputs.device)
        return self.positive_weight.to(outputs)

    def _output(self, outputs: Tensor) -> Tensor:
        if self.output_weight is None:
            return torch.ones((), dtype=outputs.dtype, device=outputs.device)
        return self.output_weight.to(outputs)
