"""Composition of constants over graphs, and those of margins."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sharpfit.jacobian import (
    Certificate,
    lipschitz_certificate,
)
from sharpfit.networks.modules import MultilayerPerceptron
from tests.jacobian.lipschitz_networks import Function, linear, norm_of

# torch says once per process that it copies the input.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")


def test_chain_is_the_product_and_lists_every_layer():
    network = nn.Sequential(linear(3, 5), nn.GELU(), nn.Dropout(0.5), linear(5, 2))
    certificate = lipschitz_certificate(network, (3,))
    expected = norm_of(network[0]) * 1.1289041451851548 * norm_of(network[3])
    assert float(certificate) == pytest.approx(expected, rel=1e-9)
    assert [(rule.name, rule.kind) for rule in certificate.rules] == [
        ("0", "Linear"),
        ("1", "GELU"),
        ("2", "Dropout"),
        ("3", "Linear"),
    ]
    assert certificate.rules[0].constant == pytest.approx(norm_of(network[0]), rel=1e-9)
    assert certificate.rules[-1].cumulative == float(certificate)
    assert certificate.input_shape == (3,)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda m, x: x + m.a(x), lambda a, b: 1 + a),
        (lambda m, x: x - m.a(x), lambda a, b: 1 + a),
        (lambda m, x: m.b(torch.relu(m.a(x))) + m.a(x), lambda a, b: a * b + a),
        (lambda m, x: m.a(m.a(x)), lambda a, b: a * a),
        (lambda m, x: torch.cat([m.a(x), m.b(x)], dim=1), lambda a, b: math.hypot(a, b)),
        (lambda m, x: torch.stack((m.a(x), x), 1), lambda a, b: math.hypot(a, 1)),
        (lambda m, x: torch.maximum(m.a(x), m.b(x)), lambda a, b: math.hypot(a, b)),
        (lambda m, x: 0.5 * m.a(x) / 4 - 3, lambda a, b: a / 8),
        (lambda m, x: 1 - m.a(x), lambda a, b: a),
        (lambda m, x: torch.add(x, m.a(x), alpha=3), lambda a, b: 1 + 3 * a),
        (lambda m, x: F.linear(x, m.a.weight), lambda a, b: a),
        (lambda m, x: x @ m.a.weight.T, lambda a, b: a),
        (lambda m, x: m.a(x).chunk(3, dim=1)[0], lambda a, b: a),
        (lambda m, x: m.a(x)[:, 1:].max(dim=1).values, lambda a, b: a),
        (lambda m, x: m.a(x).max(1)[0], lambda a, b: a),
        (lambda m, x: m.a(x).mean(1), lambda a, b: a / math.sqrt(3)),
        (lambda m, x: m.a(x).sum(dim=-1, keepdim=True), lambda a, b: a * math.sqrt(3)),
        (lambda m, x: x.unsqueeze(1).expand(-1, 4, -1), lambda a, b: 2),
        (lambda m, x: x.sum(1, keepdim=True) + m.a(x), lambda a, b: 3 + a),
        (lambda m, x: F.silu(m.a(x), inplace=True), lambda a, b: 1.099839320128867 * a),
        (lambda m, x: F.leaky_relu(m.a(x), 2.0), lambda a, b: 2 * a),
        (lambda m, x: m.a(x).tanh().abs().clamp(0, 1), lambda a, b: a),
        (lambda m, x: m.a(x).view(x.size(0), -1).reshape(x.shape[0], 3), lambda a, b: a),
        (lambda m, x: F.log_softmax(m.a(x), dim=1), lambda a, b: math.sqrt(3) * a),
        (lambda m, x: F.dropout(m.a(x), 0.5, m.training), lambda a, b: a),
    ],
)
def test_functions_compose(function, expected):
    network = Function(function, a=linear(seed=1), b=linear(seed=2))
    constant = float(lipschitz_certificate(network, 3))
    assert constant == pytest.approx(expected(norm_of(network.a), norm_of(network.b)), rel=1e-6)


def test_functions_on_images_equal_their_layers():
    convolution = nn.Conv2d(2, 4, 3, padding="same")
    as_layers = nn.Sequential(
        convolution, nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2, 1), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
    )  # fmt: skip

    def call(m, x):
        x = F.conv2d(x, m.c.weight, m.c.bias, padding="same")
        x = F.max_pool2d(x, 3, 2, padding=1)
        x = F.avg_pool2d(x, 2, stride=1)
        return torch.flatten(F.adaptive_avg_pool2d(x, 2), 1)

    assert float(lipschitz_certificate(Function(call, c=convolution), (2, 9, 9))) == float(
        lipschitz_certificate(as_layers, (2, 9, 9))
    )


def test_broadcast_copies_are_counted():
    network = Function(lambda m, x: x.mean(1, keepdim=True) + torch.zeros(1, 4))
    assert float(lipschitz_certificate(network, (4,))) == pytest.approx(1.0)


def test_reference_network_and_its_margin():
    network = MultilayerPerceptron(2, 3, hidden=(8, 8), dropout=0.1)
    certificate = lipschitz_certificate(network, (2,))
    weight = network[-1].weight.detach().double()
    widest = max(float((a - b).norm()) for a in weight for b in weight)
    features = float(certificate) / norm_of(network[-1])
    assert certificate.margin_constant == pytest.approx(features * widest, rel=1e-9)
    single = lipschitz_certificate(MultilayerPerceptron(2, 1), (2,))
    assert single.margin_constant == float(single)


def test_margin_without_a_dense_head_is_root_two_times_the_constant():
    network = nn.Sequential(linear(), nn.Tanh())
    certificate = lipschitz_certificate(network, (3,))
    assert certificate.margin_constant == pytest.approx(math.sqrt(2) * float(certificate))
    behind_dropout = nn.Sequential(linear(), nn.Dropout(), nn.Identity())
    functional = Function(lambda m, x: F.linear(x, m.a.weight, m.a.bias), a=behind_dropout[0])
    margin = lipschitz_certificate(behind_dropout, (3,)).margin_constant
    assert margin < math.sqrt(2) * norm_of(behind_dropout[0])
    assert lipschitz_certificate(functional, (3,)).margin_constant == margin


def test_parametrised_weights_are_used_as_they_are():
    layer = nn.utils.parametrizations.weight_norm(linear())
    assert float(lipschitz_certificate(nn.Sequential(layer), (3,))) == pytest.approx(
        norm_of(layer), rel=1e-9
    )


@pytest.mark.parametrize(
    ("layer", "norm", "shape"),
    [
        (nn.Linear(4, 3), nn.BatchNorm1d(3), (4,)),
        (nn.Conv1d(2, 4, 3, stride=2, padding=1, groups=2), nn.BatchNorm1d(4), (2, 8)),
        (nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), (2, 6, 6)),
    ],
)
def test_batch_norm_joins_the_linear_layer_before(layer, norm, shape):
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(layer, norm).double().eval()
    with torch.no_grad():
        for tensor in (*network.parameters(), norm.running_mean):
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
        norm.running_var.copy_(torch.rand(norm.running_var.shape, generator=generator) + 0.01)
        size = math.prod(shape)
        units = torch.eye(size, dtype=torch.float64).reshape(size, *shape)
        matrix = (network(units) - network(torch.zeros_like(units[:1]))).reshape(size, -1)
    exact = float(torch.linalg.matrix_norm(matrix, 2))
    certificate = lipschitz_certificate(network, shape)
    separate = math.prod(rule.constant for rule in certificate.rules)
    assert exact <= float(certificate) < separate
    if isinstance(layer, nn.Linear):
        assert float(certificate) == pytest.approx(exact, rel=1e-9)


def test_default_arguments_and_constant_buffers():
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("shift", torch.ones(3))
            self.register_buffer("scale", torch.tensor([[1.0, -5.0, 2.0]]))

        def forward(self, inputs, sample_weight=None):
            if sample_weight is not None:
                inputs = inputs * sample_weight
            return (inputs + self.shift.sqrt()) * self.scale

    assert float(lipschitz_certificate(Shifted(), (3,))) == 5.0


def test_module_and_random_state_are_left_alone():
    network = nn.Sequential(linear(), nn.BatchNorm1d(3), nn.ReLU(inplace=True), nn.Dropout())
    network.train()
    network[0].weight.grad = torch.ones(3, 3)
    before = copy.deepcopy(network.state_dict())
    random_state = torch.get_rng_state()
    lipschitz_certificate(network, (3,))
    assert network.training
    assert all(module.training for module in network.modules())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.equal(network[0].weight.grad, torch.ones(3, 3))
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_dtype_of_the_network_is_kept():
    network = nn.Sequential(linear()).double()
    assert float(lipschitz_certificate(network, (3,))) == pytest.approx(norm_of(network[0]))
    half = nn.Sequential(linear()).to(torch.bfloat16)
    assert float(lipschitz_certificate(half, (3,))) == pytest.approx(norm_of(half[0]))


def test_certificate_is_frozen_and_reports_tightness():
    certificate = lipschitz_certificate(linear(), (3,))
    assert isinstance(certificate, Certificate)
    assert certificate.tightness(float(certificate) / 2) == 2.0
    with pytest.raises(ValueError, match="positive"):
        certificate.tightness(0.0)
    with pytest.raises(AttributeError):
        certificate.constant = 1.0
