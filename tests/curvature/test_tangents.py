"""The tangents of the outputs that Hessian products leave over."""

import pytest
import torch
from torch import nn

from sharpfit.curvature import HessianOperator
from sharpfit.objective import SampleLoss
from tests.curvature.reference import seeded


def problem():
    module = seeded(lambda: nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))).double()
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(11, 5, generator=generator, dtype=torch.float64)
    return module, inputs, torch.arange(11) % 3


def differences(module, inputs, vector, step=1e-6):
    """Derivative of the outputs along a vector, by central differences."""
    point = nn.utils.parameters_to_vector(module.parameters()).detach()
    found = []
    for sign in (1, -1):
        nn.utils.vector_to_parameters(point + sign * step * vector, module.parameters())
        found.append(module(inputs).detach())
    nn.utils.vector_to_parameters(point, module.parameters())
    return (found[0] - found[1]) / (2 * step)


@pytest.mark.parametrize("route", ["closed_form", "graph"])
def test_tangents_are_the_derivative_of_the_outputs(route):
    module, inputs, targets = problem()
    operator = HessianOperator(
        module, nn.CrossEntropyLoss(), inputs, targets, route=route, batch_size=4
    )
    for seed in range(2):  # the second product's, not the first one's
        vector = torch.randn(operator.size, generator=torch.Generator().manual_seed(seed)).double()
        operator.matvec(vector)
        tangents = operator.last_tangents()
        expected = differences(module, inputs, vector)
        torch.testing.assert_close(torch.cat(tangents), expected, rtol=0, atol=1e-8)
        assert operator.gauss_newton_form_of(tangents) == pytest.approx(
            operator.gauss_newton_form(vector), rel=1e-12
        )


@pytest.mark.parametrize("settings", [{"route": "traced"}, {"memory_budget": 4000}])
def test_none_where_they_are_not_kept(settings):
    module, inputs, targets = problem()
    operator = HessianOperator(
        module, nn.CrossEntropyLoss(), inputs, targets, batch_size=4, **settings
    )
    operator.matvec(torch.ones(operator.size, dtype=torch.float64))
    assert operator.last_tangents() is None


def test_a_network_linear_in_its_parameters_has_them_too():
    module = seeded(lambda: nn.Linear(5, 3)).double()
    _, inputs, targets = problem()
    operator = HessianOperator(module, nn.CrossEntropyLoss(), inputs, targets, route="graph")
    vector = torch.ones(operator.size, dtype=torch.float64)
    operator.matvec(vector)
    expected = inputs.sum(1, keepdim=True).expand(-1, 3) + 1
    torch.testing.assert_close(operator.last_tangents()[0], expected)


class HalfSquares(SampleLoss):
    """Half the squared distance; its curvature is the identity."""

    reduction = "mean"

    def values(self, outputs, targets):
        return 0.5 * (outputs - targets).square().sum(1)

    def curvature_product(self, outputs, targets, vectors):
        return vectors

    def curvature_map(self, outputs, targets):
        return lambda vectors: vectors


@pytest.mark.parametrize("route", ["closed_form", "graph"])
def test_a_loss_may_return_the_tangents_themselves(route):
    module, inputs, _ = problem()
    targets = torch.zeros(11, 3, dtype=torch.float64)
    operator = HessianOperator(module, HalfSquares(), inputs, targets, route=route)
    vector = torch.ones(operator.size, dtype=torch.float64)
    operator.matvec(vector)
    expected = differences(module, inputs, vector)
    (tangents,) = operator.last_tangents()
    torch.testing.assert_close(tangents, expected, rtol=0, atol=1e-7)
    form = float(expected.square().sum(1).mean())
    assert operator.gauss_newton_form_of([tangents]) == pytest.approx(form, rel=1e-6)


@pytest.mark.parametrize("route", ["closed_form", "graph"])
def test_what_is_kept_is_counted(route):
    module, inputs, targets = problem()
    operator = HessianOperator(module, nn.CrossEntropyLoss(), inputs, targets, route=route)
    (linearisation,) = operator.linearisations()
    parts = operator.selection.split(torch.ones(operator.size, dtype=torch.float64))
    linearisation.add_hessian_product(parts, tuple(torch.zeros_like(part) for part in parts))
    counted = linearisation.state_bytes()
    assert linearisation.tangents.nbytes == 11 * 3 * 8
    linearisation.tangents = None
    assert counted - linearisation.state_bytes() == 11 * 3 * 8
