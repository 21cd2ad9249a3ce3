"""A place to start from: near the top eigenvectors, for a fraction of the products."""

import copy

import pytest
import torch
from torch import nn

from sharpfit.curvature import HessianOperator
from sharpfit.monitoring.observer import Observer
from sharpfit.monitoring.rough_start import RoughStart

LOSS = nn.CrossEntropyLoss()


def problem(count=1200):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(count, 6, generator=generator, dtype=torch.float64) + 0.7
    targets = (inputs[:, 0] * inputs[:, 1] > 0.5).long()
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    return module, inputs, targets


def start(module, inputs, targets, sample_weight=None, *, n_eigenvalues=1):
    weights = torch.ones(len(inputs), dtype=torch.float64)
    rough = RoughStart(
        *(inputs, targets, sample_weight),
        n_eigenvalues=n_eigenvalues,
        memory_budget=2**24,
        random_state=0,
    )
    names = [name for name, _ in module.named_parameters()]
    hint = torch.ones(sum(p.numel() for p in module.parameters()), dtype=torch.float64)
    weights = weights if sample_weight is None else sample_weight
    return rough, rough.vectors(module, LOSS, names, weights, hint)


def test_vectors_lean_to_the_top_eigenvectors():
    module, inputs, targets = problem()
    rough, vectors = start(module, inputs, targets, n_eigenvalues=2)
    dense = HessianOperator(module, LOSS, inputs, targets).to_dense()
    exact = torch.linalg.eigh(dense).eigenvectors
    caught = (vectors @ exact).square().sum(dim=0)
    assert caught[-1] > 0.9
    assert caught[-2] > 10 * caught[:-2].mean()
    assert rough.n_products == 2  # 12 on an eighth of the rows


def test_rows_without_weight_are_left_out():
    module, inputs, targets = problem()
    weights = torch.ones(len(inputs), dtype=torch.float64)
    weights[::2] = 0.0
    _, expected = start(module, inputs, targets, weights)
    spoilt = torch.where(weights[:, None] == 0, 1e6, inputs)
    _, found = start(module, spoilt, targets, weights)
    assert torch.equal(found, expected)


def test_few_rows_are_no_place_to_start_from():
    module, inputs, targets = problem(300)
    rough, vectors = start(module, inputs, targets)
    assert vectors is None
    assert rough.n_products == 0


def test_module_and_random_state_stay():
    module, inputs, targets = problem()
    before = copy.deepcopy(module.state_dict())
    state = torch.get_rng_state()
    start(module, inputs, targets)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())


@pytest.mark.parametrize("seed", range(5))
def test_a_first_measurement_of_three_products_is_within_its_error(seed):
    module, inputs, targets = problem()
    record = Observer(inputs, targets, n_jacobian_rows=0, random_state=seed).measure(
        module, LOSS, max_products=3
    )
    exact = torch.linalg.eigvalsh(HessianOperator(module, LOSS, inputs, targets).to_dense())[-1]
    assert abs(record["sharpness"] - float(exact)) <= record["sharpness_error"]
    assert record["sharpness"] > 0.9 * float(exact)
    assert record["n_products"] == 4  # and eight on an eighth of the rows
