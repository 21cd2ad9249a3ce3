"""How much noise the weights stand before the training accuracy falls."""

import functools
import math

import torch
from scipy.optimize import brentq

from sharpfit.measures.perturbation import outputs_at, parameter_vector
from sharpfit.measures.trained_network import TrainedNetwork

_ACCURACY_DROP = 0.1
_DRAWS = 10
_FIRST_GUESS = 0.1
_SMALLEST, _LARGEST = 1e-4, 2.0
_RELATIVE_TOLERANCE = 2e-3


def pac_bayes_flatness(network: TrainedNetwork) -> float:
    r"""Inverse squared size of the noise that costs a tenth of the training accuracy.

    :math:`1/\sigma^2`, with :math:`\sigma` between 1e-4 and 2 such that the mean training
    accuracy over 10 draws of :math:`\theta + N(0, \sigma^2 I)` falls to 0.1 below the
    network's. The draws are the same at every :math:`\sigma`, which is found to 0.2 %.
    Source: Jiang et al. 2020, whose bound this is the flatness term of; not itself a bound.
    Invariances: none. Cost: about 80 passes over the rows.
    """
    labels, inputs = network.labels, network.problem.inputs
    accuracy = _accuracy(network.outputs, labels)
    weights = parameter_vector(network.module)
    generator = torch.Generator(device=weights.device).manual_seed(network.random_state)
    noise = [
        torch.randn(weights.shape, generator=generator, dtype=weights.dtype, device=weights.device)
        for _ in range(_DRAWS)
    ]

    # The root finder asks for the ends of its bracket again.
    @functools.cache
    def excess_drop(log_scale: float) -> float:
        scale = math.exp(log_scale)
        accuracies = [
            _accuracy(outputs_at(network.module, inputs, weights + scale * e), labels)
            for e in noise
        ]
        return accuracy - sum(accuracies) / len(accuracies) - _ACCURACY_DROP

    low = high = math.log(_FIRST_GUESS)
    outwards = excess_drop(low) < 0
    while True:
        if outwards:
            low, high = high, min(high + math.log(2), math.log(_LARGEST))
        else:
            low, high = max(low - math.log(2), math.log(_SMALLEST)), low
        end = high if outwards else low
        if (excess_drop(end) < 0) != outwards:
            return math.exp(-2 * brentq(excess_drop, low, high, xtol=_RELATIVE_TOLERANCE))
        if end in (math.log(_SMALLEST), math.log(_LARGEST)):
            return math.exp(-2 * end)


def _accuracy(outputs: torch.Tensor, labels: torch.Tensor) -> float:
    predicted = (outputs[:, 0] > 0).long() if outputs.shape[1] == 1 else outputs.argmax(dim=1)
    return float((predicted == labels).double().mean())
