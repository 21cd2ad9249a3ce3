r"""Measures made of norms of the weight matrices.

Throughout, :math:`W_l` is the weight matrix of layer `l` (a kernel laid out as one row an
output channel), :math:`W_l^0` the same before training and :math:`\gamma` the 10 % quantile
of the training margins. Products are given as logarithms, which leaves ranks as they are.
"""

import copy
import math

import torch
from torch import nn

from sharpfit.measures.trained_network import TrainedNetwork

_POSITIVELY_HOMOGENEOUS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.ReLU,
    nn.LeakyReLU,
    nn.Identity,
    nn.Dropout,
    nn.Flatten,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
)


def squared_norm(network: TrainedNetwork) -> float:
    r"""Squared Euclidean norm of the weights.

    :math:`\sum_l |W_l|_F^2`. Source: Jiang et al. 2020 ("parameter norm"). Invariances:
    none; not to rescaling one layer up and the next down. Cost: one pass over the weights.
    """
    return sum(float(weight.square().sum()) for weight in network.weights.values())


def squared_distance_from_initialisation(network: TrainedNetwork) -> float:
    r"""Squared Euclidean distance that the weights travelled.

    :math:`\sum_l |W_l - W_l^0|_F^2`. Source: Nagarajan and Kolter 2019; Jiang et al. 2020.
    Invariances: none. Cost: one pass over the weights.
    """
    return sum(
        float((weight - network.initial_weights[name]).square().sum())
        for name, weight in network.weights.items()
    )


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
    return log_frobenius_product(network) - 2 * math.log(abs(network.margin))


def log_spectral_product_over_margin(network: TrainedNetwork) -> float:
    r"""Product of squared spectral norms in units of the squared margin, as a logarithm.

    :math:`\log \prod_l |W_l|_2^2 - 2 \log |\gamma|`. Source: Jiang et al. 2020.
    Invariances: rescaling of any layer. Cost: one singular value decomposition a layer and
    one pass over the rows.
    """
    return log_spectral_product(network) - 2 * math.log(abs(network.margin))


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


def log_spectral_complexity_over_margin(network: TrainedNetwork) -> float:
    r"""Spectrally-normalised margin complexity, as a logarithm.

    :math:`\log \frac{1}{\gamma} \prod_l |W_l|_2
    \bigl(\sum_l (|(W_l - W_l^0)^\top|_{2,1} / |W_l|_2)^{2/3}\bigr)^{3/2}` with
    :math:`|A|_{2,1}` the sum of the norms of the columns of `A`. Source: Bartlett, Foster,
    Telgarsky 2017, with the initial weights as reference. Invariances: rescaling of any
    layer together with its reference. Cost: one singular value decomposition a layer and
    one pass over the rows.
    """
    ratios = sum(
        (
            float((weight - network.initial_weights[name]).norm(dim=1).sum())
            / network.spectral_norms[name]
        )
        ** (2 / 3)
        for name, weight in network.weights.items()
    )
    return (
        log_spectral_product(network) / 2 + 1.5 * math.log(ratios) - math.log(abs(network.margin))
    )


def path_norm(network: TrainedNetwork) -> float:
    r"""Path norm: summed squared products of weights along the paths of the network.

    The summed output on an input of ones after every parameter is squared. Source:
    Neyshabur et al. 2015; Jiang et al. 2020. Invariances: rescaling one unit's incoming
    weights up and its outgoing weights down. Cost: one forward pass. Only networks of
    linear, convolutional, ReLU and pooling layers are sums over paths.
    """
    for layer in network.module.modules():
        if not list(layer.children()) and not isinstance(layer, _POSITIVELY_HOMOGENEOUS):
            raise ValueError(
                f"the path norm is a sum over the paths of a ReLU network, and layer "
                f"{type(layer).__name__} has none"
            )
    squared = copy.deepcopy(network.module).double()
    with torch.no_grad():
        for parameter in squared.parameters():
            parameter.square_()
        ones = torch.ones_like(network.problem.inputs[:1], dtype=torch.float64)
        return float(squared(ones).sum())
