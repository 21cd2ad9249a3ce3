"""Traces of which a part is exact, against dense matrices."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sharpfit.curvature import (
    BatchObjective,
    GaussNewtonOperator,
    HessianOperator,
    curvature_trace,
    exact_trace,
    hessian_spectrum,
)
from sharpfit.linalg import trace_estimate
from tests.curvature.reference import dense_hessian, problem, seeded


def fitted():
    """A smooth network whose residual is small beside the rest."""
    module = seeded(lambda: nn.Sequential(nn.Linear(4, 20), nn.Tanh(), nn.Linear(20, 3))).double()
    _, inputs, targets = problem("mlp-tanh", n_rows=40)
    optimiser = torch.optim.Adam(module.parameters(), lr=0.05)
    for _ in range(30):
        optimiser.zero_grad()
        F.cross_entropy(module(inputs), targets).backward()
        optimiser.step()
    return module, inputs, targets


def smooth():
    module = seeded(lambda: nn.Sequential(nn.Linear(4, 30), nn.Tanh(), nn.Linear(30, 3))).double()
    _, inputs, targets = problem("mlp-tanh", n_rows=40)
    return module, inputs, targets


@pytest.mark.parametrize("route", ["auto", "graph"])
def test_the_residual_alone_is_estimated(route):
    module, inputs, targets = fitted()
    exact = float(dense_hessian(module, F.cross_entropy, inputs, targets).trace())
    arguments = (module, nn.CrossEntropyLoss(), inputs, targets)
    settings = {"route": route, "weight_decay": 0.01}
    found = [curvature_trace(*arguments, tol=0.01, random_state=i, **settings) for i in range(20)]
    expected = exact + 0.01 * sum(parameter.numel() for parameter in module.parameters())
    errors = np.array([(trace.value - expected) / trace.standard_error for trace in found])
    assert {trace.method for trace in found} == {"split"}
    assert all(trace.converged for trace in found)
    assert all(trace.standard_error <= 0.01 * abs(trace.value) for trace in found)
    assert 0.5 < np.sqrt(np.mean(errors**2)) < 1.6
    whole = trace_estimate(HessianOperator(*arguments), tol=0.01, random_state=0)
    assert whole.n_products > 1.5 * max(trace.n_products for trace in found)
    spectrum = hessian_spectrum(*arguments, trace=True, n_eigenvalues=1, random_state=3, **settings)
    assert spectrum.trace == curvature_trace(*arguments, random_state=3, **settings)


def test_a_large_residual_is_estimated_as_fast_as_the_whole():
    module, inputs, targets = smooth()
    exact = float(dense_hessian(module, F.cross_entropy, inputs, targets).trace())
    arguments = (module, nn.CrossEntropyLoss(), inputs, targets)
    trace = curvature_trace(*arguments, random_state=0)
    whole = trace_estimate(HessianOperator(*arguments), random_state=0)
    assert trace.method == "split"
    assert trace.n_products <= whole.n_products + 20
    assert abs(trace.value - exact) < 4 * trace.standard_error + 1e-6


def test_known_parts_are_exact():
    module, inputs, targets = smooth()
    arguments = (module, nn.CrossEntropyLoss(), inputs, targets)
    trace = curvature_trace(*arguments, matrix="gauss_newton")
    assert trace.method == "exact"
    assert trace.value == pytest.approx(exact_trace(GaussNewtonOperator(*arguments)).sum())
    with pytest.raises(ValueError, match="matrix must be one of"):
        curvature_trace(*arguments, matrix="fisher")


class Recurrent(nn.Module):
    """Has no closed form of any part."""

    def __init__(self):
        super().__init__()
        self.layer = nn.GRU(1, 4, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, inputs):
        return self.head(self.layer(inputs.unsqueeze(2))[0][:, -1])


def test_the_rest_is_estimated_whole():
    _, inputs, targets = smooth()
    module = seeded(Recurrent).double()
    exact = float(dense_hessian(module, F.cross_entropy, inputs, targets).trace())
    trace = curvature_trace(module, nn.CrossEntropyLoss(), inputs, targets, random_state=0)
    assert trace.method == "xtrace"
    assert abs(trace.value - exact) < 4 * trace.standard_error

    def penalised(network, rows, labels):
        return F.cross_entropy(network(rows), labels) + network.head.weight.square().sum()

    objective = BatchObjective(penalised)
    trace = curvature_trace(module, objective, inputs, targets, random_state=0)
    assert abs(trace.value - exact - 2 * 12) < 4 * trace.standard_error


def test_many_outputs_are_not_split():
    module = seeded(lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 60))).double()
    _, inputs, targets = smooth()
    trace = curvature_trace(module, nn.CrossEntropyLoss(), inputs, targets, random_state=0)
    assert trace.method == "xtrace"
