"""Lipschitz constants of Jacobians: closed forms, and searches for violations."""

import numpy as np
import pytest
import torch
from torch import nn

from sharpfit.jacobian import CertificateError, coverage, jacobian_norms, smoothness_certificate
from sharpfit.jacobian.smoothness import _CURVATURES

SMOOTH = [
    nn.Tanh(),
    nn.Tanhshrink(),
    nn.Sigmoid(),
    nn.LogSigmoid(),
    nn.Softplus(),
    nn.Softplus(beta=3.0),
    nn.Softsign(),
    nn.GELU(),
    nn.GELU(approximate="tanh"),
    nn.SiLU(),
    nn.Mish(),
    nn.ELU(),
    nn.CELU(alpha=0.5),
]


def _network(activation, seed=0):
    torch.manual_seed(seed)
    layers = [nn.Linear(3, 12), activation, nn.Linear(12, 12), activation, nn.Linear(12, 2)]
    return nn.Sequential(*layers).double()


def _jacobians(module, inputs):
    return torch.func.vmap(torch.func.jacrev(lambda row: module(row[None])[0]))(inputs).detach()


@pytest.mark.parametrize("activation", SMOOTH, ids=str)
def test_constants_of_single_activations_are_sharp(activation):
    network = nn.Sequential(nn.Flatten(), activation)
    bound = smoothness_certificate(network, 1)
    points = torch.linspace(-12, 12, 400_001, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(activation(points).sum(), points, create_graph=True)
    second = torch.autograd.grad(slope.sum(), points)[0].abs().max().item()
    # An ELU's second derivative jumps and a Softsign's comes to a point, both next to zero.
    assert second <= bound <= second * (1 + (1e-3 if bound >= 1 else 1e-8))


def test_every_constant_is_tested():
    assert {type(activation) for activation in SMOOTH} == set(_CURVATURES)


def test_one_neuron_in_closed_form():
    network = nn.Sequential(nn.Linear(2, 1), nn.Tanh(), nn.Linear(1, 1))
    network[0].weight.data = torch.tensor([[3.0, 4.0]])
    network[2].weight.data = torch.tensor([[-2.0]])
    assert smoothness_certificate(network, (2,)) == pytest.approx(2 * 4 / 27**0.5 * 25, rel=1e-9)
    linear = nn.Sequential(nn.Linear(4, 3), nn.Dropout(), nn.Linear(3, 2))
    assert smoothness_certificate(linear, 4) == 0.0


@pytest.mark.parametrize("activation", SMOOTH, ids=str)
def test_no_pair_of_inputs_violates_the_constant(activation):
    network = _network(activation)
    bound = smoothness_certificate(network, 3)
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for scale in (0.1, 1.0, 5.0):
        start = scale * torch.randn(500, 3, generator=generator, dtype=torch.float64)
        for step in (1e-4, 1e-2, 1.0):
            other = start + step * torch.randn(500, 3, generator=generator, dtype=torch.float64)
            change = torch.linalg.matrix_norm(
                _jacobians(network, start) - _jacobians(network, other), 2
            )
            largest = max(largest, float((change / (start - other).norm(dim=1)).max()))
    assert bound / 60 < largest <= bound


def test_a_constant_that_is_too_small_would_be_seen():
    network = nn.Sequential(nn.Linear(1, 1), nn.Tanh(), nn.Linear(1, 1)).double()
    network[0].weight.data.fill_(2.0)
    points = torch.linspace(-9, 9, 4001, dtype=torch.float64)[:, None]
    change = _jacobians(network, points).flatten().diff().abs() / points.flatten().diff()
    bound = smoothness_certificate(network, 1)
    assert 0.999 * bound < float(change.max()) <= bound


def test_batch_norm_and_images_are_part_of_the_chain():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Softplus(), nn.Linear(5, 2)
    )
    network(3 * torch.randn(50, 1, 2, 2))
    network.double().eval().requires_grad_(False)
    bound = smoothness_certificate(network, (1, 2, 2))
    norm = network[2]
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    first = scale[:, None] * network[1].weight
    rows = first.norm(dim=1).max()
    spectral = torch.linalg.matrix_norm(first, 2) * torch.linalg.matrix_norm(network[4].weight, 2)
    assert bound == pytest.approx(float(0.25 * rows * spectral), rel=1e-9)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), "ReLU has a kink"),
        (nn.Sequential(nn.Linear(4, 3), nn.ELU(alpha=2.0), nn.Linear(3, 2)), "alpha=2.0"),
        (
            nn.Sequential(
                nn.Unflatten(1, (1, 4)),
                nn.Conv1d(1, 1, 2),
                nn.Tanh(),
                nn.Flatten(),
                nn.Linear(3, 1),
            ),
            "neither a dense layer of vectors",
        ),
    ],
)
def test_other_networks_are_refused_by_name(network, message):
    with pytest.raises(CertificateError, match=message):
        smoothness_certificate(network, 4)


def test_bad_arguments_are_named():
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module"):
        smoothness_certificate("net", 4)
    with pytest.raises(ValueError, match="input_shape"):
        smoothness_certificate(nn.Linear(2, 2), (0,))


def test_the_statement_of_coverage_holds_on_fresh_rows():
    network = _network(nn.Tanh())
    generator = np.random.default_rng(0)
    rows, fresh = generator.normal(size=(400, 3)), generator.normal(size=(4000, 3))
    norms = jacobian_norms(network, torch.as_tensor(rows)).spectral
    found = coverage(rows, random_state=0)
    largest = norms[found.reference].max()
    bound = found.jacobian_bound(largest, smoothness_certificate(network, 3), [0.5, 0.9])
    at_fresh = jacobian_norms(network, torch.as_tensor(fresh)).spectral
    assert np.all((at_fresh[:, None] <= bound).mean(axis=0) >= [0.5, 0.9])
    assert np.all(np.isfinite(bound))
