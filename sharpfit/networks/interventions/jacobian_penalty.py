"""A penalty on the input-output Jacobian."""

from numbers import Integral
from typing import Literal

import torch
from torch import Tensor, nn

from sharpfit.networks.interventions.intervention import (
    Intervention,
    Loss,
    Objective,
    check_not_negative,
)


class JacobianPenalty(Intervention):
    """Penalise the Jacobian of the module's outputs with respect to its inputs.

    The value minimised on a batch of ``n`` rows is the data loss plus
    ``strength / n * sum_i |J_i|^2``, with ``J_i`` the Jacobian of the outputs at row `i`
    and ``|.|`` its Frobenius or spectral norm. The outputs are the logits, or the probabilities
    of a module that ends in a softmax.

    Parameters
    ----------
    strength : float, default=0.01
        Weight of the penalty; 0 trains on the data loss.
    norm : {"frobenius", "spectral"}, default="frobenius"
        Norm of the Jacobian.
    n_projections : int or None, default=1
        Random directions of the outputs by which the squared Frobenius norm is estimated,
        without bias; each costs one more backward pass. None computes it exactly by one pass per
        output, as the spectral norm always is.

    Notes
    -----
    The estimate is that of Hoffman, Roberts and Yaida (2019), "Robust Learning with Jacobian
    Regularization": ``C |u^T J|^2`` for ``u`` uniform on the unit sphere of ``C`` outputs. With
    batch normalisation, the outputs of one row depend on the whole batch while training; then
    the penalty is on the gradients of the summed outputs.

    Analyses read the data loss of a network, not its penalty: they describe the weights found,
    and ``trained_on_data_loss_`` says that these do not minimise that loss.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sharpfit.networks import NetworkClassifier
    >>> from sharpfit.networks.interventions import JacobianPenalty
    >>> X, y = load_iris(return_X_y=True)
    >>> network = NetworkClassifier(intervention=JacobianPenalty(0.001), random_state=0).fit(X, y)
    >>> network.trained_on_data_loss_
    False
    """

    def __init__(
        self,
        strength: float = 0.01,
        *,
        norm: Literal["frobenius", "spectral"] = "frobenius",
        n_projections: int | None = 1,
    ) -> None:
        self.strength = strength
        self.norm = norm
        self.n_projections = n_projections

    def check(self) -> None:
        """Refuse parameters out of range."""
        check_not_negative(self, "strength")
        if self.norm not in ("frobenius", "spectral"):
            raise ValueError(
                f"norm={self.norm!r} of JacobianPenalty must be 'frobenius' or 'spectral'."
            )
        count = self.n_projections
        if count is not None and not (isinstance(count, Integral) and count >= 1):
            raise ValueError(
                f"n_projections={count!r} of JacobianPenalty must be a positive int or None."
            )

    def objective(
        self,
        module: nn.Module,
        objective: Objective,
        inputs: Tensor,
        targets: Tensor,
        loss: Loss,
    ) -> tuple[Tensor, Tensor]:
        """Return the data loss plus the penalty; see `Intervention.objective`."""
        if self.strength == 0:
            return objective(inputs, targets, loss)
        inputs = inputs.detach().requires_grad_()
        value, outputs = objective(inputs, targets, loss)
        return value + self.strength * self.penalty(outputs, inputs).mean(), outputs

    def penalty(self, outputs: Tensor, inputs: Tensor) -> Tensor:
        """Return the squared norm of every row's Jacobian, exact or estimated.

        Parameters
        ----------
        outputs : tensor of shape (n, C) or (n,)
            Outputs, computed from `inputs`.
        inputs : tensor of shape (n, ...)
            Inputs that require gradients.

        Returns
        -------
        tensor of shape (n,)
            Differentiable.
        """
        outputs = outputs.reshape(len(inputs), -1)
        n_outputs = outputs.shape[1]
        if self.norm == "spectral":
            jacobian = self._products(outputs, inputs, _units(outputs))
            return torch.linalg.matrix_norm(jacobian, ord=2) ** 2
        if self.n_projections is None:
            return self._products(outputs, inputs, _units(outputs)).square().sum((1, 2))
        directions = torch.randn(self.n_projections, *outputs.shape).to(outputs)
        directions = nn.functional.normalize(directions, dim=-1)
        products = self._products(outputs, inputs, directions)
        return products.square().sum((1, 2)) * n_outputs / self.n_projections

    @staticmethod
    def _products(outputs: Tensor, inputs: Tensor, directions: Tensor) -> Tensor:
        """Return the products of ``k`` output directions per row with J, shape (n, k, d)."""
        products = [
            torch.autograd.grad(outputs, inputs, direction, create_graph=True)[0].flatten(1)
            for direction in directions
        ]
        return torch.stack(products, dim=1)


def _units(outputs: Tensor) -> Tensor:
    """Return every row's unit directions of the outputs, shape (C, n, C)."""
    identity = torch.eye(outputs.shape[1], dtype=outputs.dtype, device=outputs.device)
    return identity[:, None].expand(-1, len(outputs), -1)
