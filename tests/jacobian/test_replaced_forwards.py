"""Layers whose forward was replaced on the instance compute something else than their type."""

import numpy as np
import pytest
import torch
from torch import nn

from sharpfit.jacobian import CertificateError, jacobian_norms, lipschitz_certificate


@pytest.mark.parametrize("layer", [nn.Linear(5, 4), nn.Conv2d(1, 1, 2), nn.BatchNorm2d(1)])
def test_layers_whose_own_forward_was_replaced_are_run_as_they_are(layer):
    inputs = torch.randn(3, 5) if isinstance(layer, nn.Linear) else torch.randn(3, 1, 2, 2)
    net = nn.Sequential(layer, nn.Flatten())
    before = jacobian_norms(net, inputs)
    layer.eval()
    forward = layer.forward
    layer.forward = lambda inputs: 100 * forward(inputs)
    after = jacobian_norms(net, inputs)
    np.testing.assert_allclose(after.spectral, 100 * before.spectral, rtol=1e-5)


def test_replaced_forwards_are_refused():
    network = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    network[1].forward = lambda inputs: 10 * inputs
    with pytest.raises(CertificateError, match=r"'1' of type ReLU was replaced"):
        lipschitz_certificate(network, (3,))
