import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sharpfit.curvature import GaussNewtonOperator, HessianOperator, exact_trace, hessian_spectrum
from tests.curvature.reference import (
    cross_entropy,
    dense_hessian,
    dense_jacobian,
    gauss_newton,
    output_curvature,
    problem,
    seeded,
)


def relu_cnn():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 2, 2, dilation=2, bias=False),
        nn.LeakyReLU(),
        nn.Flatten(),
        nn.Linear(2, 3),
    )


class Sequences(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 3, 2, stride=2)
        self.each = nn.Linear(3, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, inputs):
        rows = torch.tanh(self.conv(inputs)).transpose(1, 2)
        return self.head(torch.relu(self.each(rows)).sum(1))


def blocks(matrix, module):
    sizes = [parameter.numel() for parameter in module.parameters()]
    return np.array([float(part.sum()) for part in matrix.diagonal().split(sizes)])


def data(shape):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(9, *shape, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(0, 3, (9,), generator=generator)


def test_trace_of_piecewise_linear_networks_is_that_of_the_hessian():
    module = seeded(relu_cnn).double()
    inputs, targets = data((1, 6, 6))
    expected = blocks(dense_hessian(module, F.cross_entropy, inputs, targets), module)
    operator = HessianOperator(module, nn.CrossEntropyLoss(), inputs, targets)
    np.testing.assert_allclose(exact_trace(operator), expected, rtol=1e-6, atol=1e-8)
    result = hessian_spectrum(
        module, nn.CrossEntropyLoss(), inputs, targets, trace=True, weight_decay=0.5
    )
    assert result.trace.value == pytest.approx(expected.sum() + 0.5 * operator.size)
    assert result.trace.method == "exact"


@pytest.mark.parametrize(
    ("build", "shape"), [(Sequences, (2, 6)), (lambda: problem("mlp-tanh")[0], (4,))]
)
def test_trace_of_gauss_newton(build, shape):
    module = seeded(build).double()
    inputs, targets = data(shape)
    weights = torch.linspace(0.5, 2, 9, dtype=torch.float64)
    dense = gauss_newton(
        dense_jacobian(module, inputs),
        output_curvature(module, cross_entropy, inputs, targets),
        weights / weights.sum(),
    )
    operator = GaussNewtonOperator(
        module, nn.CrossEntropyLoss(), inputs, targets, sample_weight=weights
    )
    np.testing.assert_allclose(exact_trace(operator), blocks(dense, module), rtol=1e-6)


def test_no_exact_trace_where_it_would_be_wrong():
    for name in ("mlp-tanh", "cnn", "residual"):
        module, inputs, targets = problem(name)
        operator = HessianOperator(module, nn.CrossEntropyLoss(), inputs, targets)
        assert exact_trace(operator) is None
    shared = nn.Linear(4, 4)
    module = seeded(lambda: nn.Sequential(shared, nn.ReLU(), shared, nn.Linear(4, 3))).double()
    _, inputs, targets = problem("mlp-tanh")
    for kind in (HessianOperator, GaussNewtonOperator):
        assert exact_trace(kind(module, nn.CrossEntropyLoss(), inputs, targets)) is None
