"""Requests that would give wrong numbers, and modes of torch that would change them."""

import numpy as np
import pytest
import torch
from torch import nn

from sharpfit.jacobian import jacobian_norms, layer_norms, local_variation, margin_gradients

INPUTS = torch.randn(4, 1, 5, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=["dense", "convolutional"])
def net(request):
    torch.manual_seed(0)
    if request.param == "dense":
        return nn.Sequential(nn.Flatten(), nn.Linear(25, 6), nn.Tanh(), nn.Linear(6, 3))
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(18, 3))


@pytest.mark.parametrize(
    "mode",
    [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", dtype=torch.bfloat16)],
)
def test_modes_around_change_nothing(net, mode):
    def found():
        return (
            jacobian_norms(net, INPUTS).spectral,
            jacobian_norms(net, INPUTS, method="krylov").spectral,
            layer_norms(net, INPUTS).norms,
            local_variation(net, INPUTS).on_segments,
            margin_gradients(net, INPUTS)[1].numpy(),
        )

    outside = found()
    with mode():
        inside = found()
    for one, other in zip(outside, inside, strict=True):
        assert other.any()
        np.testing.assert_array_equal(one, other)


def test_tensors_of_inference_mode_are_refused(net):
    with torch.inference_mode():
        inputs = INPUTS.clone()
        with pytest.raises(ValueError, match="inference_mode"):
            jacobian_norms(net, inputs)
    np.testing.assert_array_equal(
        jacobian_norms(net, inputs.clone()).spectral, jacobian_norms(net, INPUTS).spectral
    )


def test_rows_that_depend_on_each_other_are_refused():
    mixing = nn.Sequential(
        nn.Flatten(), nn.Linear(25, 3), nn.BatchNorm1d(3, track_running_stats=False)
    )
    with pytest.raises(ValueError, match="'2' normalises by the statistics of the batch"):
        jacobian_norms(mixing, INPUTS)


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        ([0, 1, 2, 0], TypeError, "must be a tensor, got list"),
        (np.zeros(4, dtype=int), TypeError, "must be a tensor, got ndarray"),
        (torch.tensor([0, 1, 2, 3]), ValueError, "from 0 to 2"),
        (torch.tensor([0, 1, 2, -1]), ValueError, "from 0 to 2"),
        (torch.zeros(3, dtype=torch.int64), ValueError, "3 rows, inputs has 4"),
        (torch.zeros(4), ValueError, "class numbers"),
    ],
)
def test_targets_are_class_numbers(net, targets, error, message):
    with pytest.raises(error, match=message):
        margin_gradients(net, INPUTS, targets=targets)
    with pytest.raises(error, match=message):
        jacobian_norms(net, INPUTS, targets=targets, margins=True)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"random_state": None}, TypeError, "random_state must be an int, got None"),
        ({"memory_budget": 0}, ValueError, "memory_budget must be a positive number"),
        ({"batch_size": 1.5}, ValueError, "batch_size must be a positive int"),
    ],
)
def test_settings_are_checked(net, settings, error, message):
    for function in (jacobian_norms, local_variation, layer_norms):
        with pytest.raises(error, match=message):
            function(net, INPUTS, **settings)


def test_numpy_integers_are_integers(net):
    found = jacobian_norms(net, INPUTS, batch_size=np.int64(3), random_state=np.int64(0))
    np.testing.assert_allclose(found.spectral, jacobian_norms(net, INPUTS).spectral, rtol=1e-6)
