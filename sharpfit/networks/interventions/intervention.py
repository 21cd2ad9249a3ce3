"""What an intervention may change in one training step, and how several combine."""

import math
from collections.abc import Callable
from functools import partial
from numbers import Real

from sklearn.base import BaseEstimator
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]
Objective = Callable[[Tensor, Tensor, Loss], tuple[Tensor, Tensor]]
Backward = Callable[[], dict[str, Tensor]]


class Intervention(BaseEstimator):
    """Base class of changes to a network's training steps.

    An intervention is given to a network as its argument `intervention`, alone or in a list, and
    acts while the network trains only: evaluation, predictions and ``get_loss`` stay those of the
    data loss. It holds parameters and no state, so it can be shared, cloned and searched over.

    Attributes
    ----------
    changes_loss : bool
        Whether what is minimised is not the data loss.

    Examples
    --------
    A penalty on the outputs of a network, as an intervention of one's own:

    >>> from sklearn.datasets import load_iris
    >>> from sharpfit.networks import NetworkClassifier
    >>> class OutputPenalty(Intervention):
    ...     def objective(self, module, objective, inputs, targets, loss):
    ...         value, outputs = objective(inputs, targets, loss)
    ...         return value + 0.1 * outputs.square().mean(), outputs
    >>> X, y = load_iris(return_X_y=True)
    >>> network = NetworkClassifier(intervention=OutputPenalty(), random_state=0).fit(X, y)
    >>> network.trained_on_data_loss_
    False
    """

    changes_loss = True

    def check(self) -> None:
        """Refuse parameters out of range, before training."""

    def objective(
        self,
        module: nn.Module,
        objective: Objective,
        inputs: Tensor,
        targets: Tensor,
        loss: Loss,
    ) -> tuple[Tensor, Tensor]:
        """Return the value to minimise on one batch, and the module's outputs.

        Parameters
        ----------
        module : nn.Module
            The module in training mode.
        objective : callable
            What to change: takes inputs, targets and a loss, returns a value and outputs.
        inputs : tensor of shape (n, ...)
            Inputs of the batch.
        targets : tensor of shape (n, ...)
            Encoded targets of the batch.
        loss : callable
            The data loss of outputs and targets.

        Returns
        -------
        value : tensor of shape ()
        outputs : tensor of shape (n, ...)
        """
        return objective(inputs, targets, loss)

    def gradient(self, module: nn.Module, backward: Backward) -> dict[str, Tensor]:
        """Leave the gradient to step along in the parameters' ``grad``.

        Parameters
        ----------
        module : nn.Module
            The module in training mode, without gradients.
        backward : callable
            Adds the objective's gradient to the parameters' ``grad`` and returns skorch's step
            with the keys "loss" and "y_pred".

        Returns
        -------
        dict
            skorch's step at the weights as they are.
        """
        return backward()


def check_not_negative(intervention: Intervention, name: str) -> None:
    """Refuse a parameter that is no finite number from zero on."""
    value = getattr(intervention, name)
    if not (isinstance(value, Real) and 0 <= value < math.inf):
        raise ValueError(
            f"{name}={value!r} of {type(intervention).__name__} must be a finite number that is "
            "not negative."
        )


def as_interventions(interventions) -> list[Intervention]:
    """Return the argument `intervention` of a network as a list."""
    if interventions is None:
        return []
    if not isinstance(interventions, list | tuple):
        interventions = [interventions]
    for intervention in interventions:
        if not isinstance(intervention, Intervention):
            raise TypeError(
                f"intervention={intervention!r} must be an instance of Intervention, such as "
                "JacobianPenalty(), or a list of them."
            )
        intervention.check()
    return list(interventions)


def training_step(
    interventions: list[Intervention],
    module: nn.Module,
    forward: Callable[[Tensor], Tensor],
    loss: Loss,
    inputs: Tensor,
    targets: Tensor,
) -> dict[str, Tensor]:
    """Compute one step's gradient under several interventions, the first one outermost."""

    def objective(inputs: Tensor, targets: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        outputs = forward(inputs)
        return loss(outputs, targets), outputs

    for intervention in reversed(interventions):
        objective = partial(intervention.objective, module, objective)

    def backward() -> dict[str, Tensor]:
        value, outputs = objective(inputs, targets, loss)
        value.backward()
        return {"loss": value, "y_pred": outputs}

    for intervention in reversed(interventions):
        backward = partial(intervention.gradient, module, backward)
    return backward()
