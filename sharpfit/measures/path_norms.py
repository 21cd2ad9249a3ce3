"""Measures made of the paths through a network."""

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


def log_path_norm_over_margin(network: TrainedNetwork) -> float:
    r"""Path norm in units of the squared margin, as a logarithm.

    :math:`\log \mathrm{path} - 2 \log |\gamma|`, :math:`\gamma` the 10 % quantile of the
    training margins. Source: Jiang et al. 2020. Invariances: rescaling of the logits, and of
    one unit's incoming weights up and its outgoing weights down. Cost: one pass over the
    rows.
    """
    return math.log(path_norm(network)) - 2 * network.log_margin
