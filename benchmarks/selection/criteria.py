"""What ranks a grid: ours, a prototype before it, and measures of the literature.

Every criterion is a function of a fitted network and its training rows; smaller is better.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from neighbours import Neighbourhood, find_neighbourhood, margins_of_classes
from suites import Suite
from torch import Tensor, nn
from torch.nn import functional

from sharpfit.bridge import Problem
from sharpfit.measures import MEASURES, TrainedNetwork
from sharpfit.model_selection.selection import SelectionCriterion
from sharpfit.objective import as_sample_loss


@dataclass
class Rows:
    """The training rows of one seed and what depends on them alone."""

    suite: Suite
    X: Tensor
    y: Tensor
    neighbourhood: Neighbourhood
    spacing_in_class: float

    @classmethod
    def of(cls, suite: Suite, X: np.ndarray, y: Tensor) -> "Rows":
        """Prepare rows."""
        rows = X.astype(np.float64)
        regression = suite.task == "regression"
        labels = np.zeros(len(y), dtype=int) if regression else y.numpy()
        nearest = []
        for label in np.unique(labels):
            members = rows[labels == label]
            if len(members) > 1:
                nearest.append(find_neighbourhood(members, n_neighbours=1).distances[:, 0])
        return cls(
            suite,
            torch.from_numpy(X).reshape(len(X), *suite.input_shape),
            y,
            find_neighbourhood(rows),
            float(np.median(np.concatenate(nearest))),
        )


@dataclass
class Network:
    """A fitted network with its outputs and errors on its training rows."""

    trained: TrainedNetwork
    outputs: np.ndarray
    errors: np.ndarray

    @classmethod
    def of(cls, module: nn.Module, rows: Rows) -> "Network":
        """Evaluate a network on its rows."""
        trained = TrainedNetwork(_problem(module, rows))
        outputs = trained.outputs.numpy()
        y = rows.y.numpy()
        if rows.suite.task == "regression":
            errors = (outputs[:, 0] - y) ** 2
        elif rows.suite.one_logit:
            errors = (outputs[:, 0] > 0) != y
        else:
            errors = outputs.argmax(1) != y
        return cls(trained, outputs, errors)


def _problem(module: nn.Module, rows: Rows) -> Problem:
    """Make of a bare module what the bridge makes of an estimator."""
    regression = rows.suite.task == "regression"
    criterion: nn.Module
    if regression:
        targets, criterion = rows.y[:, None], nn.MSELoss()
    elif rows.suite.one_logit:
        targets, criterion = rows.y[:, None].float(), nn.BCEWithLogitsLoss()
    else:
        targets, criterion = rows.y, nn.CrossEntropyLoss()
    return Problem(
        estimator=None,
        refitted=False,
        network=None,
        module=module,
        loss=as_sample_loss(criterion),
        objective=None,
        inputs=rows.X,
        targets=targets,
        sample_weight=None,
        task=rows.suite.task,
        classes=None if regression else np.unique(rows.y.numpy()),
        labels=None if regression else rows.y.numpy(),
        preprocessing=(),
        target_transformer=None,
        raw_inputs=rows.X,
    )


def selection_criterion(network: Network, rows: Rows) -> float:
    """Compute what `sharpfit.selection_scorer` does."""
    problem = network.trained.problem
    return SelectionCriterion(problem)(problem.module)


def training_error(network: Network, rows: Rows) -> float:
    """Share of wrong training rows, or their mean squared error."""
    return float(network.errors.mean())


def training_loss(network: Network, rows: Rows) -> float:
    """Mean loss on the training rows."""
    problem = network.trained.problem
    return float(problem.sample_loss().values(network.trained.outputs, problem.targets).mean())


def largest_slope(network: Network, rows: Rows) -> float:
    """Ramp of margins in units of the largest slope between neighbours, or residual plus slope."""
    near = rows.neighbourhood
    apart = near.distances > 0  # repeated rows have no slope between them
    if rows.suite.task == "regression":
        steps = np.abs(network.outputs - network.outputs[:, 0][near.indices])
        residual = np.abs(network.outputs[:, 0] - rows.y.numpy()).mean()
        return float(residual + 0.5 * near.spacing * (steps[apart] / near.distances[apart]).max())
    here = margins_of_classes(network.outputs, rows.y.numpy())
    there = margins_of_classes(network.outputs[near.indices], rows.y.numpy()[:, None])
    slope = (np.abs(here[:, None] - there)[apart] / near.distances[apart]).max()
    required = 0.5 * rows.spacing_in_class * slope
    return float(np.clip(1 - here / required, 0, 1).mean())


def neighbour_smoothing(network: Network, rows: Rows) -> float:
    """Error of the network's answers averaged over the ten nearest other rows."""
    near = rows.neighbourhood.indices
    outputs = torch.from_numpy(network.outputs)
    if rows.suite.task == "regression":
        averaged = outputs[near].mean(1)[:, 0]
        return float(((averaged - rows.y) ** 2).mean())
    if outputs.shape[1] == 1:
        outputs = torch.cat([torch.zeros_like(outputs), outputs], 1)
    averaged = functional.softmax(outputs, 1)[near].mean(1)
    return float((averaged.argmax(1) != rows.y).double().mean())


def measured(name: str) -> Callable[[Network, Rows], float]:
    """Return a measure of `sharpfit.measures`; where it does not exist it ranks nothing."""

    def measure(network: Network, rows: Rows) -> float:
        try:
            return MEASURES[name].function(network.trained)
        except ValueError:
            return math.inf

    return measure


CRITERIA: dict[str, Callable[[Network, Rows], float]] = {
    "selection_scorer": selection_criterion,
    "largest slope between neighbours": largest_slope,
    "training error": training_error,
    "training loss": training_loss,
    "largest input Jacobian": measured("largest_jacobian"),
    "geometric complexity": measured("geometric_complexity"),
    "gradient-normalised margin": measured("negative_gradient_normalised_margin"),
    "spectral norms / margin": measured("log_spectral_product_over_margin"),
    "spectral norms": measured("log_spectral_product"),
    "squared norm": measured("squared_norm"),
    "Fisher-Rao norm": measured("fisher_rao_norm"),
    "ascent sharpness": measured("ascent_sharpness"),
    "error after averaging neighbours": neighbour_smoothing,
}
