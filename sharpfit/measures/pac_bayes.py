"""How much noise the weights stand before the training accuracy falls."""

import torch

from sharpfit.measures.perturbation import outputs_at, parameter_vector
from sharpfit.measures.trained_network import TrainedNetwork

_ACCURACY_DROP = 0.1
_DRAWS = 10
_BISECTIONS = 15


def pac_bayes_flatness(network: TrainedNetwork) -> float:
    r"""Inverse squared size of the noise that costs a tenth of the training accuracy.

    :math:`1/\sigma^2`, with :math:`\sigma` found by bisection such that the mean training
    accuracy over 10 draws of :math:`\theta + N(0, \sigma^2 I)` is 0.1 below the network's.
    The draws are the same at every :math:`\sigma`. Source: Jiang et al. 2020, whose bound
    this is the flatness term of; not itself a bound. Invariances: none. Cost: about 150
    passes over the rows.
    """
    labels = network.labels
    accuracy = _accuracy(network.outputs, labels)
    weights = parameter_vector(network.module)
    generator = torch.Generator(device=weights.device).manual_seed(network.random_state)
    noise = [
        torch.randn(weights.shape, generator=generator, dtype=weights.dtype, device=weights.device)
        for _ in range(_DRAWS)
    ]
    low, high = 0.0, 2.0
    for _ in range(_BISECTIONS):
        scale = (low + high) / 2
        mean = sum(
            _accuracy(
                outputs_at(network.module, network.problem.inputs, weights + scale * e), labels
            )
            for e in noise
        ) / len(noise)
        if accuracy - mean > _ACCURACY_DROP:
            high = scale
        else:
            low = scale
    return 1.0 / ((low + high) / 2) ** 2


def _accuracy(outputs: torch.Tensor, labels: torch.Tensor) -> float:
    predicted = (outputs[:, 0] > 0).long() if outputs.shape[1] == 1 else outputs.argmax(dim=1)
    return float((predicted == labels).double().mean())
