"""Sensitivity of the outputs to the inputs of the layers, and to relative moves of the input."""

import numpy as np

from sharpfit.measures.trained_network import TrainedNetwork


def network_sensitivity(network: TrainedNetwork) -> float:
    r"""Sensitivity of the outputs to what enters a layer, averaged over the layers (NMLS).

    :math:`\frac1{nL} \sum_i \sum_l |\partial f(x_i) / \partial h_l|_2`, :math:`h_l` what enters
    the linear or convolutional layer `l` of `L`; the first of them is the input. Source: the
    network-wide maximum local sensitivity of Chen et al. (arXiv 2310.01770), as others describe
    it: an average over all linear layers. Unverified: not compared with the definition or the
    numbers of its authors. Invariances: none; not to rescaling one layer up and the next down.
    Cost: about as many backward passes as outputs.
    """
    return float(network.layer_jacobians.spectral.mean())


def input_scaled_sensitivity(network: TrainedNetwork) -> float:
    r"""Mean Jacobian norm in units of the input.

    :math:`\frac1n \sum_i |x_i|\,|D f(x_i)|_2`, the largest change of the outputs by a small
    relative move of the input. Source: this library; the code of Chen et al. (arXiv 2310.01770)
    multiplies another sensitivity by the size of the input. Invariances: rescaling of the inputs
    against the first layer, and of one layer up and another down. Cost: about as many backward
    passes as outputs.
    """
    sizes = network.problem.inputs.flatten(1).double().norm(dim=1).cpu().numpy()
    return float(np.mean(sizes * network.logit_jacobian.spectral))
