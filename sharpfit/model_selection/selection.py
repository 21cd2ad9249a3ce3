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
from sharpfit.theory.fresh_rows import error_against_reference, shifted_rows, stand_in_rows
from sharpfit.theory.kernel_regression import fit_kernel_regression
from sharpfit.theory.patch_features import PatchFeatures

_ROWS_PER_BATCH = 4096
_LARGEST_NUMBER_OF_ROWS = 1000
# Of the points where networks are judged; fewer rows are judged where inputs are very wide.
_LARGEST_NUMBER_OF_BYTES = 128 * 2**20
_POINTS_PER_ROW = 7  # at most: a row of three spatial axes has six stand-ins


class SelectionCriterion:
    """An estimate of how badly networks do on fresh rows, from the rows they are trained on.

    Networks are judged at the rows and at four stand-ins for fresh rows near each
    (`sharpfit.theory.fresh_rows`), for 1000 rows at the most and 128 MiB of points. The labels
    there are the answers of the kernel regression with the smallest leave-one-out error
    (`sharpfit.theory.kernel_regression`); a row counts twice, with the answer of the regression
    that knows it and of the one fitted without it. All count alike. What depends on the rows alone
    is computed once, so several networks, or the epochs of one, are judged cheaply.

    Inputs that are arrays count as signals or images, channels first; but matrices, steps first,
    unless the network has one-dimensional convolutions. If the best regression is one on patterns
    that occur anywhere in them, the stand-ins are the rows shifted by one place instead.

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
        for name, values in {"X": problem.inputs, "y": problem.targets}.items():
            if not torch.isfinite(values).all():
                raise ValueError(f"{name} has values that are not finite; impute or drop such rows")
        self._classification = problem.task == "classification"
        examination = _examination(problem)
        # The points are shared with networks that take the same rows in another shape.
        points = examination.points.reshape(-1, *problem.inputs.shape[1:])
        self._inputs = points.to(problem.inputs.device)
        self._reference = examination.reference

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
            # Copies: a module may work in place, and other candidates see the same points.
            batches = [module(batch.clone()) for batch in self._inputs.split(_ROWS_PER_BATCH)]
        outputs = torch.cat(batches).double().cpu().numpy()
        if not np.isfinite(outputs).all():
            return math.inf
        n_judged = len(self._reference) - len(outputs)
        twice = np.concatenate([outputs[:n_judged], outputs])
        return error_against_reference(twice, self._reference, classification=self._classification)


@dataclass(frozen=True, eq=False)
class _Examination:
    """Where networks are judged, and what the regression says there; depends on the rows alone.

    The points are p rows and their stand-ins. The reference begins with p answers of regressions
    that were fitted without the row.
    """

    points: Tensor
    reference: np.ndarray


# The candidates of a search share their rows. A few entries serve pipelines that scale differently.
_recent: OrderedDict[str, _Examination] = OrderedDict()
_LARGEST_NUMBER_OF_EXAMINATIONS = 4


def _examination(problem: Problem) -> _Examination:
    inputs = problem.inputs
    steps_first = inputs.ndim == 3 and not any(
        isinstance(layer, nn.Conv1d) for layer in problem.module.modules()
    )
    if problem.task == "regression":
        targets = problem.targets.reshape(len(inputs), -1).double().cpu().numpy()
    else:
        targets = np.eye(len(problem.classes))[problem.labels]
    key = joblib.hash((inputs.cpu().numpy(), targets, steps_first))
    found = _recent.pop(key, None)
    if found is None:
        found = _examine(inputs.transpose(1, 2) if steps_first else inputs, targets)
        if steps_first:
            found = _Examination(found.points.transpose(1, 2).contiguous(), found.reference)
    _recent[key] = found
    while len(_recent) > _LARGEST_NUMBER_OF_EXAMINATIONS:
        # Another thread may have emptied it in the meantime.
        _recent.pop(next(iter(_recent), None), None)
    return found


def _examine(inputs: Tensor, targets: np.ndarray) -> _Examination:
    rows = inputs.flatten(1).double().cpu().numpy()
    shape = tuple(inputs.shape[1:]) if max(inputs.shape[2:], default=1) > 1 else None
    bytes_per_row = _POINTS_PER_ROW * rows.shape[1] * inputs.element_size()
    n_judged = min(_LARGEST_NUMBER_OF_ROWS, max(100, _LARGEST_NUMBER_OF_BYTES // bytes_per_row))
    regression = fit_kernel_regression(rows, targets, shape=shape, largest_number=n_judged)
    judged = rows[regression.indices]
    if isinstance(regression.features, PatchFeatures):
        stand_ins = shifted_rows(judged, regression.features.shape)
    else:
        stand_ins = stand_in_rows(rows, regression.indices)
    points = np.concatenate([judged, stand_ins.reshape(-1, rows.shape[1])])
    answers = [regression.leave_one_out, regression.predict(points)]
    tensor = torch.as_tensor(points).to(inputs.dtype).reshape(-1, *inputs.shape[1:])
    return _Examination(tensor, np.concatenate(answers))


class SelectionScorer(TrainingRowsScorer):
    """Minus the estimated badness of a network on fresh rows, from its training rows.

    An *estimate* made for ranking candidates that were fitted on the same rows; it certifies
    nothing and is no error rate. `SelectionCriterion` says what is computed. It rests on distances
    between inputs that mean something; see the user guide.

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
