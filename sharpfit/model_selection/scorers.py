"""Scorers that turn the analysers into model selection."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from sklearn.base import BaseEstimator

from sharpfit.analysers import HessianSpectrum, JacobianProfiler
from sharpfit.analysers.bound import BoundSettings, bound_of_problem
from sharpfit.analysers.bound.arguments import check_rows
from sharpfit.bridge import Problem, as_problem
from sharpfit.model_selection.training_rows import Rows, TrainingRowsScorer
from sharpfit.theory import DEFAULT_CAPACITIES


class BoundScorer(TrainingRowsScorer):
    """Minus the generalisation bound of a fitted network on its training rows.

    Equals ``-GeneralisationBound(estimator, ...).fit(X, y).bound_`` with the same settings.
    Vacuous bounds score below -1 and still rank.

    Parameters
    ----------
    settings : BoundSettings
        Settings shared by all candidates.
    rows : {"training", "any"}, default="training"
        "training" warns when a network is scored on rows other than those it was fitted on.
    """

    __name__ = "bound_scorer"

    def __init__(self, settings: BoundSettings, rows: Rows = "training"):
        super().__init__(rows)
        self.settings = settings

    def score(self, estimator: BaseEstimator, X: Any, y: Any) -> float:
        """Return minus the bound.

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
        check_rows(estimator, X, y, {}, self.settings.loss_bound)
        problem = as_problem(estimator, X, y, prefit=True)
        return -bound_of_problem(problem, y, self.settings).bound.value


def make_bound_scorer(
    *,
    rows: Rows = "training",
    method: str = "best",
    lipschitz: str | Callable[..., Any] = "empirical",
    metric: Any = None,
    confidence: float = 0.95,
    scales: Sequence[float] | None = None,
    capacities: Sequence[float] = DEFAULT_CAPACITIES,
    radii: Sequence[float] | None = None,
    n_splits: int = 1,
    chunk_size: int | str = "auto",
    loss_bound: float | None = None,
    memory: Any = "process",
    n_jobs: int | None = None,
    random_state: int = 0,
) -> BoundScorer:
    """Make a scorer from the settings of a generalisation bound.

    Parameters
    ----------
    rows : {"training", "any"}, default="training"
        "training" warns when a network is scored on rows other than those it was fitted on,
        as happens in a search without ``cv=ResubstitutionSplit()``; "any" does not look.
    method, lipschitz, metric, confidence, scales, capacities, radii, n_splits, chunk_size, \
loss_bound, memory, n_jobs, random_state
        As in :class:`~sharpfit.GeneralisationBound`. The bound survives the search because
        they are the same for all candidates; `random_state` is an integer for that reason.

    Returns
    -------
    BoundScorer
        Called as ``scorer(estimator, X, y)``; higher is better.

    Raises
    ------
    ValueError
        If a setting is out of range.

    Examples
    --------
    >>> from sharpfit import make_bound_scorer
    >>> make_bound_scorer(lipschitz="certified", confidence=0.9)
    bound_scorer
    """
    settings = BoundSettings(
        method=method,
        lipschitz=lipschitz,
        metric=metric,
        confidence=confidence,
        scales=scales,
        capacities=capacities,
        radii=radii,
        n_splits=n_splits,
        chunk_size=chunk_size,
        loss_bound=loss_bound,
        memory=memory,
        n_jobs=n_jobs,
        random_state=random_state,
    )
    return BoundScorer(settings, rows)


class SharpnessScorer(TrainingRowsScorer):
    """Minus the largest eigenvalue of the Hessian of the data loss, an estimate.

    Meant as one column of a multi-metric table. Alone it selects constant networks, which
    are perfectly flat; it warns when it meets one.

    Parameters
    ----------
    rows : {"training", "any"}, default="training"
        "training" warns when a network is scored on rows other than those it was fitted on.
    """

    __name__ = "sharpness_scorer"

    def score(self, estimator: BaseEstimator, X: Any, y: Any) -> float:
        """Return minus the sharpness.

        Parameters
        ----------
        estimator : estimator object
            A fitted network, or a pipeline or search around one.
        X : array-like of shape (n, ...)
            Rows.
        y : array-like of shape (n,) or (n, k)
            Targets.

        Returns
        -------
        float
        """
        if _predicts_one_class(as_problem(estimator, X, y, prefit=True)):
            warnings.warn(
                "sharpness_scorer met a network that predicts the same class for every row. Such "
                "networks are the flattest of all, so sharpness alone selects them; use it beside "
                "another metric in a multi-metric search",
                UserWarning,
                stacklevel=3,
            )
        spectrum = HessianSpectrum(estimator, n_eigenvalues=1, prefit=True, random_state=0)
        return -spectrum.fit(X, y).sharpness_


@torch.no_grad()
def _predicts_one_class(problem: Problem) -> bool:
    if problem.classes is None:
        return False
    outputs = torch.cat([problem.module(batch) for batch in problem.inputs.split(4096)])
    predicted = outputs[:, 0] > 0 if outputs.shape[1] == 1 else outputs.argmax(dim=1)
    return len(predicted.unique()) == 1


class JacobianScorer(TrainingRowsScorer):
    """Minus the largest spectral norm of the input-output Jacobian over the rows.

    An estimate of how steep the network is; it knows nothing of the errors, so use it beside
    another metric.

    Parameters
    ----------
    rows : {"training", "any"}, default="training"
        "training" warns when a network is scored on rows other than those it was fitted on.
    """

    __name__ = "jacobian_scorer"

    def score(self, estimator: BaseEstimator, X: Any, y: Any = None) -> float:
        """Return minus the largest Jacobian norm.

        Parameters
        ----------
        estimator : estimator object
            A fitted network, or a pipeline or search around one.
        X : array-like of shape (n, ...)
            Rows.
        y : array-like, optional
            Not used.

        Returns
        -------
        float
        """
        return -JacobianProfiler(estimator, prefit=True).fit(X).max_norm_


bound_scorer = make_bound_scorer()
sharpness_scorer = SharpnessScorer(rows="any")
jacobian_scorer = JacobianScorer(rows="any")
