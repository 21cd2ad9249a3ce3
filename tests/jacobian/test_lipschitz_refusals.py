"""What has no certificate is refused by name; rules of one's own."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sharpfit.jacobian import (
    CertificateError,
    lipschitz_certificate,
    register_lipschitz,
)
from tests.jacobian.lipschitz_networks import Function, linear, norm_of

# torch says once per process that it copies the input.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")


class Gate(nn.Module):
    def forward(self, inputs):
        return inputs if inputs.sum() > 0 else -inputs


class Doubled(nn.Linear):
    def forward(self, inputs):
        return 2 * super().forward(inputs)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (nn.MultiheadAttention(3, 1), "MultiheadAttention"),
        (nn.Sequential(nn.LSTM(3, 2)), "register_lipschitz"),
        (nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False)), "'0'.*track_running_stats"),
        (nn.Sequential(nn.Softmax(dim=0)), "batch"),
        (Gate(), "Gate.*could not be traced"),
        (Function(lambda m, x: x * x), "mul multiplies two activations"),
        (Function(lambda m, x: x / x), "divides by an activation"),
        (Function(lambda m, x: x @ x.T), "no Lipschitz rule|multiplies two"),
        (Function(lambda m, x: x**2), "pow"),
        (Function(lambda m, x: torch.exp(x)), "exp"),
        (Function(lambda m, x: x.mean()), "names? the dim|reduces over the batch"),
        (Function(lambda m, x: x - x.mean(0)), "batch"),
        (Function(lambda m, x: x.reshape(-1)), "mixes the batch"),
        (Function(lambda m, x: x.transpose(0, 1)), "batch"),
        (Function(lambda m, x: x.permute(1, 0)), "batch"),
        (Function(lambda m, x: x[0]), "batch"),
        (Function(lambda m, x: x[:, [0, 0]]), "copy entries"),
        (Function(lambda m, x: torch.cat([x, x])), "batch"),
        (Function(lambda m, x: x.argmax(1)), "argmax"),
        (Function(lambda m, x: x.max(1)[1]), "int64"),
        (Function(lambda m, x: (x, x)), "one tensor"),
        (Function(lambda m, x: F.dropout(x)), "training"),
        (Function(lambda m, x: x + F.silu(x, inplace=True)), "in place"),
        (Function(lambda m, x: x / torch.zeros(3)), "zero entry"),
        (nn.Bilinear(2, 2, 2), "Bilinear"),
        (nn.Sequential(nn.LazyLinear(3)), "not initialised"),
    ],
)
def test_what_has_no_constant_is_refused_by_name(network, reason):
    with pytest.raises(CertificateError, match=reason):
        lipschitz_certificate(network, (3,))


def test_refusals_say_no_more_than_the_reason_and_the_remedy():
    with pytest.raises(CertificateError) as caught:
        lipschitz_certificate(nn.Sequential(nn.ReLU(), nn.Bilinear(2, 2, 2)), (3,))
    assert len(str(caught.value).splitlines()) == 1
    assert "'1' of type Bilinear" in str(caught.value)
    assert "register_lipschitz(Bilinear, rule)" in str(caught.value)


def test_subclasses_inherit_the_rule_only_with_the_forward():
    class Renamed(nn.Linear):
        pass

    assert float(lipschitz_certificate(nn.Sequential(Renamed(3, 3)), (3,))) > 0
    # The overridden one is looked into, not taken for a plain dense layer.
    layer = Doubled(3, 3)
    assert float(lipschitz_certificate(nn.Sequential(layer), (3,))) == pytest.approx(
        2 * norm_of(layer)
    )


def test_hooks_are_refused():
    network = nn.Sequential(linear())
    network[0].register_forward_hook(lambda module, inputs, output: 10 * output)
    with pytest.raises(CertificateError, match="hooks"):
        lipschitz_certificate(network, (3,))


def test_wrong_shapes_and_arguments():
    with pytest.raises(CertificateError, match=r"input_shape=\(4,\)"):
        lipschitz_certificate(nn.Sequential(linear()), (4,))
    with pytest.raises(ValueError, match="input_shape"):
        lipschitz_certificate(linear(), (0,))
    with pytest.raises(ValueError, match="method"):
        lipschitz_certificate(linear(), (3,), method="fast")
    with pytest.raises(TypeError, match="module_"):
        lipschitz_certificate("network", (3,))


def test_registered_rules_are_used_and_checked():
    class Square(nn.Module):
        def forward(self, inputs):
            return inputs.clamp(-1, 1) ** 2

    with pytest.raises(CertificateError, match="pow"):
        lipschitz_certificate(Square(), (3,))

    def square_constant(module, input_shape):
        """Twice the largest entry."""
        return 2.0

    register_lipschitz(Square, square_constant)
    certificate = lipschitz_certificate(nn.Sequential(Square()), (3,))
    assert float(certificate) == 2.0
    assert certificate.rules[0].rule == "Twice the largest entry"
    register_lipschitz(Square, lambda module, input_shape: -1.0)
    with pytest.raises(CertificateError, match="returned -1"):
        lipschitz_certificate(nn.Sequential(Square()), (3,))
    for wrong in (None, "2", math.nan, math.inf):
        register_lipschitz(Square, lambda module, input_shape, wrong=wrong: wrong)
        with pytest.raises(CertificateError, match=f"layer '0' of type Square returned {wrong!r}"):
            lipschitz_certificate(nn.Sequential(Square()), (3,))
    with pytest.raises(TypeError, match="subclass"):
        register_lipschitz(Square(), square_constant)
    with pytest.raises(TypeError, match="callable"):
        register_lipschitz(Square, 2.0)
