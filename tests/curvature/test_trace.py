import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sharpfit.curvature import (
    ConjugateOperator,
    GaussNewtonOperator,
    HessianOperator,
    exact_trace,
    hessian_spectrum,
)
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


class Skips(nn.Module):
    """Piecewise linear with additions, normalisation and activations that overwrite."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3))
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(6, 3)

    def forward(self, inputs):
        hidden = self.relu(self.stem(inputs))
        out = self.norm(self.conv(hidden))
        out += hidden
        pooled = torch.cat([self.relu(out).mean((2, 3)), out.sum((2, 3))], dim=1)
        return self.head(pooled / 2)


class Normalised(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(2, 4)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))

    def forward(self, inputs):
        return self.head(torch.relu(self.norm(self.embed(inputs.transpose(1, 2)))).mean(1))


class Product(nn.Module):
    """Affine in each entry of a layer, but quadratic in the layer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(12, 3)

    def forward(self, inputs):
        hidden = self.layer(inputs.flatten(1))
        return hidden * hidden


def blocks(matrix, module):
    sizes = [parameter.numel() for parameter in module.parameters()]
    return np.array([float(part.sum()) for part in matrix.diagonal().split(sizes)])


def data(shape):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(9, *shape, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(0, 3, (9,), generator=generator)


def batch_norm_mlp():
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(36, 4, bias=False),
        nn.BatchNorm1d(4),
        nn.ReLU6(inplace=True),
        nn.Linear(4, 3),
    )


@pytest.mark.parametrize("build", [relu_cnn, batch_norm_mlp, Skips])
def test_trace_of_piecewise_linear_networks_is_that_of_the_hessian(build):
    module = seeded(build).double()
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
    ("build", "shape"),
    [(Sequences, (2, 6)), (Normalised, (2, 6)), (lambda: problem("mlp-tanh")[0], (4,))],
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
    for build in (Normalised, Product):
        inputs, targets = data((2, 6))
        arguments = (seeded(build).double(), nn.CrossEntropyLoss(), inputs, targets)
        assert exact_trace(HessianOperator(*arguments)) is None
    shared = nn.Linear(4, 4)
    module = seeded(lambda: nn.Sequential(shared, nn.ReLU(), shared, nn.Linear(4, 3))).double()
    _, inputs, targets = problem("mlp-tanh")
    for kind in (HessianOperator, GaussNewtonOperator):
        assert exact_trace(kind(module, nn.CrossEntropyLoss(), inputs, targets)) is None


def test_traces_of_rows_that_are_not_finite_are_refused():
    module, inputs, targets = seeded(relu_cnn).double(), *data((1, 6, 6))
    inputs[4, 0, 2, 2] = torch.nan
    arguments = (module, nn.CrossEntropyLoss(), inputs, targets)
    for operator in (HessianOperator(*arguments), GaussNewtonOperator(*arguments, batch_size=3)):
        with pytest.raises(ValueError, match="row 4 of inputs has outputs"):
            exact_trace(operator)
    with pytest.raises(ValueError, match="row 4 of inputs has outputs"):
        ConjugateOperator(*arguments).to_dense()
