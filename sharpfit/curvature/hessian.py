"""The Hessian of the loss."""

from sharpfit.curvature.linearisation import Linearisation, Parts
from sharpfit.curvature.operator import NetworkOperator


class HessianOperator(NetworkOperator):
    r"""Hessian :math:`H = \nabla^2 L(\theta)` of :math:`L = \sum_i a_i\, l(f(x_i), y_i)`.

    Parameters
    ----------
    {parameters}

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from sharpfit.curvature import HessianOperator
    >>> network = nn.Linear(1, 1, bias=False)
    >>> operator = HessianOperator(network, nn.MSELoss(), torch.tensor([[3.0]]), torch.ones(1, 1))
    >>> operator.to_dense()  # 2 x^2
    tensor([[18.]])
    """

    needs_second_order = True

    def _add_product(self, linearisation: Linearisation, direction: Parts, total: Parts) -> None:
        linearisation.add_hessian_product(direction, total)
