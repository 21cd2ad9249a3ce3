"""Measures of how much the training loss rises when the weights are moved."""

import torch

from sharpfit.measures.perturbation import gradient_at_rows, loss_at, parameter_vector
from sharpfit.measures.trained_network import TrainedNetwork

_ASCENT_RADIUS = 0.05
_ASCENT_ROWS = 128
_NOISE_SCALE = 0.01
_NOISE_DRAWS = 20


def ascent_sharpness(network: TrainedNetwork) -> float:
    r"""Rise of the loss one step uphill, averaged over batches (m-sharpness).

    The mean over batches `B` of 128 rows of :math:`L_B(\theta + \rho\, g_B/|g_B|) -
    L_B(\theta)`, :math:`g_B` the gradient on the batch and :math:`\rho = 0.05`. Source:
    Foret et al. 2021. Invariances: none. Cost: one gradient and two losses a row.
    """
    problem = network.problem
    generator = torch.Generator().manual_seed(network.random_state)
    order = torch.randperm(len(problem.inputs), generator=generator).to(problem.inputs.device)
    weights = parameter_vector(network.module)
    total = 0.0
    for rows in order.split(_ASCENT_ROWS):
        gradient = gradient_at_rows(problem, rows)
        step = _ASCENT_RADIUS * gradient / gradient.norm().clamp_min(1e-30)
        rise = loss_at(problem, rows, weights + step) - loss_at(problem, rows, weights)
        total += rise * len(rows)
    return total / len(problem.inputs)


def average_direction_sharpness(network: TrainedNetwork) -> float:
    r"""Rise of the loss in random directions.

    The mean over 20 draws of :math:`L(\theta + \epsilon) - L(\theta)` with
    :math:`\epsilon \sim N(0, 0.01^2 I)`, which is :math:`0.01^2\,\mathrm{tr} H / 2` to
    second order. Source: Andriushchenko and Flammarion 2022. Invariances: none. Cost: 21
    passes over the rows.
    """
    problem, everything = network.problem, slice(None)
    weights = parameter_vector(network.module)
    generator = torch.Generator(device=weights.device).manual_seed(network.random_state)
    base = loss_at(problem, everything, weights)
    total = 0.0
    for _ in range(_NOISE_DRAWS):
        noise = torch.randn(
            weights.shape, generator=generator, dtype=weights.dtype, device=weights.device
        )
        total += loss_at(problem, everything, weights + _NOISE_SCALE * noise) - base
    return total / _NOISE_DRAWS
