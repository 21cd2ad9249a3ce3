"""Networks of the tests of certificates."""

import torch
from torch import nn


def norm_of(layer):
    return float(torch.linalg.matrix_norm(layer.weight.detach().double(), 2))


class Function(nn.Module):
    """A network that is one expression of its layers."""

    def __init__(self, function, **layers):
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, inputs):
        return self.function(self, inputs)


def linear(n_inputs=3, n_outputs=3, seed=0):
    layer = nn.Linear(n_inputs, n_outputs)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(n_outputs, n_inputs, generator=generator))
    return layer
