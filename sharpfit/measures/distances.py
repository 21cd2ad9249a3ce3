r"""Measures made of how far the weights travelled.

Throughout, :math:`W_l` is the weight matrix of layer `l` (a kernel laid out as one row an
output channel), :math:`W_l^0` the same before training and :math:`\gamma` the 10 % quantile
of the training margins.
"""

import math

import torch
from torch import Tensor

from sharpfit.measures.trained_network import TrainedNetwork
from sharpfit.measures.weight_norms import log_spectral_product


def squared_distance_from_initialisation(network: TrainedNetwork) -> float:
    r"""Squared Euclidean distance that the weights travelled.

    :math:`\sum_l |W_l - W_l^0|_F^2`. Source: Nagarajan and Kolter 2019; Jiang et al. 2020.
    Invariances: none. Cost: one pass over the weights.
    """
    return sum(float(moved.square().sum()) for moved in _moved(network).values())


def squared_spectral_distance_from_initialisation(network: TrainedNetwork) -> float:
    r"""Squared spectral distance that the weights travelled.

    :math:`\sum_l |W_l - W_l^0|_2^2`. Source: Jiang et al. 2020. Invariances: none. Cost: one
    singular value decomposition a layer.
    """
    return sum(float(torch.linalg.matrix_norm(moved, 2)) ** 2 for moved in _moved(network).values())


def log_distance_over_margin(network: TrainedNetwork) -> float:
    r"""Squared distance travelled in units of the squared margin, as a logarithm.

    :math:`\log \sum_l |W_l - W_l^0|_F^2 - 2 \log |\gamma|`. Source: this library, after the
    measures with margins of Jiang et al. 2020. Invariances: none. Cost: one pass over
    weights and rows.
    """
    return math.log(squared_distance_from_initialisation(network)) - 2 * network.log_margin


def log_spectral_distance_over_margin(network: TrainedNetwork) -> float:
    r"""Distances in units of spectral norms, with their product and the margin, as a logarithm.

    :math:`\log \prod_l |W_l|_2^2 \sum_l |W_l - W_l^0|_F^2 / |W_l|_2^2 - 2 \log |\gamma|`.
    Source: Neyshabur et al. 2018; Jiang et al. 2020. Invariances: rescaling of any layer
    together with its reference. Cost: one singular value decomposition a layer and one pass
    over the rows.
    """
    ratios = sum(
        float(moved.square().sum()) / network.spectral_norms[name] ** 2
        for name, moved in _moved(network).items()
    )
    return log_spectral_product(network) + math.log(ratios) - 2 * network.log_margin


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
        (float(moved.norm(dim=1).sum()) / network.spectral_norms[name]) ** (2 / 3)
        for name, moved in _moved(network).items()
    )
    return log_spectral_product(network) / 2 + 1.5 * math.log(ratios) - network.log_margin


def _moved(network: TrainedNetwork) -> dict[str, Tensor]:
    initial = network.initial_weights
    return {name: weight - initial[name] for name, weight in network.weights.items()}
