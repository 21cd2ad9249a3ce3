"""Searches for inputs that violate a certificate."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sharpfit.jacobian import (
    lipschitz_certificate,
)

# torch says once per process that it copies the input.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")


CHANNELS = 4
ACTIVATIONS = st.sampled_from(
    [nn.ReLU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.SELU, nn.Tanh, nn.Softplus, nn.ELU]
)


class Residual(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, inputs):
        return inputs + self.layer(inputs)


class Branches(nn.Module):
    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second
        self.join = nn.Conv1d(2 * CHANNELS, CHANNELS, 1)

    def forward(self, inputs):
        return self.join(torch.cat([self.first(inputs), self.second(inputs)], dim=1))


@st.composite
def layers(draw):
    """A layer that keeps four channels, of a sequence of any length."""
    kind = draw(st.sampled_from(["convolution", "activation", "pool", "norm", "residual", "cat"]))
    if kind == "convolution":
        dilation = draw(st.integers(1, 2))
        kernel = draw(st.integers(1, 3))
        mode = draw(st.sampled_from(["zeros", "circular", "reflect", "replicate"]))
        return nn.Conv1d(
            CHANNELS, CHANNELS, kernel, padding="same", dilation=dilation,
            groups=draw(st.sampled_from([1, 2])), padding_mode=mode,
        )  # fmt: skip
    if kind == "activation":
        return draw(ACTIVATIONS)()
    if kind == "pool":
        return draw(st.sampled_from([nn.MaxPool1d(3, 1, 1), nn.AvgPool1d(3, 1, 1)]))
    if kind == "norm":
        return draw(st.sampled_from([nn.BatchNorm1d(CHANNELS), nn.GroupNorm(2, CHANNELS, 0.1)]))
    if kind == "residual":
        return Residual(draw(layers()))
    return Branches(draw(layers()), draw(layers()))


def steepest_slope(network, shape, output, seed):
    """Largest slope of an output found by following the gradient of the slope."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(64, *shape, generator=generator, dtype=torch.float64)
    points *= torch.logspace(-2, 1, 64, dtype=torch.float64).reshape(-1, *[1] * len(shape))
    others = points + torch.randn(points.shape, generator=generator, dtype=torch.float64)
    largest = 0.0
    for _ in range(12):
        points.requires_grad_()
        others.requires_grad_()
        rise = (output(network(points)) - output(network(others))).flatten(1).norm(dim=1)
        slopes = rise / (points - others).flatten(1).norm(dim=1)
        largest = max(largest, float(slopes.detach().max()))
        gradients = torch.autograd.grad(slopes.sum(), (points, others))
        with torch.no_grad():
            points, others = (
                point.detach() + 0.1 * gradient / (gradient.norm() / 8 + 1e-12)
                for point, gradient in zip((points, others), gradients, strict=True)
            )
    return largest


@settings(max_examples=25, deadline=None)
@given(st.lists(layers(), min_size=1, max_size=4), st.integers(0, 10_000))
def test_no_input_violates_a_certificate(body, seed):
    network = nn.Sequential(*body, nn.Flatten(), nn.Linear(CHANNELS * 6, 3)).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        for name, buffer in network.named_buffers():
            if name.endswith("running_var"):
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.1)
    certificate = lipschitz_certificate(network, (CHANNELS, 6))
    slope = steepest_slope(network, (CHANNELS, 6), lambda z: z, seed)
    assert slope <= float(certificate)
    for label in range(3):

        def margin(z, label=label):
            rest = [k for k in range(3) if k != label]
            return z[:, [label]] - z[:, rest].amax(1, keepdim=True)

        margin_slope = steepest_slope(network, (CHANNELS, 6), margin, seed)
        assert margin_slope <= certificate.margin_constant
