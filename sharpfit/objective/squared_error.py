"""Squared error of predictions."""

import torch
from torch import Tensor

from sharpfit.objective.sample_loss import Reduction, SampleLoss, Task


class SquaredError(SampleLoss):
    r"""PyTorch's squared error, :math:`l(z, y) = |z - y|^2 / C` (mean) or :math:`|z - y|^2` (sum).

    Its curvature is :math:`A = (2/C)\,I` for the mean and :math:`2I` for the sum.

    Parameters
    ----------
    reduction : {"mean", "sum"}, default="mean"
        As in `torch.nn.MSELoss`.

    Examples
    --------
    >>> import torch
    >>> from sharpfit.objective import SquaredError
    >>> SquaredError().values(torch.tensor([[3.0, 0.0]]), torch.zeros(1, 2))
    tensor([4.5000])
    """

    task: Task = "regression"

    def __init__(self, reduction: Reduction = "mean"):
        self.reduction = reduction

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Loss of every sample; see `SampleLoss.values`."""
        return self._factor(outputs) * self._difference(outputs, targets).square().sum(dim=1)

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Gradient in the predictions; see `SampleLoss.gradient`."""
        return 2 * self._factor(outputs) * self._difference(outputs, targets)

    def curvature(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Curvature in the predictions; see `SampleLoss.curvature`."""
        identity = torch.eye(outputs.shape[1], dtype=outputs.dtype, device=outputs.device)
        return (2 * self._factor(outputs) * identity).expand(outputs.shape[0], -1, -1)

    def curvature_product(self, outputs: Tensor, targets: Tensor, vectors: Tensor) -> Tensor:
        """Products with the curvature; see `SampleLoss.curvature_product`."""
        return 2 * self._factor(outputs) * vectors

    def curvature_root(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Roots of the curvature; see `SampleLoss.curvature_root`."""
        return self.curvature(outputs, targets).sqrt()

    def _factor(self, outputs: Tensor) -> float:
        return 1.0 if self.reduction == "sum" else 1.0 / outputs.shape[1]

    @staticmethod
    def _difference(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs - targets.to(outputs.dtype).reshape(outputs.shape)
