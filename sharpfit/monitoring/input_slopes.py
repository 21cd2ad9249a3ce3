"""Slopes between rows, what the losses say of them, and how much the Jacobian varies."""

import math
from functools import cached_property

import numpy as np
from torch import Tensor, nn

from sharpfit.jacobian import (
    RowPairs,
    SlopeBound,
    UnboundedLossError,
    local_variation,
    slope_bound,
)
from sharpfit.objective import BinaryCrossEntropy, CrossEntropy, SampleLoss


def response(loss: SampleLoss, outputs: Tensor) -> Tensor | None:
    """Return the probabilities of a classifier's logits; None where the outputs are predictions.

    Parameters
    ----------
    loss : SampleLoss
    outputs : Tensor of shape (n, C)

    Returns
    -------
    Tensor of shape (n, C) or None
    """
    if isinstance(loss, CrossEntropy):
        return outputs.softmax(dim=1)
    return outputs.sigmoid() if isinstance(loss, BinaryCrossEntropy) else None


class RowSlopes:
    """Slopes between the same rows, measurement after measurement.

    Parameters
    ----------
    inputs : Tensor of shape (n, ...)
        Floating rows, at least two.
    targets : Tensor of shape (n, ...)
        Their targets.
    """

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        self._targets = targets
        self._inputs = inputs.flatten(1).double().cpu()

    @cached_property
    def _pairs(self) -> RowPairs:
        # Not before the network has been evaluated, which names a row that is not finite.
        return RowPairs(self._inputs)

    def measure(self, loss: SampleLoss, outputs: Tensor) -> dict[str, float]:
        """Return the largest slopes of outputs and of probabilities or predictions.

        Parameters
        ----------
        loss : SampleLoss
        outputs : Tensor of shape (n, C)

        Returns
        -------
        dict
            ``slope_bound`` and ``response_slope_bound``.
        """
        found = self._pairs.largest_slope(outputs.cpu().numpy())
        probabilities = response(loss, outputs)
        if probabilities is None:
            return {"slope_bound": found, "response_slope_bound": found}
        steepest = self._pairs.largest_slope(probabilities.cpu().numpy())
        return {"slope_bound": found, "response_slope_bound": steepest}

    def implied(self, loss: SampleLoss, losses: Tensor, n_outputs: int) -> SlopeBound | None:
        """Return the slope that the losses alone imply; None for losses that confine nothing.

        Parameters
        ----------
        loss : SampleLoss
        losses : Tensor of shape (n,)
        n_outputs : int

        Returns
        -------
        SlopeBound or None
        """
        try:
            return slope_bound(loss, losses, self._targets, self._pairs, n_outputs=n_outputs)
        except UnboundedLossError:
            return None

    def distance(self, pair: tuple[int, int] | None) -> float:
        """Return the distance of two rows."""
        if pair is None:
            return math.nan
        points = self._pairs.points
        return float(np.linalg.norm(points[pair[0]] - points[pair[1]]))


def variation(module: nn.Module, loss: SampleLoss, inputs: Tensor) -> dict[str, float]:
    """Measure how much the Jacobian of probabilities or predictions changes near the rows.

    Parameters
    ----------
    module : torch.nn.Module
    loss : SampleLoss
    inputs : Tensor of shape (n, ...)

    Returns
    -------
    dict
        ``local_variation``, the largest norm near the rows over the largest at them, and
        ``jacobian_rate``, the largest change of the Jacobian over distance on segments between
        neighbours: lower estimates, since they look at finitely many points.
    """
    classifier = isinstance(loss, CrossEntropy | BinaryCrossEntropy)
    found = local_variation(module, inputs, output="probabilities" if classifier else "logits")
    return {
        "local_variation": found.excess,
        "jacobian_rate": float(found.segment_rate.max()),
    }
