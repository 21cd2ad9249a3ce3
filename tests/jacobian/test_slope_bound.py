"""The bound from the losses against its definition and against functions with known constants."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from torch import nn

from sharpfit.jacobian import UnboundedLossError, slope_bound, slopes
from sharpfit.objective import as_sample_loss


def _bound(criterion, outputs, targets, inputs, **settings):
    loss = as_sample_loss(criterion)
    losses = loss.values(outputs, targets)
    return slope_bound(loss, losses, targets, inputs, n_outputs=outputs.shape[1], **settings)


def _by_definition(targets, radii, inputs):
    gaps = cdist(targets, targets) - radii[:, None] - radii
    distances = cdist(inputs, inputs) + np.diag(np.full(len(inputs), np.inf))
    return max(0.0, (gaps / distances).max())


CASES = {
    "cross-entropy": nn.CrossEntropyLoss(),
    "class weights": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 5.0]).double()),
    "label smoothing": nn.CrossEntropyLoss(label_smoothing=0.2),
    "soft targets": nn.CrossEntropyLoss(),
    "mean squared": nn.MSELoss(),
    "summed squared": nn.MSELoss(reduction="sum"),
    "logistic": nn.BCEWithLogitsLoss(),
    "weighted logistic": nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0)),
}


def _sample(name, seed, sharpness):
    """Outputs that fit their targets, the better the larger `sharpness`."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(60, 2))
    noise = torch.as_tensor(rng.normal(size=(60, 3)))
    if "logistic" in name:
        targets = torch.as_tensor(rng.integers(2, size=60))
        outputs = noise[:, :1] + sharpness * (2 * targets.unsqueeze(1) - 1)
        return inputs, outputs, targets, torch.sigmoid(outputs)
    if "squared" in name:
        targets = torch.as_tensor(rng.normal(size=(60, 3)))
        outputs = targets + noise / sharpness
        return inputs, outputs, targets, outputs
    classes = torch.as_tensor(rng.integers(3, size=60))
    hot = nn.functional.one_hot(classes, 3).double()
    outputs = noise + sharpness * hot
    targets = 0.9 * hot + 0.1 / 3 if name == "soft targets" else classes
    return inputs, outputs, targets, outputs.softmax(dim=1)


@settings(max_examples=25, deadline=None)
@pytest.mark.parametrize("name", CASES)
@given(seed=st.integers(0, 2**32 - 1), sharpness=st.sampled_from([0.5, 3.0, 8.0]))
def test_bound_never_exceeds_the_slopes_it_bounds(name, seed, sharpness):
    inputs, outputs, targets, function = _sample(name, seed, sharpness)
    bound = _bound(CASES[name], outputs, targets, inputs)
    assert float(bound) <= slopes(function, inputs).largest * (1 + 1e-9)
    assert (bound.pair is None) == (float(bound) == 0.0)


@pytest.mark.parametrize("name", CASES)
def test_bound_follows_from_nearly_perfect_losses(name):
    """As losses vanish, the radii do and the bound becomes the slope of the targets."""
    inputs, outputs, targets, function = _sample(name, 0, 40.0)
    bound = _bound(CASES[name], outputs, targets, inputs)
    assert bound.function == ("predictions" if "squared" in name else "probabilities")
    if name in ("label smoothing", "soft targets"):
        perfect = {"label smoothing": (0.8, 0.2), "soft targets": (0.9, 0.1)}[name]
        own = targets if targets.ndim == 1 else targets.argmax(dim=1)
        target = perfect[0] * nn.functional.one_hot(own, 3).double() + perfect[1] / 3
        bound = _bound(CASES[name], target.log(), targets, inputs)
        assert float(bound) == pytest.approx(slopes(target, inputs).largest, rel=1e-6)
    elif "squared" in name:
        radii = np.linalg.norm((outputs - targets).numpy(), axis=1)
        assert float(bound) == pytest.approx(_by_definition(targets.numpy(), radii, inputs))
    else:
        assert float(bound) == pytest.approx(slopes(function, inputs).largest, rel=1e-6)


def test_neighbours_give_a_weaker_bound():
    inputs, outputs, targets, _ = _sample("cross-entropy", 0, 8.0)
    near = _bound(CASES["cross-entropy"], outputs, targets, inputs, n_neighbours=3)
    everywhere = _bound(CASES["cross-entropy"], outputs, targets, inputs)
    assert 0 < float(near) <= float(everywhere)


def test_losses_without_a_known_radius_are_refused():
    inputs, outputs, targets, _ = _sample("mean squared", 0, 3.0)
    with pytest.raises(UnboundedLossError, match="no bound is known"):
        _bound(nn.L1Loss(), outputs, targets, inputs)
    inputs, outputs, targets, _ = _sample("cross-entropy", 0, 3.0)
    both = nn.CrossEntropyLoss(weight=torch.ones(3).double(), label_smoothing=0.1)
    with pytest.raises(UnboundedLossError, match="class weights with soft targets"):
        _bound(both, outputs, targets, inputs)
    targets[0] = -100
    with pytest.raises(UnboundedLossError, match="ignore_index"):
        _bound(nn.CrossEntropyLoss(), outputs, targets, inputs)
    with pytest.raises(UnboundedLossError, match="for one logit"):
        _bound(nn.BCEWithLogitsLoss(), outputs, torch.ones(60, 3), inputs)
    with pytest.raises(UnboundedLossError, match="must be 0 or 1"):
        _bound(nn.BCEWithLogitsLoss(), outputs[:, :1], torch.full((60,), 0.5), inputs)
    with pytest.raises(ValueError, match="inputs 3 rows"):
        _bound(nn.MSELoss(), outputs, torch.zeros(60, 3), inputs[:3])
