"""A scorer that ranks networks by their training rows alone."""

from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator

from sharpfit.bridge import Problem, as_problem
from sharpfit.model_selection.training_rows import TrainingRowsScorer
from sharpfit.theory.selection import find_neighbourhood, margin_shortfall, residual_excess

_ROWS_PER_BATCH = 4096


def selection_criterion(problem: Problem) -> float:
    """Estimate how badly a fitted network does on fresh rows, from the rows it was trained on.

    Parameters
    ----------
    problem : Problem
        With targets.

    Returns
    -------
    float
        Smaller is better: a share of rows for classifiers, a distance in units of the network's
        targets for regressors.
    """
    outputs = _outputs(problem)
    rows = problem.inputs.flatten(1).double().cpu().numpy()
    if problem.task == "regression":
        targets = problem.targets.reshape(outputs.shape).double().cpu().numpy()
        return residual_excess(outputs, targets, find_neighbourhood(rows))
    return margin_shortfall(outputs, problem.labels, find_neighbourhood(rows, problem.labels))


@torch.no_grad()
def _outputs(problem: Problem) -> np.ndarray:
    outputs = torch.cat([problem.module(batch) for batch in problem.inputs.split(_ROWS_PER_BATCH)])
    if not torch.isfinite(outputs).all():
        raise ValueError(
            f"{type(problem.network).__name__} returned outputs that are not finite on "
            f"{int((~torch.isfinite(outputs)).any(1).sum())} of {len(outputs)} rows; its training "
            "diverged: lower lr, or scale X"
        )
    return outputs.double().cpu().numpy()


class SelectionScorer(TrainingRowsScorer):
    """Minus the estimated badness of a network on fresh rows, from its training rows.

    An *estimate* for ranking candidates; it certifies nothing. See
    `selection_criterion` for the quantity.

    Parameters
    ----------
    rows : {"training", "any"}, default="training"
        "training" warns when a network is scored on rows other than those it was fitted on.
    """

    __name__ = "selection_scorer"

    def score(self, estimator: BaseEstimator, X: Any, y: Any) -> float:
        """Return minus the selection criterion.

        Parameters
        ----------
        estimator : estimator object
            A fitted network, or a pipeline or search around one.
        X : array-like of shape (n, ...)
            Its training rows.
        y : array-like of shape (n,) or (n, k)
            Their targets.

        Returns
        -------
        float
        """
        if y is None:
            raise ValueError("y is None, but selection_scorer compares outputs with targets")
        return -selection_criterion(as_problem(estimator, X, y, prefit=True))


selection_scorer = SelectionScorer()
