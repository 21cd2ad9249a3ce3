"""The bound of one fitted network on one set of rows: the computation behind every interface."""

import dataclasses
from typing import Any

import numpy as np

from sharpfit.analysers.bound.arguments import check_threshold
from sharpfit.analysers.bound.assumptions import Assumption
from sharpfit.analysers.bound.constants import LipschitzResult, exact_outputs, lipschitz_result
from sharpfit.analysers.bound.memory import cached_geometry
from sharpfit.analysers.bound.metric import MetricSpace, metric_space, numeric_rows
from sharpfit.analysers.bound.settings import BoundSettings
from sharpfit.bridge import Problem, affine_map
from sharpfit.theory import (
    Bound,
    Geometry,
    bound_floor,
    clipped_residuals,
    generalisation_bound,
    logit_margins,
)

__all__ = ["ProblemBound", "bound_of_problem", "floor_of_rows"]


@dataclasses.dataclass(frozen=True, eq=False)
class ProblemBound:
    """A bound together with what it was computed from.

    Attributes
    ----------
    bound : Bound
        The bound and its terms.
    certified : bool
        Whether every assumption that can be checked holds and the constant is certified.
    assumptions : dict of str to Assumption
        What the bound assumes.
    geometry : Geometry
        What was computed from the rows alone.
    features : ndarray of shape (n, d)
        The rows in the metric.
    outcomes : dict
        ``labels``, or ``targets`` and ``loss_bound``.
    """

    bound: Bound
    certified: bool
    assumptions: dict[str, Assumption]
    geometry: Geometry
    features: np.ndarray
    outcomes: dict[str, Any]

    def floor(self, settings: BoundSettings) -> dict[str, float]:
        """Return the floor of every form on these rows, see ``sharpfit.theory.bound_floor``."""
        return _floor(self.geometry, self.features, self.outcomes, settings)

    def floor_in(self, rows: Any, settings: BoundSettings) -> dict[str, float]:
        """Return the floor of the same rows in another space."""
        features = numeric_rows(rows)
        reference = self.geometry.reference if self.geometry.reference_given else None
        geometry = _geometry(features, self.outcomes, settings, reference)
        return _floor(geometry, features, self.outcomes, settings)


def floor_of_rows(X: Any, y: Any, task: str, settings: BoundSettings) -> dict[str, float]:
    """Return the floor of every form with distances between rows, without any network.

    Parameters
    ----------
    X : array-like of shape (n, ...)
        Rows.
    y : array-like of shape (n,) or (n, k)
        Classes or targets.
    task : {"classification", "regression"}
        Kind of targets.
    settings : BoundSettings
        Of the bound.

    Returns
    -------
    dict of str to float
        Floor by form.
    """
    features = numeric_rows(X)
    if task == "classification":
        outcomes: dict[str, Any] = {"labels": np.asarray(y)}
    else:
        outcomes = {"targets": numeric_rows(y), "loss_bound": _loss_bound(settings)}
    return _floor(_geometry(features, outcomes, settings, None), features, outcomes, settings)


def bound_of_problem(problem: Problem, y: Any, settings: BoundSettings) -> ProblemBound:
    """Bound the error of a fitted network from rows and targets.

    Parameters
    ----------
    problem : Problem
        From :func:`~sharpfit.bridge.as_problem` on the same rows and targets.
    y : array-like of shape (n,) or (n, k)
        Targets as given.
    settings : BoundSettings
        The same for all networks that are compared.

    Returns
    -------
    ProblemBound

    Raises
    ------
    ValueError
        If the settings do not fit the problem; the message says how to go on.
    """
    check_threshold(problem.network)  # the winner of a search is known only now
    space = metric_space(problem, settings.metric)
    outputs = exact_outputs(problem)
    classification = problem.task == "classification"
    if classification:
        outcomes = {"labels": problem.labels}
        values, factor = logit_margins(outputs, problem.labels), 1.0
    else:
        targets = numeric_rows(y)
        outcomes = {"targets": targets, "loss_bound": _loss_bound(settings)}
        values, factor = _predictions(problem, outputs)
    geometry = _geometry(space.features, outcomes, settings, space.reference)
    result = lipschitz_result(problem, space, settings.lipschitz, values, factor)
    if classification:
        evidence = {"margins": values - result.slack, "radii": result.radii}
    else:
        losses = clipped_residuals(values, targets, settings.loss_bound)
        evidence = {"losses": np.minimum(losses + result.slack / settings.loss_bound, 1.0)}
    delta = (1.0 - settings.confidence) / space.n_metrics
    bound = generalisation_bound(
        geometry,
        result.constant,
        method=settings.method,
        confidence=1.0 - delta,
        **evidence,
    )
    bound = dataclasses.replace(bound, confidence=settings.confidence)
    assumptions = _assumptions(problem, space, result, geometry)
    violated = any(assumption.status == "violated" for assumption in assumptions.values())
    return ProblemBound(
        bound=bound,
        certified=result.certified and not violated,
        assumptions=assumptions,
        geometry=geometry,
        features=space.features,
        outcomes=outcomes,
    )


def _floor(
    geometry: Geometry, features: np.ndarray, outcomes: dict[str, Any], settings: BoundSettings
) -> dict[str, float]:
    given = {key: value for key, value in outcomes.items() if key != "loss_bound"}
    return bound_floor(geometry, features, **given, confidence=settings.confidence)


def _geometry(
    features: np.ndarray,
    outcomes: dict[str, Any],
    settings: BoundSettings,
    reference: np.ndarray | None,
) -> Geometry:
    return cached_geometry(
        features,
        outcomes,
        memory=settings.memory,
        scales=settings.scales,
        capacities=tuple(settings.capacities),
        radii=settings.radii,
        reference=reference,
        n_splits=settings.n_splits,
        chunk_size=settings.chunk_size,
        random_state=settings.random_state,
        n_jobs=settings.n_jobs,
        verbose=settings.verbose,
    )


def _loss_bound(settings: BoundSettings) -> float:
    if settings.loss_bound is None:
        raise ValueError(
            "loss_bound=None: the bound of a regressor is on min(1, |f(x) - y| / loss_bound); "
            "choose the residual at which you clip, in units of y, before looking at the rows."
        )
    return float(settings.loss_bound)


def _predictions(problem: Problem, outputs: np.ndarray) -> tuple[np.ndarray, float]:
    """Predictions in units of the targets, and units of the target per unit of output."""
    transformer = problem.target_transformer
    if transformer is None:
        return outputs, 1.0
    try:
        matrix = affine_map((transformer,), outputs.shape[1]).matrix
    except ValueError as error:
        raise ValueError(
            f"the target transformer {type(transformer).__name__} has no affine inverse, so the "
            "Lipschitz constant of the prediction is not known; use StandardScaler or another "
            "affine transformer for the targets."
        ) from error
    factor = 1.0 / float(np.linalg.norm(matrix, -2))
    return np.asarray(transformer.inverse_transform(outputs), dtype=np.float64), factor


def _assumptions(
    problem: Problem, space: MetricSpace, result: LipschitzResult, geometry: Geometry
) -> dict[str, Assumption]:
    note = f"; {geometry.n_repeated} rows repeat others" if geometry.n_repeated else ""
    assumptions = {
        "independent_rows": Assumption(
            "assumed",
            f"rows are independent draws from the distribution of future rows{note}",
            "grouped, repeated or augmented rows need one row per independent unit",
        ),
        "fixed_metric": space.assumption,
        "fixed_settings": Assumption(
            "assumed",
            "metric, grids, splits, confidence and method were chosen before looking at the rows, "
            "and are the same for all networks compared",
            "choosing among k settings costs log k: divide 1 - confidence by k",
        ),
        "lipschitz_constant": result.assumption,
        "evaluation_mode": Assumption(
            "holds", "the network is taken in evaluation mode: no dropout, fixed batch norm"
        ),
        "arithmetic": Assumption(
            "holds" if result.certified else "assumed",
            "the statement is on the real-valued function; a bound on rounding was subtracted"
            if result.certified
            else "rounding is neglected in an estimate",
        ),
    }
    if problem.task == "regression":
        assumptions["loss_bound"] = Assumption(
            "assumed", f"loss_bound={geometry.loss_bound:g} was fixed before looking at y"
        )
    return assumptions
