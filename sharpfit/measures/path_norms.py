"""Measures made of the paths through a network."""

import copy
import math

import torch
from torch import nn

from sharpfit.measures.trained_network import TrainedNetwork

_AFFINE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_POSITIVELY_HOMOGENEOUS = (
    nn.ReLU,
    nn.LeakyReLU,
    nn.Identity,
    nn.Dropout,
    nn.Flatten,
    nn.Unflatten,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
)


def path_norm(network: TrainedNetwork) -> float:
    r"""Path norm: summed squared products of weights along the paths of the network.

    The summed output on an input of ones after every weight and bias is squared, with batch
    norm taken as the affine map that it is in evaluation mode. Source: Neyshabur et al. 2015;
    Jiang et al. 2020. Invariances: rescaling one unit's incoming weights up and its outgoing
    weights down. Cost: one forward pass. Only networks of linear, convolutional, batch norm,
    ReLU and pooling layers are sums over paths.
    """
    squared = copy.deepcopy(network.module).double()
    with torch.no_grad():
        for layer in squared.modules():
            if not list(layer.children()):
                _square(layer)
        ones = torch.ones_like(network.problem.inputs[:1], dtype=torch.float64)
        return float(squared(ones).sum())


def _square(layer: nn.Module) -> None:
    if isinstance(layer, _BATCH_NORMS) and layer.track_running_stats:
        spread = (layer.running_var + layer.eps).sqrt()
        scale = (torch.ones_like(spread) if layer.weight is None else layer.weight) / spread
        shift = (0.0 if layer.bias is None else layer.bias) - layer.running_mean * scale
        layer.weight, layer.bias = nn.Parameter(scale.square()), nn.Parameter(shift.square())
        layer.running_mean.zero_()
        layer.running_var.fill_(1.0 - layer.eps)
    elif isinstance(layer, _AFFINE):
        for parameter in layer.parameters():
            parameter.square_()
    elif not isinstance(layer, _POSITIVELY_HOMOGENEOUS):
        raise ValueError(
            f"the path norm is a sum over the paths of a ReLU network, and layer "
            f"{type(layer).__name__} has none"
        )


def log_path_norm_over_margin(network: TrainedNetwork) -> float:
    r"""Path norm in units of the squared margin, as a logarithm.

    :math:`\log \mathrm{path} - 2 \log |\gamma|`, :math:`\gamma` the 10 % quantile of the
    training margins. Source: Jiang et al. 2020. Invariances: rescaling of the logits, and of
    one unit's incoming weights up and its outgoing weights down. Cost: one pass over the
    rows.
    """
    return math.log(path_norm(network)) - 2 * network.log_margin
