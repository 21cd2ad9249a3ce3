"""What the Gauss-Newton matrix leaves of the Hessian."""

import torch

from sharpfit.curvature.linearisation import Linearisation, Parts
from sharpfit.curvature.operator import NetworkOperator


class ResidualOperator(NetworkOperator):
    r"""Residual :math:`R = H - G`, the network's own second derivatives.

    .. math:: R = \sum_i a_i \sum_c \frac{\partial l}{\partial z_c} \nabla^2 f_c(x_i)

    It vanishes where the loss gradient does, and has no diagonal blocks for layers in which
    the network is linear.

    Parameters
    ----------
    {parameters}

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from sharpfit.curvature import ResidualOperator
    >>> network = nn.Linear(1, 1)
    >>> operator = ResidualOperator(
    ...     network, nn.MSELoss(), torch.tensor([[3.0]]), torch.ones(1, 1)
    ... )
    >>> operator.to_dense()  # a linear network has none
    tensor([[0., 0.],
            [0., 0.]])
    """

    needs_second_order = True

    def _add_product(self, linearisation: Linearisation, direction: Parts, total: Parts) -> None:
        linearisation.add_hessian_product(direction, total)
        gauss_newton = tuple(torch.zeros_like(part) for part in total)
        linearisation.add_gauss_newton_product(direction, gauss_newton)
        torch._foreach_sub_(list(total), list(gauss_newton))
