"""Floors and factors against dense matrices and the slower functions of other packages."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import jacrev, vmap

from sharpfit.curvature import GaussNewtonOperator, layer_terms
from sharpfit.jacobian import SlopeBound, jacobian_norms
from sharpfit.monitoring import SharpnessMonitor
from sharpfit.monitoring.row_derivatives import row_derivatives
from sharpfit.monitoring.row_terms import row_terms
from sharpfit.objective import as_sample_loss

DENSE = ("0", "2", "4")


def dense_network(outputs=3, bias=True, scale=1.0):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(5, 7, bias=bias), nn.Tanh(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, outputs)
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(scale)
    return network.double().eval()


def convolutional_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(12, 6),
        nn.ReLU(),
        nn.Linear(6, 3),
    ).double()


def rows(shape=(40, 5)):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(shape, generator=generator, dtype=torch.float64) + 0.5


LOSSES = {
    "cross-entropy": (nn.CrossEntropyLoss(), 3, torch.arange(40) % 3),
    "smoothed": (nn.CrossEntropyLoss(label_smoothing=0.2), 3, torch.arange(40) % 3),
    "weighted": (
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.3], dtype=torch.float64)),
        3,
        torch.arange(40) % 3,
    ),
    "logistic": (nn.BCEWithLogitsLoss(), 1, (torch.arange(40) % 2).double()),
    "squared": (nn.MSELoss(), 3, torch.sin(torch.arange(120.0)).double().view(40, 3)),
    "sum": (nn.MSELoss(reduction="sum"), 1, torch.sin(torch.arange(40.0)).double()),
    "huber": (nn.HuberLoss(), 1, torch.sin(torch.arange(40.0)).double()),
}


RESPONSES = dict.fromkeys(("squared", "sum", "huber"), "logits")


def measure(module, criterion, inputs, targets, part=None, moved=None):
    loss = as_sample_loss(criterion)
    weights = loss.row_weights(targets)
    part = slice(None) if part is None else part
    return row_terms(
        module,
        loss,
        inputs[part],
        targets[part],
        weights[part],
        n_rows=len(inputs),
        total_weight=float(weights.sum()),
        moved=[n for n, _ in module.named_parameters()] if moved is None else moved,
        batch_size=16,
    )


def largest_eigenvalue(module, criterion, inputs, targets, names=None):
    operator = GaussNewtonOperator(module, criterion, inputs, targets, parameters=names)
    return float(torch.linalg.eigvalsh(operator.to_dense())[-1])


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", LOSSES)
def test_floors_are_below_the_largest_eigenvalue(name, bias, scale):
    criterion, outputs, targets = LOSSES[name]
    module, inputs = dense_network(outputs, bias, scale), rows()
    terms = measure(module, criterion, inputs, targets)
    first = [name for name, _ in module.named_parameters() if name.startswith("0.")]
    # The floor holds already for the block of the first layer.
    top = largest_eigenvalue(module, criterion, inputs, targets, first)
    assert 0 <= terms.jacobian_floor <= top * (1 + 1e-9)
    assert terms.jacobian_floor_error == 0.0
    # Were the slope that of the response at a row, the floor would hold as well.
    output = RESPONSES.get(name, "probabilities")
    for row in range(0, 40, 7):
        norm = float(jacobian_norms(module, inputs[row : row + 1], output=output).spectral[0])
        slope = SlopeBound(norm, (row, row), "probabilities")
        floor = terms.loss_floor(slope, 1.0, 0.0)
        assert 0 <= floor <= top * (1 + 1e-9)
        assert terms.loss_floor(slope, 2.0, norm) == pytest.approx(floor / 4)


def test_floor_is_tight_for_one_row_and_one_weight():
    module = nn.Linear(1, 1).double()
    inputs, targets = torch.tensor([[3.0]], dtype=torch.float64), torch.ones(1, 1).double()
    terms = measure(module, nn.MSELoss(), inputs, targets)
    assert terms.jacobian_floor == pytest.approx(2 * (3.0**2 + 1))
    slope = SlopeBound(float(module.weight.detach().abs()), (0, 0), "predictions")
    assert terms.loss_floor(slope, 1.0, 0.0) == pytest.approx(2 * (3.0**2 + 1))


def test_convolutions_have_the_floor_along_their_weight():
    module, inputs, targets = convolutional_network(), rows((40, 1, 4, 4)), torch.arange(40) % 3
    terms = measure(module, nn.CrossEntropyLoss(), inputs, targets)
    top = largest_eigenvalue(module, nn.CrossEntropyLoss(), inputs, targets, ["0.weight"])
    assert 0.01 * top < terms.jacobian_floor <= top
    assert terms.floor_weights is None
    assert math.isnan(terms.loss_floor(SlopeBound(1.0, (0, 1), "probabilities"), 1.0, 0.0))


class Skip(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, inputs):
        return self.layer(inputs) + inputs[:, :3]


def test_floors_are_refused_where_their_conditions_fail():
    inputs, targets = rows(), torch.arange(40) % 3
    skipped = measure(Skip().double(), nn.CrossEntropyLoss(), inputs, targets)
    assert math.isnan(skipped.jacobian_floor)
    module = dense_network()
    frozen = measure(module, nn.CrossEntropyLoss(), inputs, targets, moved=["4.weight"])
    assert math.isnan(frozen.jacobian_floor)
    assert set(frozen.layers) == {"4"}
    shared = nn.Linear(5, 5)
    twice = nn.Sequential(shared, nn.Tanh(), shared, nn.Linear(5, 3)).double()
    assert math.isnan(measure(twice, nn.CrossEntropyLoss(), inputs, targets).jacobian_floor)


@pytest.mark.parametrize("name", ["cross-entropy", "weighted", "squared"])
def test_factors_are_those_of_the_exact_terms(name):
    criterion, outputs, targets = LOSSES[name]
    module, inputs = dense_network(outputs), rows()
    terms = measure(module, criterion, inputs, targets)
    for expected in layer_terms(module, criterion, inputs, targets):
        found = terms.layers[expected.name]
        assert found.feature_energy == pytest.approx(expected.feature_energy)
        assert found.backward_energy == pytest.approx(expected.backward_energy)
        assert found.alignment == pytest.approx(expected.alignment)
        assert terms.loss_curvature == pytest.approx(expected.loss_curvature)
    assert tuple(terms.layers) == DENSE


CONVOLUTIONS = {
    "strided": (nn.Conv2d(2, 3, 3, padding=1, stride=2), (40, 2, 4, 4)),
    "same": (nn.Conv2d(2, 3, (3, 2), padding="same", dilation=2), (40, 2, 5, 4)),
    "circular": (nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular", bias=False), (40, 2, 4, 3)),
    "signal": (nn.Conv1d(2, 3, 3, padding=2, stride=2), (40, 2, 7)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_factors_of_convolutions_are_those_of_dense_derivatives(name):
    layer, shape = CONVOLUTIONS[name]
    torch.manual_seed(0)
    after = nn.Sequential(nn.Tanh(), nn.Flatten(), nn.LazyLinear(3))
    module = nn.Sequential(layer, after).double()
    inputs, targets = rows(shape), torch.arange(40) % 3
    module(inputs)
    terms = measure(module, nn.CrossEntropyLoss(), inputs, targets)
    found = terms.layers["0"]
    names = [f"0.{name}" for name, _ in layer.named_parameters()]
    block = GaussNewtonOperator(
        module, nn.CrossEntropyLoss(), inputs, targets, parameters=names
    ).to_dense()
    product = found.feature_energy * found.backward_energy * terms.loss_curvature
    assert found.alignment * product == pytest.approx(float(block.trace()))
    # Energies of patches are what a kernel of ones adds up of the squares.
    ones = copy.deepcopy(layer).double()
    with torch.no_grad():
        ones.weight.fill_(1.0)
        if layer.bias is not None:
            ones.bias.fill_(1.0)
        energy = ones(inputs.square())[:, 0].flatten(1).sum(dim=1).mean()
        leaving = layer(inputs).detach()
    assert found.feature_energy == pytest.approx(float(energy))
    backward = vmap(jacrev(lambda z: after(z.unsqueeze(0))[0]))(leaving)
    assert found.backward_energy == pytest.approx(float(backward.detach().square().sum()) / 40)


def test_convolutions_in_groups_have_no_factors():
    module = nn.Sequential(nn.Conv1d(2, 2, 3, groups=2), nn.Flatten(), nn.Linear(6, 3)).double()
    found = measure(module, nn.CrossEntropyLoss(), rows((40, 2, 5)), torch.arange(40) % 3)
    assert set(found.layers) == {"2"}


@pytest.mark.parametrize("name", ["cross-entropy", "logistic", "squared"])
def test_jacobians_are_those_of_the_profiler(name):
    criterion, outputs, targets = LOSSES[name]
    module, inputs = dense_network(outputs), rows()
    terms = measure(module, criterion, inputs, targets)
    expected = jacobian_norms(module, inputs).spectral
    np.testing.assert_allclose(terms.jacobian.numpy(), expected, rtol=1e-9)
    output = "logits" if name == "squared" else "probabilities"
    largest = jacobian_norms(module, inputs, output=output).spectral.max()
    assert terms.response_jacobian_max == pytest.approx(largest)


def test_floors_from_some_rows_estimate_those_from_all():
    generator = torch.Generator().manual_seed(2)
    module, inputs = dense_network(), rows((600, 5))
    targets = torch.arange(600) % 3
    whole = measure(module, nn.CrossEntropyLoss(), inputs, targets).jacobian_floor
    deviations = []
    for _ in range(30):
        part = torch.randperm(600, generator=generator)[:100]
        found = measure(module, nn.CrossEntropyLoss(), inputs, targets, part)
        deviations.append((found.jacobian_floor - whole) / found.jacobian_floor_error)
    assert abs(np.mean(deviations)) < 1
    assert 0.5 < np.std(deviations) < 1.6


def test_losses_without_convexity_have_no_floor():
    class Cosine(nn.Module):
        def forward(self, outputs, targets):
            return torch.cos(outputs - targets).mean()

    module, inputs = dense_network(1), rows()
    terms = measure(module, Cosine(), inputs, torch.zeros(40, dtype=torch.float64))
    assert math.isnan(terms.jacobian_floor)
    assert terms.layers == {}
    assert torch.isfinite(terms.jacobian).all()


@pytest.mark.parametrize("build", [dense_network, convolutional_network])
def test_activations_in_place(build):
    inputs = rows((10, 1, 4, 4) if build is convolutional_network else (10, 5))
    plain, overwriting = build(), build()
    for place, layer in enumerate(overwriting):
        if isinstance(layer, nn.ReLU):
            overwriting[place] = nn.ReLU(inplace=True)
        if isinstance(layer, nn.Tanh):
            overwriting[place] = nn.Hardtanh(inplace=True)
            plain[place] = nn.Hardtanh()
    expected, found = (row_derivatives(module, inputs) for module in (plain, overwriting))
    torch.testing.assert_close(found.jacobian, expected.jacobian)
    torch.testing.assert_close(found.first.along, expected.first.along)
    for name, layer in expected.layers.items():
        torch.testing.assert_close(found.layers[name].backward, layer.backward)
        torch.testing.assert_close(found.layers[name].features, layer.features)
    for name, layer in expected.convolutions.items():
        torch.testing.assert_close(found.convolutions[name].backward, layer.backward)


def test_layers_of_a_convolutional_network_line_up_as_their_jacobians_do():
    torch.manual_seed(0)
    convolution = nn.Conv2d(2, 3, 3, padding=1, stride=2, padding_mode="circular")
    layers = [convolution, nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6, 3)]
    module, inputs = nn.Sequential(*layers).double(), rows((10, 2, 5, 7))
    monitor = SharpnessMonitor(alignment=True)
    found = monitor.update(module, nn.CrossEntropyLoss(), (inputs, torch.arange(10) % 3))
    entering, total = inputs, torch.eye(70, dtype=torch.float64)
    product = torch.ones(10, dtype=torch.float64)
    for layer in layers:
        own = vmap(jacrev(lambda x, layer=layer: layer(x.unsqueeze(0)).flatten()))(entering)
        matrices = own.detach().flatten(2)
        total, product = matrices @ total, product * torch.linalg.matrix_norm(matrices, 2)
        entering = layer(entering).detach()
    expected = torch.linalg.matrix_norm(total, 2) / product
    assert found["layer_alignment"] == pytest.approx(float(expected.mean()), rel=1e-6)
