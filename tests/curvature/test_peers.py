"""A second opinion on products, eigenvalues and traces; `make test-peers` installs the peer."""

import numpy as np
import pytest
import torch
from torch import nn

from sharpfit.curvature import (
    EmpiricalFisherOperator,
    GaussNewtonOperator,
    HessianOperator,
    exact_trace,
    hessian_spectrum,
)
from sharpfit.curvature.network import differentiable_kernels
from tests.curvature.reference import NETWORKS, problem, seeded
from tests.curvature.test_architectures import Encoder, tokens

curvlinops = pytest.importorskip("curvlinops", reason="run `make test-peers`")

KINDS = {
    HessianOperator: curvlinops.HessianLinearOperator,
    GaussNewtonOperator: curvlinops.GGNLinearOperator,
    EmpiricalFisherOperator: curvlinops.EFLinearOperator,
}
CRITERIA = {
    "cross-entropy": nn.CrossEntropyLoss(),
    "cross-entropy, sum": nn.CrossEntropyLoss(reduction="sum"),
    "squared error": nn.MSELoss(),
}


def in_batches(inputs, targets):
    return [(inputs[:4], targets[:4]), (inputs[4:], targets[4:])]


def case(name, criterion):
    module, inputs, targets = problem(name, n_rows=9)
    if criterion == "squared error":
        generator = torch.Generator().manual_seed(1)
        targets = torch.randn(9, 3, generator=generator, dtype=torch.float64)
    return module, CRITERIA[criterion], inputs, targets


def second_opinion(kind, module, criterion, inputs, targets):
    parameters = list(module.parameters())
    return KINDS[kind](module, criterion, parameters, in_batches(inputs, targets))


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_products(kind, name, criterion):
    arguments = case(name, criterion)
    operator = kind(*arguments, batch_size=4)
    vectors = torch.randn(
        operator.size, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    expected = second_opinion(kind, *arguments) @ vectors
    if kind is EmpiricalFisherOperator and criterion == "squared error":
        expected /= 3  # the peer averages over entries the products of gradients, not the loss
    torch.testing.assert_close(operator @ vectors, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kind", [HessianOperator, GaussNewtonOperator])
def test_products_of_attention(kind):
    module = seeded(Encoder).double()
    arguments = (module, nn.CrossEntropyLoss(), *tokens())
    operator = kind(*arguments)
    vector = torch.linspace(-1, 1, operator.size, dtype=torch.float64)
    parameters = list(module.parameters())
    with differentiable_kernels():
        peer = KINDS[kind](module, nn.CrossEntropyLoss(), parameters, [tokens()])
        expected = peer @ vector
    # The Hessian by forward over reverse, as the peer has it, is wrong in the weights of
    # PyTorch's layer normalisation; the finite differences of other tests settle those.
    left_out = "norm" if kind is HessianOperator else "nothing"
    for name, found, wanted in zip(
        operator.selection.names,
        operator.selection.split(operator @ vector),
        operator.selection.split(expected),
        strict=True,
    ):
        if left_out not in name:
            torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
def test_eigenvalues_and_trace(matrix):
    arguments = case("cnn", "cross-entropy")
    kind = HessianOperator if matrix == "hessian" else GaussNewtonOperator
    peer = second_opinion(kind, *arguments)
    dense = peer @ torch.eye(peer.shape[0], dtype=torch.float64)
    result = hessian_spectrum(*arguments, matrix=matrix, n_eigenvalues=6, tol=1e-9, random_state=0)
    expected = torch.linalg.eigvalsh(dense).flip(0)[:6]
    np.testing.assert_allclose(result.eigenvalues, expected, rtol=1e-7)
    if matrix == "gauss_newton":
        traces = exact_trace(kind(*arguments))
        assert traces.sum() == pytest.approx(float(dense.trace()), rel=1e-8)
