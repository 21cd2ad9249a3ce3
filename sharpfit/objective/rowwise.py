"""Any PyTorch criterion that is a mean or a sum over rows."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sharpfit.objective.sample_loss import Reduction, SampleLoss, Task


class RowwiseLoss(SampleLoss):
    """A criterion evaluated on one row at a time.

    Parameters
    ----------
    criterion : torch.nn.Module
        Called as ``criterion(outputs, targets)``; its batch value must be the mean or the
        sum of its values on batches of one row, which `check_additive` verifies on data.
    task : {"classification", "regression"}
        Kind of targets.
    """

    def __init__(self, criterion: nn.Module, task: Task):
        self.criterion = criterion
        self.task = task
        reduction = getattr(criterion, "reduction", "mean")
        self.reduction: Reduction = "sum" if reduction == "sum" else "mean"

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Loss of every sample; see `SampleLoss.values`."""
        targets = _aligned(targets, outputs)
        return torch.func.vmap(
            lambda output, target: self.criterion(output.unsqueeze(0), target.unsqueeze(0))
        )(outputs, targets)

    def curvature_map(self, outputs: Tensor, targets: Tensor) -> Callable[[Tensor], Tensor]:
        """Keep the graph of the gradient; see `SampleLoss.curvature_map`."""
        with torch.enable_grad():
            point = outputs.detach().requires_grad_()
            gradient = self.gradient(point, targets)

        def multiply(vectors: Tensor) -> Tensor:
            if not gradient.requires_grad:
                return torch.zeros_like(vectors)
            found = torch.autograd.grad(
                gradient, point, vectors, retain_graph=True, materialize_grads=True
            )[0]
            return found.clone()  # zeros that `torch.func` finds are of an immutable kind

        return multiply

    def check_additive(self, outputs: Tensor, targets: Tensor) -> None:
        """Refuse a criterion whose batch value is not the combined value of its rows.

        Parameters
        ----------
        outputs : Tensor of shape (n, C)
        targets : Tensor of shape (n, ...)

        Raises
        ------
        ValueError
            If the batch value differs from the weighted sum of the row values.
        """
        targets = _aligned(targets, outputs)
        whole = self.criterion(outputs, targets).double()
        rows = (self.row_weights(targets) * self.values(outputs, targets).double()).sum()
        if not torch.isclose(whole, rows, rtol=1e-4, atol=1e-6):
            raise ValueError(
                f"criterion {type(self.criterion).__name__} is not a {self.reduction} over rows: "
                f"{whole.item():.6g} on {outputs.shape[0]} rows together, {rows.item():.6g} from "
                "the rows one by one; per-sample quantities do not exist for it. Train with a "
                "criterion that is a mean or a sum over samples, or analyse the Hessian only"
            )

    def __repr__(self) -> str:
        return f"RowwiseLoss({self.criterion})"


def _aligned(targets: Tensor, outputs: Tensor) -> Tensor:
    """Give real targets the outputs' dtype and shape; class numbers stay as they are."""
    if not targets.is_floating_point():
        return targets
    targets = targets.to(outputs.dtype)
    return targets.reshape(outputs.shape) if targets.numel() == outputs.numel() else targets
