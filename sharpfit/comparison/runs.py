"""One run of a comparison: train where needed, measure, and take the generalisation gap."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from sklearn.base import BaseEstimator, clone

from sharpfit.bridge import Problem, as_problem, unwrap
from sharpfit.comparison.interrupts import interrupts_end_the_run
from sharpfit.measures import compute_measures
from sharpfit.networks import StopTrainingAt

Gap = Literal["error", "loss"]


@dataclass(frozen=True)
class Common:
    """What the runs of a comparison have in common.

    Attributes
    ----------
    kind : {"updates", "training_loss"}
        What is equal.
    value : float
        Number of updates, or level of the training loss.
    """

    kind: Literal["updates", "training_loss"]
    value: float


@dataclass(frozen=True)
class Run:
    """What is known of one trained network.

    Attributes
    ----------
    status : str
        "ok", or why the run does not count.
    gap : float
        Test minus training error or loss.
    training, test : float
        The two terms of the gap.
    gap_error : float
        Standard error of the gap over the draw of the test rows.
    n_updates : int
        Optimiser steps recorded in the history; 0 where none is.
    measures : dict of str to float
        Values of the measures, NaN where one does not exist.
    reasons : dict of str to str
        Why measures do not exist.
    """

    status: str
    gap: float = math.nan
    training: float = math.nan
    test: float = math.nan
    gap_error: float = math.nan
    n_updates: int = 0
    measures: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


def evaluate_run(
    estimator: BaseEstimator,
    data: tuple[Any, Any, Any, Any],
    measures: Sequence[str],
    *,
    train: bool,
    common: Common | None,
    gap: Gap,
    random_state: int,
    key: str,
) -> Run:
    """Train a clone if asked, measure it, and compare training with test rows.

    Parameters
    ----------
    estimator : estimator object
        A network, or a pipeline around one.
    data : tuple of (X, y, X_test, y_test)
        Training and test rows.
    measures : sequence of str
        Names of measures.
    train : bool
        Whether a clone is trained; otherwise the estimator is taken as it is.
    common : Common or None
        Where training stops; None for the estimator's own end.
    gap : {"error", "loss"}
        What is compared.
    random_state : int
        Seed of measures that draw.
    key : str
        What the result is kept under; nothing here depends on it.

    Returns
    -------
    Run
        A run that diverged or did not reach what is common says so in its status.
    """
    X, y, X_test, y_test = data
    if train:
        try:
            estimator = _train(estimator, X, y, common)
        except (ArithmeticError, RuntimeError, ValueError) as error:
            return Run(status=f"training failed: {error}")
    n_updates = _count_updates(estimator)
    if common is not None and not _reached(estimator):
        return Run(
            status=f"did not reach {common.kind} = {common.value:g} within max_epochs",
            n_updates=n_updates,
        )
    training, _ = _error(as_problem(estimator, X, y, prefit=True), gap)
    test, gap_error = _error(as_problem(estimator, X_test, y_test, prefit=True), gap)
    if not math.isfinite(training) or not math.isfinite(test):
        return Run(status="diverged: outputs are not finite", n_updates=n_updates)
    values, reasons = _measure(estimator, X, y, measures, random_state)
    return Run("ok", test - training, training, test, gap_error, n_updates, values, reasons)


def _train(estimator: BaseEstimator, X: Any, y: Any, common: Common | None) -> BaseEstimator:
    estimator = clone(estimator)
    if common is not None:
        network = unwrap(estimator).network
        stop = StopTrainingAt(**{common.kind: common.value})
        network.set_params(callbacks=[*(network.callbacks or []), ("stop_training_at", stop)])
        if common.kind == "updates":
            network.set_params(max_epochs=int(common.value))  # an epoch is at least one update
    with interrupts_end_the_run():
        return estimator.fit(X, y)


def _reached(estimator: BaseEstimator) -> bool:
    return dict(unwrap(estimator).network.callbacks_)["stop_training_at"].reached_


def _count_updates(estimator: BaseEstimator) -> int:
    history = unwrap(estimator).network.history
    return sum("train_loss" in batch for epoch in history for batch in epoch.get("batches", []))


@torch.no_grad()
def _error(problem: Problem, gap: Gap) -> tuple[float, float]:
    """Return the mean error or loss, and its standard error over the draw of the rows."""
    outputs = torch.cat([problem.module(batch) for batch in problem.inputs.split(4096)])
    if not bool(torch.isfinite(outputs).all()):
        return math.nan, math.nan
    if gap == "error" and problem.labels is not None:
        logits = outputs.cpu().numpy()
        predicted = logits[:, 0] > 0 if logits.shape[1] == 1 else logits.argmax(axis=1)
        values = (predicted != problem.labels).astype(np.float64)
        weights = np.full(len(values), 1.0 / len(values))
    else:
        loss = problem.sample_loss()
        weights = loss.row_weights(problem.targets).cpu().numpy()
        values = loss.values(outputs, problem.targets).double().cpu().numpy()
    deviations = values - float(weights @ values) / float(weights.sum())
    return float(weights @ values), float(np.linalg.norm(weights * deviations))


def _measure(
    estimator: BaseEstimator, X: Any, y: Any, names: Sequence[str], random_state: int
) -> tuple[dict[str, float], dict[str, str]]:
    measured = compute_measures(estimator, X, y, measures=names, random_state=random_state)
    values = {name: measured[name].value for name in names}
    reasons = {name: str(m.reason) for name, m in measured.items() if m.reason is not None}
    return values, reasons
