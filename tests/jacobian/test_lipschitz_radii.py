"""Certified radii against closed forms and adversarial searches inside the balls."""

import copy
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sharpfit.jacobian import certified_radii, lipschitz_certificate
from sharpfit.jacobian.lipschitz.activations import slope_interval
from sharpfit.jacobian.lipschitz.chain import AffineMap, Stage, dense_chain
from sharpfit.jacobian.lipschitz.graph import LipschitzInterpreter, trace
from sharpfit.jacobian.lipschitz.linear_bounds import Ball, lowest_margins
from sharpfit.jacobian.lipschitz.relaxation import lines_around

ACTIVATIONS = [
    nn.ReLU(),
    nn.LeakyReLU(0.2),
    nn.LeakyReLU(1.5),
    nn.Tanh(),
    nn.Sigmoid(),
    nn.Softplus(),
    nn.Softplus(beta=3.0),
    nn.GELU(),
    nn.SiLU(),
    nn.Hardswish(),
    nn.SELU(),
]


def randomise(network, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return network


def perceptron(*widths, activation=nn.ReLU, seed=0):
    layers = []
    for n_inputs, n_outputs in itertools.pairwise(widths):
        layers += [nn.Linear(n_inputs, n_outputs), activation()]
    return randomise(nn.Sequential(*layers[:-1]), seed)


def margins_of(logits, labels):
    if logits.shape[1] == 1:
        return logits[:, 0] * (2 * labels - 1)
    others = logits.scatter(1, labels[:, None], -math.inf)
    return logits.gather(1, labels[:, None])[:, 0] - others.amax(1)


def smallest_margins_found(network, inputs, labels, radii, seed=0):
    """Least margin found in every ball by projected gradient descent from random starts."""
    network = copy.deepcopy(network).double().eval()
    generator = torch.Generator().manual_seed(seed)
    inputs = inputs.double()
    column = radii.reshape(-1, *[1] * (inputs.ndim - 1))

    def project(steps):
        norms = steps.flatten(1).norm(dim=1).reshape(column.shape)
        return steps * (column / norms.clamp_min(1e-300)).clamp_max(1.0)

    least = margins_of(network(inputs), labels).detach()
    for _ in range(4):
        steps = project(torch.randn(inputs.shape, generator=generator).double() * column)
        for _ in range(15):
            steps.requires_grad_()
            margins = margins_of(network(inputs + steps), labels)
            least = torch.minimum(least, margins.detach())
            (gradient,) = torch.autograd.grad(margins.sum(), steps)
            size = gradient.flatten(1).norm(dim=1).reshape(column.shape).clamp_min(1e-300)
            steps = project((steps - 0.5 * column * gradient / size).detach())
    return least


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_lines_enclose_the_activation(activation):
    generator = torch.Generator().manual_seed(0)
    ends = 4 * torch.randn(300, 2, generator=generator, dtype=torch.float64)
    ends[:5] = torch.tensor([[0.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [3.0, 3.0], [-2.0, 2.0]])
    low, high = ends.amin(1)[:, None], ends.amax(1)[:, None]
    stage = Stage(AffineMap.identity(1), *slope_interval(activation), activation)
    lines = lines_around(stage, low, high)
    points = low + torch.linspace(0, 1, 201, dtype=torch.float64) * (high - low)
    values = activation(points)
    below = lines.lower_slopes * points + lines.lower_offsets
    above = lines.upper_slopes * points + lines.upper_offsets
    assert bool((below <= values + 1e-12).all())
    assert bool((above >= values - 1e-12).all())
    # The enclosure is not trivial: it closes on short intervals.
    gap = (above - below).amax(1)
    assert bool((gap <= 3 * (high - low)[:, 0] + 1e-9).all())


def test_linear_network_has_its_distance_to_the_boundary():
    network = randomise(nn.Sequential(nn.Flatten(), nn.Linear(6, 3))).double()
    inputs = torch.randn(20, 2, 3, generator=torch.Generator().manual_seed(1)).double()
    logits = network(inputs)
    weight = network[1].weight.detach()
    for label in range(3):
        labels = torch.full((20,), label)
        expected = torch.stack(
            [
                (logits[:, label] - logits[:, k]) / (weight[label] - weight[k]).norm()
                for k in range(3)
                if k != label
            ]
        ).amin(0)
        radii = certified_radii(network, inputs, labels)
        assert radii.dtype == torch.float64
        right = expected > 0
        assert bool((radii[~right] == 0.0).all())
        assert bool((radii <= expected.clamp_min(0.0)).all())
        assert torch.allclose(radii[right], expected[right], rtol=5e-3)


def test_targets_of_a_single_logit_and_channelwise_activations():
    network = perceptron(3, 6, 5, 1, seed=4)
    with torch.no_grad():
        slopes = torch.linspace(-0.3, 1.2, 6)
        network[1] = nn.PReLU(6)
        network[1].weight.copy_(slopes)
    inputs = torch.randn(20, 3, generator=torch.Generator().manual_seed(2))
    targets = (network(inputs) > 0).float()
    radii = certified_radii(network, inputs, targets)
    assert bool((radii > 0).all())
    assert torch.equal(radii, certified_radii(network, inputs, targets[:, 0].long()))
    found = smallest_margins_found(network, inputs, targets[:, 0].long(), radii)
    assert bool((found > 0).all())


def test_one_neuron_has_the_distance_to_its_kink():
    # f(x) = relu(x - 1) - 1/2 changes sign at 3/2; far below, the slope is zero.
    network = perceptron(1, 1, 1).double()
    with torch.no_grad():
        for layer, weight, bias in [(network[0], 1.0, -1.0), (network[2], 1.0, -0.5)]:
            layer.weight.fill_(weight)
            layer.bias.fill_(bias)
    inputs = torch.tensor([[2.0], [-9.0], [1.0], [2.0]]).double()
    radii = certified_radii(network, inputs, torch.tensor([1, 0, 0, 0]))
    assert torch.allclose(radii, torch.tensor([0.5, 10.5, 0.5, 0.0]).double(), rtol=5e-3)
    assert bool((radii <= torch.tensor([0.5, 10.5, 0.5, 0.0])).all())


def test_constant_network_is_safe_everywhere_or_nowhere():
    network = nn.Linear(2, 2)
    with torch.no_grad():
        network.weight.zero_()
        network.bias.copy_(torch.tensor([1.0, 0.0]))
    radii = certified_radii(network, torch.zeros(2, 2), torch.tensor([0, 1]))
    assert radii.tolist() == [math.inf, 0.0]


def test_radii_are_never_below_margin_over_constant_and_larger_on_a_trained_network():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 2, generator=generator)
    labels = (inputs[:, 0] * inputs[:, 1] > 0).long()
    network = perceptron(2, 16, 16, 2, seed=1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.4)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs), labels).backward()
        optimizer.step()
    radii = certified_radii(network, inputs, labels)
    constant = lipschitz_certificate(network, (2,)).margin_constant
    margins = margins_of(network.double()(inputs.double()), labels).detach()
    by_constant = margins.clamp_min(0.0) / constant
    assert bool((radii >= by_constant * (1 - 1e-9)).all())
    right = margins > 0
    assert right.float().mean() > 0.9
    assert float((radii[right] / by_constant[right]).median()) > 2
    # The true distance is at most that to the nearest input found on the other side.
    assert bool((smallest_margins_found(network, inputs, labels, radii)[right] > 0).all())
    assert bool((smallest_margins_found(network, inputs, labels, 3 * radii)[right] < 0).any())


def test_convolutional_body_enters_by_its_constant():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 6), nn.ReLU(),
        nn.Linear(6, 3),
    )  # fmt: skip
    inputs = torch.randn(12, 1, 6, 6)
    labels = network(inputs).argmax(1)
    before = copy.deepcopy(network.state_dict())
    radii = certified_radii(network, inputs, labels)
    assert bool((radii > 0).all())
    assert bool((smallest_margins_found(network, inputs, labels, radii) > 0).all())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([type(a) for a in ACTIVATIONS if not isinstance(a, nn.LeakyReLU)]),
    st.lists(st.integers(1, 5), min_size=2, max_size=4),
    st.integers(1, 4),
    st.integers(0, 10_000),
)
def test_no_input_within_a_radius_is_misclassified(activation, widths, n_outputs, seed):
    network = perceptron(*widths, n_outputs, activation=activation, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(16, widths[0], generator=generator)
    logits = network.double()(inputs.double())
    labels = (logits[:, 0] > 0).long() if n_outputs == 1 else logits.argmax(1)
    radii = certified_radii(network, inputs, labels)
    finite = torch.where(torch.isfinite(radii), radii, 1e3)
    found = smallest_margins_found(network, inputs, labels, finite, seed)
    assert bool((found[radii > 0] > 0).all())


def test_lowest_margins_bound_sampled_margins_and_shrink_with_the_ball():
    network = perceptron(3, 8, 6, 3, activation=nn.Tanh, seed=2).double()
    interpreter = LipschitzInterpreter(trace(network), (3,))
    interpreter.bound()
    chain = dense_chain(interpreter)
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(10, 3, generator=generator).double()
    labels = torch.arange(10) % 3
    previous = torch.full((10,), math.inf)
    for radius in (0.0, 0.01, 0.1, 1.0):
        bounds = lowest_margins(chain, labels, Ball(centres, torch.full((10,), radius).double()))
        steps = torch.randn(500, 10, 3, generator=generator).double()
        steps = radius * steps / steps.norm(dim=2, keepdim=True)
        sampled = margins_of(network((centres + steps).flatten(0, 1)), labels.repeat(500))
        assert bool((bounds <= sampled.reshape(500, 10).amin(0)).all())
        assert bool((bounds <= previous).all())
        previous = bounds
    exact = margins_of(network(centres), labels)
    at_centre = lowest_margins(chain, labels, Ball(centres, torch.zeros(10).double()))
    assert torch.allclose(at_centre, exact, atol=1e-9)


def test_wrong_arguments_are_named():
    network = perceptron(2, 3, 2)
    inputs = torch.zeros(3, 2)
    with pytest.raises(TypeError, match="module"):
        certified_radii("network", inputs, torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="3 integers"):
        certified_radii(network, inputs, torch.full((3,), 0.5))
    with pytest.raises(ValueError, match="3 integers"):
        certified_radii(network, inputs, torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match=r"0 \.\. 1"):
        certified_radii(network, inputs, torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match="one row or more"):
        certified_radii(network, inputs[:0], torch.zeros(0, dtype=torch.long))
    with pytest.raises(ValueError, match="n_outputs"):
        certified_radii(nn.Conv1d(1, 1, 1), torch.zeros(1, 1, 2), torch.tensor([0]))
