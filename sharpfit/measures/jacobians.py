"""Measures made of the Jacobian of the outputs in the inputs."""

import numpy as np

from sharpfit.measures.trained_network import TrainedNetwork


def largest_jacobian(network: TrainedNetwork) -> float:
    r"""Largest Jacobian norm of the logits or predictions over the training rows.

    :math:`\max_i |D f(x_i)|_2`. Source: MacDonald, Valmadre, Lucey 2023. Invariances:
    rescaling one layer up and another down. Cost: about as many backward passes as outputs.
    """
    return float(network.logit_jacobian.spectral.max())


def mean_jacobian(network: TrainedNetwork) -> float:
    r"""Mean Jacobian norm of the logits or predictions over the training rows.

    :math:`\frac1n \sum_i |D f(x_i)|_2`. Source: the maximum local sensitivity (MLS) of Chen
    et al. (arXiv 2310.01770). Invariances: rescaling one layer up and another down. Cost: about
    as many backward passes as outputs.
    """
    return float(network.logit_jacobian.spectral.mean())


def largest_probability_jacobian(network: TrainedNetwork) -> float:
    r"""Largest Jacobian norm of the class probabilities over the training rows.

    :math:`\max_i |D\,\mathrm{softmax} f(x_i)|_2`. Source: Novak et al. 2018 use the mean
    Frobenius norm. Invariances: rescaling one layer up and another down. Cost: about as
    many backward passes as classes.
    """
    return float(network.probability_jacobian.spectral.max())


def mean_probability_jacobian(network: TrainedNetwork) -> float:
    r"""Mean Frobenius norm of the Jacobian of the class probabilities.

    :math:`\frac1n \sum_i |D\,\mathrm{softmax} f(x_i)|_F`. Source: Novak et al. 2018.
    Invariances: rescaling one layer up and another down. Cost: about as many backward
    passes as classes.
    """
    return float(network.probability_jacobian.frobenius.mean())


def probability_geometric_complexity(network: TrainedNetwork) -> float:
    r"""Mean squared Frobenius norm of the Jacobian of the class probabilities.

    :math:`\frac1n \sum_i |D\,\mathrm{softmax} f(x_i)|_F^2`. Source: Dherin et al. 2022, of the
    probabilities. Invariances: rescaling one layer up and another down. Cost: about as many
    backward passes as classes.
    """
    return float(np.mean(network.probability_jacobian.frobenius**2))


def geometric_complexity(network: TrainedNetwork) -> float:
    r"""Mean squared Frobenius norm of the Jacobian of the logits or predictions.

    :math:`\frac1n \sum_i |D f(x_i)|_F^2`. Source: Dherin et al. 2022. Invariances:
    rescaling one layer up and another down. Cost: about as many backward passes as outputs.
    """
    return float(np.mean(network.logit_jacobian.frobenius**2))


def largest_slope(network: TrainedNetwork) -> float:
    r"""Largest slope of the outputs between neighbouring training rows.

    :math:`\max |f(x_i) - f(x_j)| / |x_i - x_j|` over the ten nearest neighbours of each
    row, a lower bound on the Lipschitz constant. Source: this library. Invariances:
    rescaling one layer up and another down. Cost: one pass over the rows and a neighbour
    search.
    """
    return network.output_slopes.largest


def mean_slope(network: TrainedNetwork) -> float:
    r"""Mean over the training rows of the largest slope to a neighbour.

    :math:`\frac1n \sum_i \max_j |f(x_i) - f(x_j)| / |x_i - x_j|` over the ten nearest neighbours
    of each row. Source: this library. Invariances: rescaling one layer up and another down.
    Cost: one pass over the rows and a neighbour search.
    """
    return float(np.mean(network.output_slopes.per_sample))


def mean_local_variation(network: TrainedNetwork) -> float:
    r"""Mean change of the Jacobian halfway to the nearest neighbour.

    :math:`\frac1n \sum_i |D f(\frac{x_i + x_{j(i)}}2) - D f(x_i)|_2`, :math:`x_{j(i)}` the
    nearest row that differs. Source: this library. Invariances: rescaling one layer up and
    another down. Cost: about three times as many backward passes as outputs and a neighbour
    search.
    """
    return float(np.mean(network.local_variation.segment_change))


def excess_jacobian(network: TrainedNetwork) -> float:
    r"""Largest Jacobian norm found near the training rows over the largest at them.

    At the midpoints to the nearest neighbours, and at one random point a row half as far away
    as these. One where the rows stand for their surroundings. Formula:
    :math:`\max_{x} |D f(x)|_2 / \max_i |D f(x_i)|_2`. Source: this library. Invariances:
    rescaling of the outputs, and of one layer up and another down. Cost: about three times as
    many backward passes as outputs and a neighbour search.
    """
    return network.local_variation.excess
