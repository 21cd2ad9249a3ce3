"""A scorer that ranks networks by their training rows alone."""

import math
from collections import OrderedDict
from typing import Any

import joblib
import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import nn

from sharpfit.bridge import Problem, as_problem
from sharpfit.model_selection.training_rows import TrainingRowsScorer
from sharpfit.theory.selection import Neighbourhood, crossing_probability, find_neighbourhood
from sharpfit.theory.smoothers import KernelSmoothers, fit_smoothers, mimicked_error

_ROWS_PER_BATCH = 4096


class SelectionCriterion:
    """An estimate of how badly networks do on fresh rows, from the rows they are trained on.

    Classifiers are judged by `sharpfit.theory.selection.crossing_probability`, regressors by
    `sharpfit.theory.smoothers.mimicked_error`. Both need the outputs at the rows only, and
    distances between the network's inputs. What depends on the rows alone is computed once, so
    several networks, or the epochs of one, are judged cheaply.

    Parameters
    ----------
    problem : Problem
        The rows, with targets.
    """

    def __init__(self, problem: Problem) -> None:
        if not problem.inputs.is_floating_point():
            raise TypeError(
                f"inputs of {type(problem.network).__name__} have dtype {problem.inputs.dtype}, "
                "but the selection criterion compares rows by their distances; use it on networks "
                "with real inputs, for example after an embedding"
            )
        self._inputs = problem.inputs
        self._labels = problem.labels
        self._geometry = _geometry(problem)

    def __call__(self, module: nn.Module) -> float:
        """Judge a network.

        Parameters
        ----------
        module : torch.nn.Module
            In evaluation mode, returning logits or predictions of shape (n, C).

        Returns
        -------
        float
            Smaller is better: a probability for classifiers, a squared distance in units of the
            network's targets for regressors. Infinite where an output is not finite.
        """
        with torch.no_grad():
            batches = self._inputs.split(_ROWS_PER_BATCH)
            outputs = torch.cat([module(batch) for batch in batches]).double().cpu().numpy()
        if not np.isfinite(outputs).all():
            return math.inf
        if self._labels is not None:
            return crossing_probability(outputs, self._labels, self._geometry)
        return mimicked_error(outputs, self._geometry)


# The candidates of a search share their rows. A few entries serve pipelines that scale differently.
_recent: OrderedDict[str, Neighbourhood | KernelSmoothers] = OrderedDict()
_LARGEST_NUMBER_OF_GEOMETRIES = 4


def _geometry(problem: Problem) -> Any:
    rows = problem.inputs.flatten(1).double().cpu().numpy()
    targets = None
    if problem.task == "regression":
        targets = problem.targets.reshape(len(rows), -1).double().cpu().numpy()
    key = joblib.hash((rows, targets))
    geometry = _recent.pop(key, None)
    if geometry is None:
        geometry = find_neighbourhood(rows) if targets is None else fit_smoothers(rows, targets)
    _recent[key] = geometry
    while len(_recent) > _LARGEST_NUMBER_OF_GEOMETRIES:
        # Another thread may have emptied it in the meantime.
        _recent.pop(next(iter(_recent), None), None)
    return geometry


class SelectionScorer(TrainingRowsScorer):
    """Minus the estimated badness of a network on fresh rows, from its training rows.

    An *estimate* made for ranking candidates that were fitted on the same rows; it certifies
    nothing and is no error rate. `SelectionCriterion` says what is computed. It rests on distances
    between inputs that mean something, and is not for very unequal classes; see the user guide.

    Parameters
    ----------
    rows : {"training", "any"}, default="training"
        "training" warns when a network is scored on rows other than those it was fitted on.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sharpfit import NetworkClassifier, ResubstitutionSplit, selection_scorer
    >>> X, y = load_iris(return_X_y=True)
    >>> grid = {"optimizer__weight_decay": [0, 1]}
    >>> net = NetworkClassifier(lr=0.05, max_epochs=60, random_state=0)
    >>> search = GridSearchCV(net, grid, scoring=selection_scorer, cv=ResubstitutionSplit())
    >>> search.fit(X, y).best_params_
    {'optimizer__weight_decay': 0}
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
