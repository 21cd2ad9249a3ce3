"""A scorer that ranks networks by their training rows alone."""

import math
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import nn

from sharpfit.bridge import Problem, as_problem
from sharpfit.model_selection.training_rows import TrainingRowsScorer
from sharpfit.theory.selection import find_neighbourhood, margin_shortfall, residual_excess

_ROWS_PER_BATCH = 4096


class SelectionCriterion:
    """An estimate of how badly networks do on fresh rows, from the rows they are trained on.

    What depends on the rows only is computed once, so that several networks, or the epochs of
    one, are judged cheaply.

    Parameters
    ----------
    problem : Problem
        The rows, with targets.
    """

    def __init__(self, problem: Problem) -> None:
        rows = problem.inputs.flatten(1).double().cpu().numpy()
        self._inputs = problem.inputs
        self._labels = problem.labels
        self._targets = problem.targets
        self._neighbourhood = find_neighbourhood(rows, problem.labels)

    def __call__(self, module: nn.Module) -> float:
        """Judge a network.

        Parameters
        ----------
        module : torch.nn.Module
            In evaluation mode, returning logits or predictions of shape (n, C).

        Returns
        -------
        float
            Smaller is better: a share of rows for classifiers, a distance in units of the
            network's targets for regressors. Infinite where an output is not finite.
        """
        with torch.no_grad():
            batches = self._inputs.split(_ROWS_PER_BATCH)
            outputs = torch.cat([module(batch) for batch in batches]).double().cpu().numpy()
        if not np.isfinite(outputs).all():
            return math.inf
        if self._labels is not None:
            return margin_shortfall(outputs, self._labels, self._neighbourhood)
        targets = self._targets.reshape(outputs.shape).double().cpu().numpy()
        return residual_excess(outputs, targets, self._neighbourhood)


class SelectionScorer(TrainingRowsScorer):
    """Minus the estimated badness of a network on fresh rows, from its training rows.

    An *estimate* for ranking candidates; it certifies nothing. See
    `SelectionCriterion` for the quantity.

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
        problem = as_problem(estimator, X, y, prefit=True)
        badness = SelectionCriterion(problem)(problem.module)
        if not math.isfinite(badness):
            raise ValueError(
                f"{type(problem.network).__name__} returns outputs that are not finite on its "
                "training rows, so it cannot be ranked; its training diverged: lower lr or scale X"
            )
        return -badness


selection_scorer = SelectionScorer()
