"""The Gauss-Newton part of an eigenvalue from the products that found it."""

import numpy as np
import pytest
import torch
from torch import nn

from sharpfit.curvature import HessianOperator
from sharpfit.curvature.recorded_tangents import RecordedTangents
from sharpfit.monitoring import EigenvalueTracker


def operator(**settings):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    inputs, targets = torch.randn(40, 6).double(), torch.arange(40) % 3
    return HessianOperator(
        module, nn.CrossEntropyLoss(), inputs, targets, batch_size=15, **settings
    )


def gauss_newton_form(hessian, vector):
    """Return ``v^T G v`` from the Jacobian of all outputs, by autograd in the dense."""
    module, (chunk,) = hessian.network.module, hessian.chunks(40)
    outputs = module(chunk.inputs)
    rows = []
    for output in outputs.flatten():
        parts = torch.autograd.grad(output, list(module.parameters()), retain_graph=True)
        rows.append(torch.cat([part.flatten() for part in parts]))
    tangents = (torch.stack(rows) @ vector).view(40, 3)
    p = outputs.detach().softmax(1)
    variances = (p * tangents**2).sum(1) - (p * tangents).sum(1) ** 2
    return float(variances.mean())


@pytest.mark.parametrize("route", ["closed_form", "graph", "traced"])
@pytest.mark.parametrize("budget", [2**31, 2**17])
def test_it_is_that_of_the_dense_jacobian(route, budget):
    hessian = operator(route=route, memory_budget=budget)
    recorded = RecordedTangents(hessian, 16)
    pairs = EigenvalueTracker(2, tol=1e-3).measure(recorded)
    vector = pairs.vectors[:, 0]
    expected = gauss_newton_form(hessian, vector)
    assert recorded.gauss_newton_form(vector, pairs.coefficients) == pytest.approx(
        expected, rel=1e-10
    )


def test_vectors_that_were_dropped_are_not_needed():
    hessian = operator()
    recorded = RecordedTangents(hessian, 16)
    # A basis that has to be compressed, since it holds ten vectors.
    pairs = EigenvalueTracker(2, tol=1e-9, memory_budget=1).measure(recorded)
    assert pairs.n_products > 10
    assert pairs.coefficients is None
    vector = pairs.vectors[:, 0]
    assert recorded.gauss_newton_form(vector, None) == pytest.approx(
        gauss_newton_form(hessian, vector), rel=1e-10
    )


def test_products_are_those_of_the_hessian():
    hessian = operator()
    recorded = RecordedTangents(hessian, 16)
    vector = torch.ones(hessian.size, dtype=torch.float64)
    assert torch.equal(recorded.matvec(vector), hessian.matvec(vector))


def test_no_more_is_remembered_than_expected():
    hessian = operator()
    recorded = RecordedTangents(hessian, 3)
    vector = torch.ones(hessian.size, dtype=torch.float64)
    for count in (1, 2, 3, 0, 0):
        recorded.matvec(vector)
        assert len(recorded._products) == count
    assert recorded.gauss_newton_form(vector, np.ones(5)) == pytest.approx(
        gauss_newton_form(hessian, vector), rel=1e-10
    )
