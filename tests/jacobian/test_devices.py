"""Tensors are made where the inputs are; results do not depend on the device."""

import numpy as np
import pytest
import torch
from torch import nn

from sharpfit.jacobian import (
    certified_radii,
    empirical_margin_constant,
    jacobian_norms,
    layer_jacobians,
    layer_norms,
    lipschitz_certificate,
    local_variation,
    margin_gradients,
    slope_bound,
    slopes,
)

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.cuda,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
        ],
    ),
]


def _networks():
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 10))
    convolutional = nn.Sequential(
        nn.Unflatten(1, (3, 2, 2)),
        nn.Conv2d(3, 4, 2, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(4, 10),
    )
    return {"dense": dense.double().eval(), "convolutional": convolutional.double().eval()}


def _data(device):
    inputs = torch.randn(9, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return inputs.to(device), (torch.arange(9) % 10).to(device)


def _norms(**settings):
    def run(net, inputs, classes):
        found = jacobian_norms(net, inputs, targets=classes, **settings)
        return [value for value in vars(found).values() if isinstance(value, np.ndarray)]

    return run


def _layer_matrices(net, inputs, classes):
    found = layer_jacobians(net, inputs)
    assert {tensor.device for tensor in found.factors} == {inputs.device}
    return [tensor.cpu().numpy() for tensor in (*found.factors, found.product())]


def _margin_gradients(net, inputs, classes):
    found = margin_gradients(net, inputs, targets=classes)
    assert {tensor.device for tensor in found} == {inputs.device}
    return [tensor.cpu().numpy() for tensor in found]


def _between_rows(net, inputs, classes):
    outputs = net(inputs)
    losses = nn.functional.cross_entropy(outputs, classes, reduction="none")
    margins = outputs.max(dim=1).values
    return [
        slopes(outputs, inputs, targets=classes).per_sample,
        float(empirical_margin_constant(margins, classes, inputs, margins.abs())),
        float(slope_bound(nn.CrossEntropyLoss(), losses, classes, inputs, n_outputs=10)),
    ]


# On a GPU random numbers differ, so that only what does not depend on them is compared there.
EVERYWHERE = {
    "exact": _norms(margins=True),
    "probabilities": _norms(output="probabilities"),
    "krylov": _norms(margins="all", method="krylov", tol=1e-9),
    "loss": _norms(output="loss", loss=nn.CrossEntropyLoss(torch.ones(10))),
    "layer norms": lambda net, x, y: [layer_norms(net, x, tol=1e-9).norms],
    "layer jacobians": _layer_matrices,
    "margin gradients": _margin_gradients,
    "variation": lambda net, x, y: [local_variation(net, x).on_segments],
    "between rows": _between_rows,
    "certificate": lambda net, x, y: [float(lipschitz_certificate(net, 12))],
    "radii": lambda net, x, y: [certified_radii(net, x, y).numpy()],
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", _networks())
@pytest.mark.parametrize("what", EVERYWHERE)
def test_results_are_those_of_the_processor(what, name, device):
    net = _networks()[name]
    expected = EVERYWHERE[what](net, *_data("cpu"))
    found = EVERYWHERE[what](net.to(device), *_data(device))
    for value, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-6, atol=1e-9)


# Certificates are proved on the processor, and make their own tensors there.
@pytest.mark.parametrize("name", _networks())
@pytest.mark.parametrize("what", [w for w in EVERYWHERE if w not in ("certificate", "radii")])
def test_another_default_device_is_not_used(what, name):
    net, data = _networks()[name], _data("cpu")
    expected = EVERYWHERE[what](net, *data)
    with torch.device("meta"):  # a tensor that follows the default would have no values
        found = EVERYWHERE[what](net, *data)
    for value, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("function", [jacobian_norms, layer_norms, layer_jacobians])
def test_inputs_on_another_device_are_refused(function):
    net = _networks()["dense"].to("meta")
    with pytest.raises(ValueError, match="inputs are on cpu and the module's parameters on meta"):
        function(net, _data("cpu")[0])
