"""The empirical Fisher matrix."""

from sharpfit.curvature.linearisation import Linearisation, Parts
from sharpfit.curvature.operator import NetworkOperator


class EmpiricalFisherOperator(NetworkOperator):
    r"""Empirical Fisher matrix :math:`F = \sum_i a_i\, g_i g_i^\top`.

    :math:`g_i` is the gradient of the loss of row `i` at its own target. It is no
    approximation of the Hessian away from a good fit (Kunstner, Balles and Hennig 2019).

    Parameters
    ----------
    {parameters}

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from sharpfit.curvature import EmpiricalFisherOperator
    >>> network = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.constant_(network.weight, 1.0)
    >>> operator = EmpiricalFisherOperator(
    ...     network, nn.MSELoss(), torch.tensor([[3.0]]), torch.ones(1, 1)
    ... )
    >>> operator.to_dense()  # (2 (w x - y) x)^2
    tensor([[144.]])
    """

    def _add_product(self, linearisation: Linearisation, direction: Parts, total: Parts) -> None:
        gradients = linearisation.loss.gradient(linearisation.outputs, linearisation.chunk.targets)
        slopes = (gradients * linearisation.jacobian_product(direction)).sum(dim=1, keepdim=True)
        cotangents = gradients * slopes * linearisation.chunk.weights
        linearisation.add_transposed_product(cotangents, total)
