"""What ranks a grid: ours, the prototypes before it, and measures of the literature.

Every criterion is a function of a fitted network and its training rows; smaller is better.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from stacked import StackedConvolution, StackedLinear
from suites import Suite
from torch import Tensor, nn
from torch.nn import functional
from training import losses

from sharpfit.theory.selection import (
    Neighbourhood,
    crossing_probability,
    find_neighbourhood,
    margins_of_classes,
)
from sharpfit.theory.smoothers import KernelSmoothers, fit_smoothers, mimicked_error


@dataclass
class Rows:
    """The training rows of one seed and what depends on them alone."""

    suite: Suite
    X: Tensor
    y: Tensor
    neighbourhood: Neighbourhood
    spacing_in_class: float
    smoothers: KernelSmoothers | None

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
            torch.from_numpy(X),
            y,
            find_neighbourhood(rows),
            float(np.median(np.concatenate(nearest))),
            fit_smoothers(rows, y.double().numpy()[:, None]) if regression else None,
        )


@dataclass
class Network:
    """A fitted network with its outputs and margins on its training rows."""

    module: nn.Module
    outputs: np.ndarray
    margins: np.ndarray
    gradient_norms: np.ndarray

    @classmethod
    def of(cls, module: nn.Module, rows: Rows) -> "Network":
        """Evaluate a network on its rows."""
        X = rows.X.clone().requires_grad_()
        outputs = module(X)
        values = outputs[:, 0]
        if rows.suite.task != "regression":
            if outputs.shape[1] == 1:
                values = outputs[:, 0] * (2 * rows.y - 1)
            else:
                own = outputs.gather(1, rows.y[:, None])[:, 0]
                values = own - outputs.scatter(1, rows.y[:, None], -torch.inf).amax(1)
        (gradients,) = torch.autograd.grad(values.sum(), X)
        margins = values.detach().double().numpy()
        norms = gradients.double().norm(dim=1).numpy()
        return cls(module, outputs.detach().double().numpy(), margins, norms)


def selection_criterion(network: Network, rows: Rows) -> float:
    """Compute what `sharpfit.selection_scorer` does."""
    if rows.smoothers is not None:
        return mimicked_error(network.outputs, rows.smoothers)
    return crossing_probability(network.outputs, rows.y.numpy(), rows.neighbourhood)


def training_error(network: Network, rows: Rows) -> float:
    """Share of wrong training rows, or their mean squared error."""
    if rows.suite.task == "regression":
        return float(((network.outputs[:, 0] - rows.y.numpy()) ** 2).mean())
    return float((network.margins <= 0).mean())


def training_loss(network: Network, rows: Rows) -> float:
    """Mean loss on the training rows."""
    return losses(rows.suite, torch.from_numpy(network.outputs)[None], rows.y[None]).item()


def largest_slope(network: Network, rows: Rows) -> float:
    """Ramp of margins in units of the largest slope between neighbours, or residual plus slope."""
    near = rows.neighbourhood
    if rows.suite.task == "regression":
        steps = np.abs(network.outputs - network.outputs[:, 0][near.indices])
        residual = np.abs(network.outputs[:, 0] - rows.y.numpy()).mean()
        return float(residual + 0.5 * near.spacing * (steps / near.distances).max())
    there = margins_of_classes(network.outputs[near.indices], rows.y.numpy()[:, None])
    slope = (np.abs(network.margins[:, None] - there) / near.distances).max()
    required = 0.5 * rows.spacing_in_class * slope
    return float(np.clip(1 - network.margins / required, 0, 1).mean())


def largest_jacobian(network: Network, rows: Rows) -> float:
    """Largest norm of a margin's (or prediction's) gradient by the inputs."""
    return float(network.gradient_norms.max())


def geometric_complexity(network: Network, rows: Rows) -> float:
    """Mean squared norm of the gradient by the inputs (Novak et al. 2018, Dherin et al. 2022)."""
    return float((network.gradient_norms**2).mean())


def normalised_margin(network: Network, rows: Rows) -> float:
    """Minus the mean distance to the linearised boundary (Elsayed et al. 2018)."""
    return -float((network.margins / (network.gradient_norms + 1e-12)).mean())


def spectral_margin(network: Network, rows: Rows) -> float:
    """Product of spectral norms over the 10 % quantile of margins (after Bartlett et al. 2017)."""
    product = np.prod([np.linalg.norm(w, 2) for w in _matrices(network.module)])
    scale = np.quantile(network.margins, 0.1)
    return float(product / scale) if scale > 0 else float(1e12 - scale)


def spectral_norms(network: Network, rows: Rows) -> float:
    """Sum of the logarithms of the layers' spectral norms."""
    return float(sum(np.log(np.linalg.norm(w, 2)) for w in _matrices(network.module)))


def frobenius_norm(network: Network, rows: Rows) -> float:
    """Squared norm of all weights."""
    return float(sum((w**2).sum() for w in _matrices(network.module)))


def fisher_rao_norm(network: Network, rows: Rows) -> float:
    """Mean squared product of outputs and loss gradients (Liang et al. 2019), depth left out."""
    outputs = torch.from_numpy(network.outputs).requires_grad_()
    total = losses(rows.suite, outputs[None], rows.y[None]).sum() * len(outputs)
    (gradients,) = torch.autograd.grad(total, outputs)
    return float(((outputs * gradients).sum(1) ** 2).mean().detach())


def sharpness(network: Network, rows: Rows) -> float:
    """Rise of the training loss after an ascent step of length 0.05 (Foret et al. 2021)."""
    module = copy.deepcopy(network.module)
    parameters = list(module.parameters())

    def loss() -> Tensor:
        return losses(rows.suite, module(rows.X)[None], rows.y[None]).sum()

    before = loss()
    gradients = torch.autograd.grad(before, parameters)
    norm = torch.stack([g.norm() for g in gradients]).norm() + 1e-12
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter += 0.05 * gradient / norm
        return float(loss() - before)


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


def _matrices(module: nn.Module) -> list[np.ndarray]:
    weights = [m.weight[0] for m in module.modules() if isinstance(m, StackedLinear)]
    weights += [
        m.weight[0].flatten(1) for m in module.modules() if isinstance(m, StackedConvolution)
    ]
    return [w.detach().double().numpy() for w in weights]


CRITERIA: dict[str, Callable[[Network, Rows], float]] = {
    "selection_scorer": selection_criterion,
    "largest slope between neighbours": largest_slope,
    "training error": training_error,
    "training loss": training_loss,
    "largest input Jacobian": largest_jacobian,
    "geometric complexity": geometric_complexity,
    "gradient-normalised margin": normalised_margin,
    "spectral norms / margin": spectral_margin,
    "spectral norms": spectral_norms,
    "Frobenius norm": frobenius_norm,
    "Fisher-Rao norm": fisher_rao_norm,
    "ascent sharpness": sharpness,
    "error after averaging neighbours": neighbour_smoothing,
}
