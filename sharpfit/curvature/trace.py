"""The exact trace of the Gauss-Newton matrix, and of the Hessian of piecewise linear networks."""

import numpy as np
import torch
from torch import Tensor

from sharpfit.curvature.factors import layer_factors
from sharpfit.curvature.gauss_newton import GaussNewtonOperator
from sharpfit.curvature.hessian import HessianOperator
from sharpfit.curvature.linearisation import Chunk
from sharpfit.curvature.network import Network
from sharpfit.curvature.operator import NetworkOperator
from sharpfit.curvature.piecewise import is_piecewise_linear
from sharpfit.curvature.sharding import sum_over
from sharpfit.objective import SampleLoss

# Activations, the inputs of the layers in patches and what autograd keeps, besides what the
# backward passes hold for every output.
_COPIES = 4


def exact_trace(operator: NetworkOperator) -> np.ndarray | None:
    r"""Compute the trace of every tensor's block exactly, where that is cheap.

    ``tr G = sum_i a_i |B_i^T J_i|^2`` with ``A_i = B_i B_i^T``: one backward pass per output
    gives the backward factors of all layers, and these with the layers' inputs the norms. A
    network of piecewise linear operations, skip connections and batch normalisation with fixed
    statistics included, is piecewise affine in each of its tensors, so the residual has no
    diagonal and the Hessian has the same trace.

    Parameters
    ----------
    operator : HessianOperator or GaussNewtonOperator

    Returns
    -------
    ndarray of shape (number of tensors,), float64, or None
        Traces of the blocks, in the order of ``operator.selection.names``, without weight
        decay. None where the matrix is another one, preconditioned, or its parameters lie
        outside dense, ungrouped convolutional and normalising layers used once.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from sharpfit.curvature import HessianOperator, exact_trace
    >>> network = nn.Linear(1, 1)
    >>> operator = HessianOperator(network, nn.MSELoss(), torch.tensor([[3.0]]), torch.ones(1, 1))
    >>> exact_trace(operator)  # 2 x^2 and 2
    array([18.,  2.])
    """
    if not isinstance(operator, HessianOperator | GaussNewtonOperator):
        return None
    if isinstance(operator, HessianOperator) and not is_piecewise_linear(operator.network):
        return None
    return gauss_newton_traces(operator)


def gauss_newton_traces(operator: NetworkOperator) -> np.ndarray | None:
    """Compute the trace of every tensor's block of the Gauss-Newton matrix.

    Parameters
    ----------
    operator : NetworkOperator
        Of the network, loss and rows.

    Returns
    -------
    ndarray of shape (number of tensors,), float64, or None
        See `exact_trace`.
    """
    if operator.preconditioned:
        return None
    network, loss = operator.network, operator.loss
    traces = torch.zeros(len(network.parameters), dtype=torch.float64, device=operator.device)
    with torch.no_grad():
        n_outputs = network.module(next(operator.chunks(1)).inputs).shape[1]
    for chunk in operator.chunks(operator.rows_within_budget(_COPIES + n_outputs)):
        if not _add_traces(network, loss, chunk, traces):
            return None
    return sum_over(operator.process_group, traces).cpu().numpy()


def _add_traces(network: Network, loss: SampleLoss, chunk: Chunk, traces: Tensor) -> bool:
    """Add a chunk's traces, and free its factors before the next has its own."""
    factors = layer_factors(network, loss, chunk)
    if factors is None:
        return False
    for layer in factors:
        for index, norms in layer.squared_norms():
            traces[index] += (norms.double() @ chunk.weights.double()).sum()
    return True
