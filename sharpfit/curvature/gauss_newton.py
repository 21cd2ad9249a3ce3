"""The generalised Gauss-Newton matrix."""

from sharpfit.curvature.linearisation import Linearisation, Parts
from sharpfit.curvature.operator import NetworkOperator


class GaussNewtonOperator(NetworkOperator):
    r"""Generalised Gauss-Newton matrix :math:`G = \sum_i a_i\, J_i^\top A_i J_i`.

    :math:`J_i` is the derivative of the outputs of row `i` in the parameters and
    :math:`A_i` the Hessian of the loss in the outputs: the part of the Hessian that would
    be left if the network were linear in its parameters. It is positive semi-definite when
    the loss is convex in the outputs.

    Parameters
    ----------
    {parameters}

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from sharpfit.curvature import GaussNewtonOperator
    >>> network = nn.Linear(1, 1)
    >>> operator = GaussNewtonOperator(
    ...     network, nn.MSELoss(), torch.tensor([[3.0]]), torch.ones(1, 1)
    ... )
    >>> operator.to_dense()
    tensor([[18.,  6.],
            [ 6.,  2.]])
    """

    def _add_product(self, linearisation: Linearisation, direction: Parts, total: Parts) -> None:
        linearisation.add_gauss_newton_product(direction, total)
