"""Measures made of the margins of the training rows, with larger meaning a larger gap."""

import math

import numpy as np
from numpy.typing import NDArray

from sharpfit.measures.trained_network import TrainedNetwork


def negative_margin(network: TrainedNetwork) -> float:
    r"""Minus the 10 % quantile of the logit margins.

    :math:`-\gamma`, :math:`\gamma` the quantile of :math:`f_y - \max_{k \ne y} f_k`.
    Source: Jiang et al. 2020 use :math:`1/\gamma^2`, which does not order negative margins.
    Invariances: none; not to rescaling of the logits. Cost: one pass over the rows.
    """
    return -network.margin


def negative_gradient_normalised_margin(network: TrainedNetwork) -> float:
    r"""Minus the 10 % quantile of the margins in units of their input gradient.

    :math:`m_i / |\nabla_x m_i|`, to first order the distance to the decision boundary.
    Source: Elsayed et al. 2018; Jiang et al. 2019. Invariances: rescaling of the logits or
    of any layer. Cost: about as many backward passes as classes.
    """
    margins = network.margins
    return -_quantile_of_ratio(margins, network.logit_jacobian.margin_gradient)


def negative_jacobian_normalised_margin(network: TrainedNetwork) -> float:
    r"""Minus the 10 % quantile of the margins in units of the Jacobian of the logits.

    :math:`m_i / |D f(x_i)|_2`. Source: the output margin over the Jacobian norm of Wei and
    Ma 2019, taken at the input. Invariances: rescaling of the logits or of any layer.
    Cost: about as many backward passes as classes.
    """
    return -_quantile_of_ratio(network.margins, network.logit_jacobian.spectral)


def log_geometric_complexity_over_margin(network: TrainedNetwork) -> float:
    r"""Geometric complexity in units of the squared margin, as a logarithm.

    :math:`\log \frac1n \sum_i |D f(x_i)|_F^2 - 2 \log |\gamma|`. Source: Munn, Dherin,
    Gonzalvo 2024. Invariances: rescaling of the logits or of any layer. Cost: about as
    many backward passes as classes.
    """
    complexity = float(np.mean(network.logit_jacobian.frobenius**2))
    return math.log(complexity) - 2 * network.log_margin


def _quantile_of_ratio(margins: NDArray[np.float64], scales: NDArray[np.float64]) -> float:
    return float(np.quantile(margin_ratio(margins, scales), 0.1))


def margin_ratio(margins: NDArray[np.float64], scales: NDArray[np.float64]) -> NDArray[np.float64]:
    """Margins over scales; where the network is locally constant, as far as numbers go.

    Parameters
    ----------
    margins, scales : ndarray of shape (n,)

    Returns
    -------
    ndarray of shape (n,)
    """
    return margins / np.maximum(scales, np.finfo(np.float64).tiny ** 0.5)
