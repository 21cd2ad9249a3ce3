"""What holds for every network, loss and direction."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sharpfit.curvature import (
    EmpiricalFisherOperator,
    GaussNewtonOperator,
    HessianOperator,
    attribution,
)
from tests.curvature.reference import mlp, seeded

ACTIVATIONS = [nn.ReLU, nn.Tanh, nn.Softplus, nn.SiLU]
KINDS = [HessianOperator, GaussNewtonOperator, EmpiricalFisherOperator]


@st.composite
def problems(draw):
    """A network, a loss, its rows and two directions."""
    sizes = (draw(st.integers(1, 4)), draw(st.integers(1, 5)), draw(st.integers(1, 3)))
    activation = draw(st.sampled_from(ACTIVATIONS))
    module = seeded(lambda: mlp(activation, sizes)).double()
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    n_rows = draw(st.integers(1, 7))
    inputs = torch.randn(n_rows, sizes[0], generator=generator, dtype=torch.float64)
    if draw(st.booleans()):
        criterion = nn.CrossEntropyLoss(reduction=draw(st.sampled_from(["mean", "sum"])))
        targets = torch.randint(0, sizes[-1], (n_rows,), generator=generator)
    else:
        criterion = nn.MSELoss()
        targets = torch.randn(n_rows, sizes[-1], generator=generator, dtype=torch.float64)
    count = sum(parameter.numel() for parameter in module.parameters())
    directions = torch.randn(2, count, generator=generator, dtype=torch.float64)
    return (module, criterion, inputs, targets), directions


@settings(max_examples=25, deadline=None)
@given(problems(), st.sampled_from(KINDS), st.integers(1, 7), st.randoms(use_true_random=False))
def test_products_are_linear_symmetric_and_see_rows_as_a_set(case, kind, batch_size, random):
    arguments, (one, other) = case
    operator = kind(*arguments)
    products = operator.matvec(one), operator.matvec(other)
    torch.testing.assert_close(one @ products[1], other @ products[0])
    torch.testing.assert_close(operator.matvec(2 * one - other), 2 * products[0] - products[1])
    module, criterion, inputs, targets = arguments
    order = list(range(len(inputs)))
    random.shuffle(order)
    shuffled = kind(
        module, criterion, inputs[order], targets[order], batch_size=batch_size, route="graph"
    )
    torch.testing.assert_close(shuffled.matvec(one), products[0])


@settings(max_examples=15, deadline=None)
@given(problems(), st.sampled_from(["hessian", "gauss_newton"]))
def test_shares_sum_to_the_curvature(case, matrix):
    arguments, (direction, _) = case
    unit = direction / direction.norm()
    kind = HessianOperator if matrix == "hessian" else GaussNewtonOperator
    whole = float(unit @ kind(*arguments).matvec(unit))
    split = attribution(*arguments, vectors=unit, matrix=matrix)
    assert split.tensors.sum() == pytest.approx(whole, abs=1e-10)
    assert split.samples.sum() == pytest.approx(whole, abs=1e-10)
    assert split.gauss_newton + split.residual == pytest.approx(whole, abs=1e-10)
    assert split.outputs.sum() == pytest.approx(whole, abs=1e-10)
    assert split.outputs_gauss_newton.sum() == pytest.approx(split.gauss_newton, abs=1e-10)
    assert (split.outputs_gauss_newton >= 0).all()
    assert (split.samples_gauss_newton >= 0).all()
