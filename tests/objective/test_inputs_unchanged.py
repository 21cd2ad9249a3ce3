"""Networks that write into what they are given: right numbers, and rows that stay as they are."""

import numpy as np
import pytest
import torch
from torch import nn

from sharpfit import (
    GeneralisationBound,
    HessianSpectrum,
    JacobianProfiler,
    NetworkClassifier,
    SharpnessMonitor,
    selection_scorer,
)
from sharpfit.curvature import HessianOperator
from sharpfit.jacobian import jacobian_norms


class WritesIntoRows(nn.Module):
    """Doubles its input in place without a layer."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(6, 3)

    def forward(self, inputs):
        inputs *= 2
        return self.dense(inputs)


class Doubles(WritesIntoRows):
    def forward(self, inputs):
        return self.dense(2 * inputs)


def network(in_place, by_layer):
    torch.manual_seed(0)
    if by_layer:
        return nn.Sequential(nn.ReLU(inplace=in_place), nn.Linear(6, 3))
    return WritesIntoRows() if in_place else Doubles()


def rows():
    torch.manual_seed(1)
    return torch.randn(20, 6), torch.randint(0, 3, (20,))


@pytest.mark.parametrize("by_layer", [True, False])
@pytest.mark.parametrize("route", ["auto", "graph", "traced"])
def test_curvature(by_layer, route):
    inputs, targets = rows()
    kept = inputs.clone()
    plain, writing = (
        HessianOperator(
            network(in_place, by_layer), nn.CrossEntropyLoss(), inputs, targets, route=route
        ).to_dense()
        for in_place in (False, True)
    )
    assert torch.allclose(writing, plain, atol=1e-6)
    assert plain.abs().max() > 1e-2
    assert torch.equal(inputs, kept)


def test_jacobian():
    inputs, _ = rows()
    kept = inputs.clone()
    module = network(True, by_layer=False)
    expected = 2 * np.linalg.norm(module.dense.weight.detach().double().numpy(), 2)
    assert jacobian_norms(module, inputs).spectral == pytest.approx(np.full(20, expected), rel=1e-3)
    assert torch.equal(inputs, kept)


@pytest.mark.parametrize("by_layer", [True, False])
def test_training_and_analysis(by_layer):
    inputs, targets = (rows.numpy() for rows in rows())
    kept = inputs.copy()

    def fitted(in_place):
        return NetworkClassifier(
            module=network(in_place, by_layer),
            max_epochs=3,
            verbose=0,
            random_state=0,
            callbacks=[("monitor", SharpnessMonitor(every=1))],
        ).fit(inputs, targets)

    plain, writing = fitted(False), fitted(True)
    assert np.array_equal(writing.predict_proba(inputs), plain.predict_proba(inputs))
    assert [row.get("sharpness") for row in writing.history] == pytest.approx(
        [row.get("sharpness") for row in plain.history], rel=1e-5
    )
    assert selection_scorer(writing, inputs, targets) == selection_scorer(plain, inputs, targets)
    for analyser in (HessianSpectrum, JacobianProfiler, GeneralisationBound):
        if by_layer or analyser is not GeneralisationBound:
            analyser(writing).fit(inputs, targets)
    assert np.array_equal(inputs, kept)
