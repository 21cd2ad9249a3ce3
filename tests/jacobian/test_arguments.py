"""Arguments that do not fit are named, with their value and the remedy."""

import numpy as np
import pytest
import torch
from torch import nn

from sharpfit.jacobian import (
    certified_radii,
    jacobian_norms,
    layer_jacobians,
    layer_norms,
    lipschitz_certificate,
    local_variation,
    margin_gradients,
    slope_bound,
    slopes,
)
from sharpfit.objective import as_sample_loss
from tests.curvature.reference import Doubled


def _network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))


INPUTS = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
CLASSES = torch.arange(20) % 3


class TwoInputs(nn.Module):
    def forward(self, x, y):
        return x + y


@pytest.mark.parametrize(
    "function", [jacobian_norms, margin_gradients, layer_norms, layer_jacobians, local_variation]
)
def test_networks_that_do_not_run_on_the_inputs(function):
    refusal = r"run on rows of shape \(6,\) and dtype torch.float32 \(mat1"
    with pytest.raises(ValueError, match=refusal):
        function(_network(), torch.zeros(4, 6))
    image = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"rows of shape \(27,\) .*give rows as the network takes"):
        function(image, torch.zeros(4, 27))
    with pytest.raises(ValueError, match=r"required positional argument: 'y'.*in one tensor"):
        function(TwoInputs(), INPUTS)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (CLASSES + 1, "class 3 is out of range"),
        (CLASSES - 1, "class -1 is out of range"),
        (CLASSES.float(), r"dtype torch.float32 and shape \(20,\) do not fit CrossEntropy"),
        (torch.zeros(20, 4), "of 3 outputs"),
    ],
)
def test_targets_that_the_loss_does_not_take(targets, message):
    loss = nn.CrossEntropyLoss()
    with pytest.raises(ValueError, match=message):
        jacobian_norms(_network(), INPUTS, output="loss", loss=loss, targets=targets)
    with pytest.raises(ValueError, match=message):
        slope_bound(loss, torch.ones(20), targets, INPUTS, n_outputs=3)


def test_criteria_are_losses_and_other_things_are_not():
    network, criterion = _network(), nn.CrossEntropyLoss(label_smoothing=0.1)
    found = jacobian_norms(network, INPUTS, output="loss", loss=criterion, targets=CLASSES)
    loss = as_sample_loss(criterion)
    expected = jacobian_norms(network, INPUTS, output="loss", loss=loss, targets=CLASSES)
    np.testing.assert_array_equal(found.spectral, expected.spectral)
    losses = loss.values(network(INPUTS), CLASSES)
    bounds = [slope_bound(each, losses, CLASSES, INPUTS, n_outputs=3) for each in (criterion, loss)]
    assert bounds[0] == bounds[1]
    with pytest.raises(TypeError, match="criterion must be"):
        jacobian_norms(network, INPUTS, output="loss", loss="mse", targets=CLASSES)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: jacobian_norms(_network(), INPUTS, tol="small"), ValueError, "tol must be"),
        (
            lambda: jacobian_norms(_network(), INPUTS, margins=True, targets=CLASSES - 1),
            ValueError,
            "from 0 to 2, got -1 to 1; encode",
        ),
        (
            lambda: margin_gradients(_network(), INPUTS, targets=CLASSES.numpy()),
            TypeError,
            r"torch.as_tensor\(targets\)",
        ),
        (
            lambda: layer_jacobians(_network(), INPUTS, memory_budget="1GB"),
            ValueError,
            "memory_budget must be a positive number, in bytes, got '1GB'",
        ),
        (lambda: local_variation(_network(), INPUTS, n_neighbours=1.5), ValueError, "got 1.5"),
        (lambda: local_variation(_network(), INPUTS, n_steps="3"), ValueError, "n_steps"),
        (lambda: local_variation(_network(), INPUTS, radius=[1]), ValueError, "radius must be"),
        (lambda: local_variation(_network(), INPUTS, tol=-1), ValueError, "tol must be"),
        (
            lambda: local_variation(_network(), INPUTS, max_products=0, method="krylov"),
            ValueError,
            "max_products must be an int of at least 1, got 0",
        ),
        (lambda: slopes(np.ones(20), INPUTS, n_neighbours=2.5), ValueError, "got 2.5"),
        (lambda: slopes(["a"] * 20, INPUTS), ValueError, "values must be an array of numbers"),
        (lambda: slopes([[1, 2], [3]], INPUTS[:2]), ValueError, "values must be an array"),
        (
            lambda: slope_bound(nn.MSELoss(), np.ones(20), CLASSES, INPUTS, n_outputs=1),
            TypeError,
            r"torch.as_tensor\(losses\)",
        ),
        (lambda: lipschitz_certificate(_network(), 5.0), TypeError, "input_shape of type float"),
        (lambda: lipschitz_certificate(_network(), INPUTS), TypeError, "of type Tensor"),
        (
            lambda: certified_radii(_network(), INPUTS.numpy(), CLASSES),
            TypeError,
            r"torch.as_tensor\(inputs\)",
        ),
        (
            lambda: certified_radii(_network(), INPUTS * torch.nan, CLASSES),
            ValueError,
            "inputs contain NaN",
        ),
        (
            lambda: certified_radii(_network(), INPUTS, np.array(["a"] * 20)),
            ValueError,
            "labels must be integers",
        ),
    ],
)
def test_other_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_operations_that_differentiate_once():
    layer = Doubled(5, 3)
    exact = jacobian_norms(layer, INPUTS, method="exact").spectral
    expected = 2 * float(torch.linalg.matrix_norm(layer.weight.detach(), 2))
    np.testing.assert_allclose(exact, expected, rtol=1e-4)
    with pytest.raises(ValueError, match="module Doubled uses an operation that PyTorch differ"):
        jacobian_norms(layer, INPUTS, method="krylov")
