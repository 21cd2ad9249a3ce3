"""Sharpness on a part of the rows against that of all, over many draws."""

import numpy as np
import pytest
import torch
from torch import nn

from sharpfit.curvature import HessianOperator
from sharpfit.monitoring import SharpnessMonitor
from sharpfit.monitoring.subsample import Subsample

GENERATOR = torch.Generator().manual_seed(0)
ROWS = torch.randn(400, 3, generator=GENERATOR, dtype=torch.float64)
TARGETS = (ROWS[:, 0] + 0.5 * ROWS[:, 1] ** 2 > 0.3).long()


def module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def criterion(reduction):
    weight = torch.tensor([1.0, 3.0], dtype=torch.float64)
    return nn.CrossEntropyLoss(weight=weight, reduction=reduction)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
def test_standard_errors_are_those_of_repeated_draws(reduction, weighted):
    weights = 0.5 + torch.rand(400, generator=GENERATOR, dtype=torch.float64) if weighted else None
    network, loss = module(), criterion(reduction)
    operator = HessianOperator(network, loss, ROWS, TARGETS, sample_weight=weights)
    hessian = operator.to_dense()
    vector = torch.linalg.eigh(hessian)[1][:, -1]
    truth = float(vector @ hessian @ vector)
    scores = []
    for seed in range(150):
        part = Subsample(ROWS, TARGETS, weights, 100, seed)
        found = part.errors(operator, vector)
        deviation = found["held_out_sharpness"] - truth
        scores.append(deviation / found["held_out_sharpness_error"])
    assert abs(np.mean(scores)) < 0.3
    assert 0.8 < np.std(scores) < 1.25


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_part_and_other_rows_bracket_the_whole(reduction):
    network, loss = module(), criterion(reduction)
    hessian = HessianOperator(network, loss, ROWS, TARGETS).to_dense()
    truth = float(torch.linalg.eigvalsh(hessian)[-1])
    above, below, errors = [], [], []
    for seed in range(60):
        monitor = SharpnessMonitor(n_rows=40, tol=1e-4, n_jacobian_rows=0, history=())
        monitor.set_params(random_state=seed)
        record = monitor.update(network, loss, (ROWS, TARGETS))
        above.append(record["sharpness"])
        below.append(record["held_out_sharpness"])
        errors.append(record["sharpness_sampling_error"])
    assert np.mean(below) < truth < np.mean(above)
    assert np.mean(errors) == pytest.approx(np.std(above), rel=0.5)


def test_all_rows_leave_nothing_open():
    record = SharpnessMonitor(n_rows=400).update(module(), criterion("mean"), (ROWS, TARGETS))
    assert "held_out_sharpness" not in record
