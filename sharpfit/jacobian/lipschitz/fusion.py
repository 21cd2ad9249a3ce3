"""Batch norm behind a dense layer or a convolution, bounded as one layer.

Scaling the outputs of a linear layer scales the rows of its weight; the norm of the scaled weight
is at most, and often far below, the norm of the weight times the largest scale.
"""

from typing import Any

from sharpfit.jacobian.lipschitz.convolution import (
    convolution_layer_constant,
    scaled_convolution_constant,
)
from sharpfit.jacobian.lipschitz.dense import linear_constant
from sharpfit.jacobian.lipschitz.normalisation import batch_norm_constant, batch_norm_scales
from sharpfit.jacobian.lipschitz.registry import find_rule
from sharpfit.jacobian.lipschitz.rounding import product_up, spectral_norm_up


def fused_constant(layer: Any, norm: Any, input_shape: tuple[int, ...]) -> float | None:
    """Lipschitz constant of a linear layer followed by batch norm in evaluation mode.

    Parameters
    ----------
    layer, norm : torch.nn.Module
        In the order of execution.
    input_shape : tuple of int
        Shape of one sample at the input of `layer`.

    Returns
    -------
    float or None
        None where the two are not a linear layer and a batch norm of its output channels.
    """
    if find_rule(norm) is not batch_norm_constant:
        return None
    scales = batch_norm_scales(norm)
    if find_rule(layer) is linear_constant and len(input_shape) == 1:
        constant = spectral_norm_up(scales[:, None] * layer.weight.detach().double().cpu())
    elif find_rule(layer) is convolution_layer_constant:
        constant = scaled_convolution_constant(layer, input_shape, scales)
    else:
        return None
    # The scales, and their products with the weight, are off by a few roundings.
    return product_up(constant, 1.0 + 2.0**-48)
