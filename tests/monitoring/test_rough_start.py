"""A place to start from: near the top eigenvector, for a fraction of the products."""

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


def start(module, inputs, targets, sample_weight=None):
    weights = torch.ones(len(inputs), dtype=torch.float64)
    rough = RoughStart(
        *(inputs, targets, sample_weight),
        memory_budget=2**24,
        random_state=0,
    )
    names = [name for name, _ in module.named_parameters()]
    hint = torch.ones(sum(p.numel() for p in module.parameters()), dtype=torch.float64)
    weights = weights if sample_weight is None else sample_weight
    return rough, rough.vector(module, LOSS, names, weights, hint)


def test_the_vector_leans_to_the_top_eigenvector():
    module, inputs, targets = problem()
    rough, vector = start(module, inputs, targets)
    dense = HessianOperator(module, LOSS, inputs, targets).to_dense()
    top = torch.linalg.eigh(dense).eigenvectors[:, -1]
    assert (vector @ top).square() > 0.9
    assert rough.n_products == 1  # 8 on an eighth of the rows


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
    rough, vector = start(module, inputs, targets)
    assert vector is None
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
def test_a_quick_measurement_of_three_products_is_within_its_error(seed):
    module, inputs, targets = problem()
    record = Observer(inputs, targets, n_jacobian_rows=0, random_state=seed).measure(
        module, LOSS, quick=True
    )
    exact = torch.linalg.eigvalsh(HessianOperator(module, LOSS, inputs, targets).to_dense())[-1]
    assert abs(record["sharpness"] - float(exact)) <= record["sharpness_error"]
    assert record["sharpness"] > 0.9 * float(exact)
    assert record["n_products"] == 4  # and eight on an eighth of the rows


@pytest.mark.parametrize("settings", [{"count": 300}, {"count": 1200, "n_eigenvalues": 3}])
def test_without_a_start_a_quick_measurement_takes_eight_products(settings):
    module, inputs, targets = problem(settings.pop("count"))
    observer = Observer(inputs, targets, n_jacobian_rows=0, **settings)
    record = observer.measure(module, LOSS, quick=True)
    exact = torch.linalg.eigvalsh(HessianOperator(module, LOSS, inputs, targets).to_dense())[-1]
    assert record["n_products"] == 8
    assert record["sharpness"] == pytest.approx(float(exact), rel=0.02)


def test_a_part_of_which_no_row_counts_is_no_place_to_start_from():
    module, inputs, targets = problem()
    targets[:] = -100
    targets[[3, 500]] = torch.tensor([0, 1])
    _, vector = start(module, inputs, targets)
    assert vector is None
    record = Observer(inputs, targets, n_jacobian_rows=0).measure(module, LOSS, quick=True)
    exact = torch.linalg.eigvalsh(HessianOperator(module, LOSS, inputs, targets).to_dense())[-1]
    assert abs(record["sharpness"] - float(exact)) <= record["sharpness_error"]


def test_what_was_cut_short_does_not_make_later_measurements_start_cold():
    module, inputs, targets = problem()
    observer = Observer(inputs, targets, n_jacobian_rows=0)
    first = observer.measure(module, LOSS, quick=True)["n_products"]
    with torch.no_grad():
        module[0].weight += 0.1
    assert observer.measure(module, LOSS)["n_products"] > first - 1
    assert observer.measure(module, LOSS)["n_products"] <= 4
