"""A scorer that ranks networks by their training rows alone."""

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import joblib
import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import Tensor, nn

from sharpfit.bridge import Problem, as_problem
from sharpfit.model_selection.training_rows import TrainingRowsScorer
from sharpfit.theory.fresh_rows import error_on_stand_ins, stand_in_rows
from sharpfit.theory.kernel_regression import fit_kernel_regression
from sharpfit.theory.selection import Neighbourhood, crossing_probability, find_neighbourhood

_ROWS_PER_BATCH = 4096


class SelectionCriterion:
    """An estimate of how badly networks do on fresh rows, from the rows they are trained on.

    Networks are judged on stand-ins for fresh rows (`sharpfit.theory.fresh_rows`) that are labelled
    by the kernel regression with the smallest leave-one-out error on the rows. For classifiers this
    is averaged with a second estimate of the same probability, which takes labels from the rows
    themselves (`sharpfit.theory.selection.crossing_probability`): the regression sees through wrong
    labels, the rows do not depend on how well a kernel does. Only outputs are needed, at the rows
    and at three stand-ins for each (for 2000 rows at the most). What depends on the rows alone is
    computed once, so several networks, or the epochs of one, are judged cheaply.

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
        self._surroundings = _surroundings(problem)

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
        around = self._surroundings
        stand_ins = torch.as_tensor(around.stand_ins).to(self._inputs)
        outputs = _outputs(module, stand_ins.reshape(-1, *self._inputs.shape[1:]))
        if not np.isfinite(outputs).all():
            return math.inf
        classification = self._labels is not None
        judged_by_regression = error_on_stand_ins(
            outputs, around.reference, classification=classification
        )
        at_rows = _outputs(module, self._inputs)
        if not np.isfinite(at_rows).all():
            return math.inf
        if not classification:
            return judged_by_regression
        judged_by_rows = crossing_probability(at_rows, self._labels, around.neighbourhood)
        return (judged_by_regression + judged_by_rows) / 2


@dataclass(frozen=True, eq=False)
class _Surroundings:
    """What depends on the rows alone: neighbours, stand-ins, and a regression's answers there."""

    neighbourhood: Neighbourhood
    stand_ins: np.ndarray
    reference: np.ndarray


def _outputs(module: nn.Module, inputs: Tensor) -> np.ndarray:
    with torch.no_grad():
        batches = [module(batch) for batch in inputs.split(_ROWS_PER_BATCH)]
    return torch.cat(batches).double().cpu().numpy()


# The candidates of a search share their rows. A few entries serve pipelines that scale differently.
_recent: OrderedDict[str, _Surroundings] = OrderedDict()
_LARGEST_NUMBER_OF_SURROUNDINGS = 4


def _surroundings(problem: Problem) -> _Surroundings:
    rows = problem.inputs.flatten(1).double().cpu().numpy()
    if problem.task == "regression":
        targets = problem.targets.reshape(len(rows), -1).double().cpu().numpy()
    else:
        targets = np.eye(len(problem.classes))[problem.labels]
    key = joblib.hash((rows, targets))
    found = _recent.pop(key, None)
    if found is None:
        neighbourhood = find_neighbourhood(rows)
        stand_ins = stand_in_rows(rows, neighbourhood).reshape(-1, rows.shape[1])
        reference = fit_kernel_regression(rows, targets).predict(stand_ins)
        found = _Surroundings(neighbourhood, stand_ins, reference)
    _recent[key] = found
    while len(_recent) > _LARGEST_NUMBER_OF_SURROUNDINGS:
        # Another thread may have emptied it in the meantime.
        _recent.pop(next(iter(_recent), None), None)
    return found


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
