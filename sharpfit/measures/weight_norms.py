r"""Measures made of norms of the weight matrices.

Throughout, :math:`W_l` is the weight matrix of layer `l` (a kernel laid out as one row an
output channel) and :math:`\gamma` the 10 % quantile of the training margins. Products are
given as logarithms, which leaves ranks as they are.
"""

import math

from sharpfit.measures.trained_network import TrainedNetwork


def squared_norm(network: TrainedNetwork) -> float:
    r"""Squared Euclidean norm of the weights.

    :math:`\sum_l |W_l|_F^2`. Source: Jiang et al. 2020 ("parameter norm"). Invariances:
    none; not to rescaling one layer up and the next down. Cost: one pass over the weights.
    """
    return sum(float(weight.square().sum()) for weight in network.weights.values())


def log_frobenius_product(network: TrainedNetwork) -> float:
    r"""Logarithm of the product of squared Frobenius norms.

    :math:`\log \prod_l |W_l|_F^2`. Source: Jiang et al. 2020. Invariances: rescaling one
    layer up and another down. Cost: one pass over the weights.
    """
    return sum(math.log(float(weight.square().sum())) for weight in network.weights.values())


def log_spectral_product(network: TrainedNetwork) -> float:
    r"""Logarithm of the product of squared spectral norms.

    :math:`\log \prod_l |W_l|_2^2`. Source: Bartlett et al. 2017; Jiang et al. 2020.
    Invariances: rescaling one layer up and another down. Cost: one singular value
    decomposition a layer.
    """
    return sum(2 * math.log(norm) for norm in network.spectral_norms.values())


def log_frobenius_product_over_margin(network: TrainedNetwork) -> float:
    r"""Product of squared Frobenius norms in units of the squared margin, as a logarithm.

    :math:`\log \prod_l |W_l|_F^2 - 2 \log |\gamma|`. Source: Jiang et al. 2020, whose code
    takes the absolute value of a negative quantile too. Invariances: rescaling of any
    layer. Cost: one pass over weights and rows.
    """
    return log_frobenius_product(network) - 2 * network.log_margin


def log_spectral_product_over_margin(network: TrainedNetwork) -> float:
    r"""Product of squared spectral norms in units of the squared margin, as a logarithm.

    :math:`\log \prod_l |W_l|_2^2 - 2 \log |\gamma|`. Source: Jiang et al. 2020.
    Invariances: rescaling of any layer. Cost: one singular value decomposition a layer and
    one pass over the rows.
    """
    return log_spectral_product(network) - 2 * network.log_margin


def stable_rank_sum(network: TrainedNetwork) -> float:
    r"""Sum of the stable ranks of the layers.

    :math:`\sum_l |W_l|_F^2 / |W_l|_2^2`. Source: Neyshabur et al. 2018; Jiang et al. 2020
    ("Frobenius over spectral"). Invariances: rescaling of any layer. Cost: one singular
    value decomposition a layer.
    """
    return sum(
        float(weight.square().sum()) / network.spectral_norms[name] ** 2
        for name, weight in network.weights.items()
    )
