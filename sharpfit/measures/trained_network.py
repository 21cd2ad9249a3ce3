"""A trained network and its training rows, with what several measures share computed once."""

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sharpfit.analysers.bound import BoundSettings, bound_of_problem
from sharpfit.bridge import Problem
from sharpfit.curvature import GaussNewtonOperator, HessianOperator, curvature_trace
from sharpfit.jacobian import (
    JacobianNorms,
    LocalVariation,
    Slopes,
    jacobian_norms,
    local_variation,
    slopes,
)
from sharpfit.measures.layer_jacobians import LayerJacobians, layer_jacobians, weighted_layers
from sharpfit.theory import Bound

_ROWS_PER_BATCH = 4096

Found = TypeVar("Found")


class TrainedNetwork:
    """A trained network as the measures see it.

    Parameters
    ----------
    problem : Problem
        Network and training rows, with targets.
    initial_module : torch.nn.Module, optional
        The module as it was before training, for measures of the distance travelled.
    random_state : int, default=0
        Seed of measures that draw perturbations.
    """

    def __init__(
        self, problem: Problem, initial_module: nn.Module | None = None, random_state: int = 0
    ):
        self.problem = problem
        self.initial_module = initial_module
        self.random_state = random_state

    @property
    def module(self) -> nn.Module:
        """Module in evaluation mode, returning logits or predictions."""
        return self.problem.module

    @cached_property
    def outputs(self) -> Tensor:
        """Logits or predictions of the training rows, shape (n, C), float64."""
        with torch.no_grad():
            batches = self.problem.inputs.split(_ROWS_PER_BATCH)
            return torch.cat([self.module(batch).double() for batch in batches])

    @cached_property
    def labels(self) -> Tensor:
        """Class numbers of the training rows, shape (n,).

        Raises
        ------
        ValueError
            If the network is no classifier of single labels.
        """
        if self.problem.labels is None:
            raise ValueError("margins need a classifier with one label a row")
        return torch.as_tensor(self.problem.labels, device=self.outputs.device)

    @cached_property
    def margins(self) -> NDArray[np.float64]:
        """Logit margins of the training rows, negative where they are misclassified."""
        margins = self.logit_jacobian.margin
        if margins is None:
            raise ValueError("margins need a classifier with one label a row")
        return margins

    @cached_property
    def margin(self) -> float:
        """The 10 % quantile of the margins."""
        return float(np.quantile(self.margins, 0.1))

    @property
    def log_margin(self) -> float:
        """Logarithm of the absolute value of this quantile.

        Raises
        ------
        ValueError
            If the quantile is zero.
        """
        if self.margin == 0:
            raise ValueError("the 10 % quantile of the margins is zero, so nothing is in its units")
        return math.log(abs(self.margin))

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """Weight matrices of the linear and convolutional layers, by name, float64.

        A convolution's kernel is laid out as one row an output channel.
        """
        return weight_matrices(self.module)

    @cached_property
    def initial_weights(self) -> dict[str, Tensor]:
        """Weight matrices before training.

        Raises
        ------
        ValueError
            If the initial module is not known.
        """
        if self.initial_module is None:
            raise ValueError(
                "the weights before training are not known; train a NetworkClassifier or "
                "NetworkRegressor with an integer random_state, or pass initial_module"
            )
        return weight_matrices(self.initial_module)

    @cached_property
    def spectral_norms(self) -> dict[str, float]:
        """Spectral norms of the weight matrices."""
        return {
            name: float(torch.linalg.matrix_norm(weight, 2))
            for name, weight in self.weights.items()
        }

    @cached_property
    def logit_jacobian(self) -> JacobianNorms:
        """Norms of the Jacobian of logits or predictions, with margins for a classifier."""
        is_classifier = self.problem.labels is not None
        return jacobian_norms(
            self.module,
            self.problem.inputs,
            targets=self.labels if is_classifier else None,
            margins=is_classifier,
        )

    @cached_property
    def probability_jacobian(self) -> JacobianNorms:
        """Norms of the Jacobian of the class probabilities."""
        return jacobian_norms(self.module, self.problem.inputs, output="probabilities")

    @cached_property
    def output_slopes(self) -> Slopes:
        """Slopes of the outputs to the ten nearest neighbours."""
        rows = self.problem.inputs.flatten(1).double().cpu().numpy()
        return slopes(self.outputs.cpu().numpy(), rows, n_neighbours=min(10, len(rows) - 1))

    @cached_property
    def local_variation(self) -> LocalVariation:
        """Jacobians halfway to the nearest neighbour, and at one point around each row."""
        return local_variation(
            self.module,
            self.problem.inputs,
            n_neighbours=1,
            n_steps=1,
            n_directions=1,
            random_state=self.random_state,
        )

    @cached_property
    def layer_jacobians(self) -> LayerJacobians:
        """Jacobians of the outputs in what enters the layers with weights."""
        labels = None if self.problem.labels is None else self.labels
        return layer_jacobians(self.module, self.problem.inputs, labels)

    @cached_property
    def hessian(self) -> HessianOperator:
        """Hessian of the training loss in all trainable parameters."""
        return self.curvature(HessianOperator)

    @cached_property
    def gauss_newton(self) -> GaussNewtonOperator:
        """Gauss-Newton matrix of the training loss in all trainable parameters."""
        return self.curvature(GaussNewtonOperator)

    @cached_property
    def gauss_newton_trace(self) -> float:
        """Trace of the Gauss-Newton matrix, exact where that is cheap and otherwise to 2 %."""
        return self.curvature(
            curvature_trace, matrix="gauss_newton", random_state=self.random_state
        ).value

    def curvature(self, function: Callable[..., Found], **settings: Any) -> Found:
        """Call a function of the curvature of the training loss, or make a curvature matrix.

        Parameters
        ----------
        function : callable
            Takes module, criterion, inputs and targets, such as `HessianOperator`.
        **settings : dict
            Its further settings.

        Returns
        -------
        object
            What it returns.
        """
        problem = self.problem
        return function(
            self.module,
            problem.sample_loss(),
            problem.inputs,
            problem.targets,
            sample_weight=problem.sample_weight,
            **settings,
        )

    @cached_property
    def bound(self) -> Bound:
        """The generalisation bound with its default settings.

        Raises
        ------
        ValueError
            For a regressor: its bound is on a clipped loss, and nobody chose where to clip.
        """
        if self.problem.task == "regression":
            raise ValueError(
                "the bound of a regressor is on a clipped loss; choose its loss_bound and use "
                "GeneralisationBound"
            )
        return bound_of_problem(self.problem, self.problem.labels, BoundSettings()).bound


def weight_matrices(module: nn.Module) -> dict[str, Tensor]:
    """Weight matrices of the linear and convolutional layers of a module.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    dict of str to Tensor of shape (n_outputs, fan_in), float64

    Raises
    ------
    ValueError
        If there is no such layer.
    """
    return {
        name: layer.weight.detach().flatten(1).double()
        for name, layer in weighted_layers(module).items()
    }
