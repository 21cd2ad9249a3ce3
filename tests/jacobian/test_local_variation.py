"""Local variation against functions whose Jacobian is known everywhere."""

import numpy as np
import pytest
import torch
from torch import nn

from sharpfit.jacobian import jacobian_norms, local_variation


class Square(nn.Module):
    """f(x) = x_1^2 + x_2^2: gradient 2x, which changes at rate 2 in every direction."""

    def forward(self, x):
        return x.square().sum(dim=1, keepdim=True)


def _inputs(n=12, d=2, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_quadratic_function_has_a_known_rate():
    inputs = _inputs()
    found = local_variation(Square(), inputs, radius=0.5, batch_size=5)
    np.testing.assert_allclose(found.at_samples, 2 * inputs.norm(dim=1))
    np.testing.assert_allclose(found.segment_rate, 2.0)
    np.testing.assert_allclose(found.ball_rate, 2.0)
    np.testing.assert_allclose(found.ball_change, 1.0)
    np.testing.assert_array_equal(found.radius, 0.5)


def test_segments_are_those_to_the_nearest_neighbours():
    inputs = torch.tensor([[0.0], [1.0], [10.0]], dtype=torch.float64)
    found = local_variation(Square(), inputs, n_neighbours=1, n_steps=3)
    # Inner points at a quarter, a half and three quarters of each segment.
    np.testing.assert_allclose(found.on_segments, [1.5, 1.5, 15.5])
    np.testing.assert_allclose(found.segment_change, [1.5, 1.5, 13.5])
    np.testing.assert_allclose(found.radius, [0.5, 0.5, 4.5])
    np.testing.assert_allclose(found.in_balls[0], 1.0)


def test_steep_step_between_flat_samples_shows_as_excess():
    net = nn.Sequential(nn.Linear(1, 1), nn.Tanh(), nn.Linear(1, 1)).double()
    net[0].weight.data.fill_(20.0)
    net[0].bias.data.zero_()
    inputs = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    assert local_variation(net, inputs, n_neighbours=1).excess > 1e6


def test_duplicates_are_no_neighbours():
    inputs = torch.tensor([[0.0], [0.0], [1.0]], dtype=torch.float64)
    found = local_variation(Square(), inputs, n_neighbours=2)
    assert np.all(found.radius == 0.5)
    assert np.all(np.isfinite(found.segment_rate))
    with pytest.raises(ValueError, match="all rows of inputs are equal"):
        local_variation(Square(), torch.ones(3, 1))


@pytest.mark.parametrize("output", ["logits", "probabilities"])
def test_iterated_norms_agree_with_exact_ones(output):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    inputs = _inputs(d=6)
    exact = local_variation(net, inputs, output=output)
    iterated = local_variation(net, inputs, output=output, tol=1e-9, method="krylov")
    norms = jacobian_norms(net, inputs, output=output)
    np.testing.assert_allclose(exact.at_samples, norms.spectral, rtol=1e-10)
    np.testing.assert_allclose(iterated.at_samples, norms.spectral, rtol=1e-7)
    np.testing.assert_allclose(iterated.segment_change, exact.segment_change, rtol=1e-7)
    np.testing.assert_allclose(iterated.on_segments, exact.on_segments, rtol=1e-7)


def test_result_is_repeatable_and_leaves_the_generator_alone():
    inputs, state = _inputs(), torch.get_rng_state()
    first = local_variation(Square(), inputs, random_state=1)
    again = local_variation(Square(), inputs, random_state=1)
    np.testing.assert_array_equal(first.in_balls, again.in_balls)
    other = local_variation(Square(), inputs, random_state=2)
    assert not np.array_equal(first.in_balls, other.in_balls)
    assert torch.equal(state, torch.get_rng_state())


def test_network_without_slope_anywhere():
    flat = nn.Linear(2, 1).double()
    flat.weight.data.zero_()
    assert local_variation(flat, _inputs()).excess == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output": "loss"}, "output must be"),
        ({"n_neighbours": 0}, "n_neighbours must be"),
        ({"n_steps": 0}, "n_steps must be"),
        ({"n_directions": 0}, "n_directions must be"),
        ({"radius": 0.0}, "radius must be"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        local_variation(Square(), _inputs(), **arguments)
