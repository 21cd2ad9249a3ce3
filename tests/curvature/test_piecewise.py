"""Networks whose Hessian has the diagonal of its Gauss-Newton part, against dense derivatives."""

import pytest
import torch
from torch import nn

from sharpfit.curvature import GaussNewtonOperator, HessianOperator
from sharpfit.curvature.piecewise import is_piecewise_linear

LAYERS = {
    "unflatten": (16, [nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Flatten()]),
    "transposed convolution": (
        16, [nn.Unflatten(1, (4, 2, 2)), nn.ConvTranspose2d(4, 1, 2), nn.ReLU(), nn.Flatten()]
    ),
    "padding": (
        16,
        [nn.Unflatten(1, (1, 4, 4)), nn.ReflectionPad2d(1), nn.Conv2d(1, 1, 3), nn.Flatten()],
    ),
    "shuffled pixels": (
        16,
        [nn.Unflatten(1, (4, 2, 2)), nn.PixelShuffle(2), nn.Conv2d(1, 1, 3), nn.Flatten()],
    ),
    "larger images": (
        4, [nn.Unflatten(1, (1, 2, 2)), nn.Upsample(scale_factor=2), nn.Conv2d(1, 1, 3),
            nn.ReLU(), nn.Flatten()]
    ),
    "volumes": (
        64, [nn.Unflatten(1, (1, 4, 4, 4)), nn.Conv3d(1, 2, 2), nn.ReLU(), nn.MaxPool3d(2),
             nn.AdaptiveAvgPool3d(1), nn.Flatten()]
    ),
    "slope of its own": (6, [nn.Linear(6, 4), nn.PReLU()]),
    "pooling": (
        16, [nn.Unflatten(1, (1, 16)), nn.Conv1d(1, 2, 3), nn.LeakyReLU(), nn.AvgPool1d(2),
             nn.AdaptiveMaxPool1d(2), nn.Flatten()]
    ),
}  # fmt: skip
OTHERS = {
    "smooth": (6, [nn.Linear(6, 4), nn.Tanh()]),
    "normalised by the row": (6, [nn.Linear(6, 4), nn.LayerNorm(4)]),
}


def operators(n_inputs, layers):
    torch.manual_seed(0)
    rows = torch.randn(5, n_inputs, dtype=torch.float64)
    body = nn.Sequential(*layers).double()
    n_features = body(rows).shape[1]
    module = nn.Sequential(body, nn.Linear(n_features, 3).double()).eval()
    data = (module, nn.CrossEntropyLoss(), rows, torch.tensor([0, 1, 2, 0, 1]))
    return HessianOperator(*data), GaussNewtonOperator(*data)


@pytest.mark.parametrize("name", LAYERS)
def test_what_the_gauss_newton_matrix_leaves_has_no_diagonal(name):
    hessian, gauss_newton = operators(*LAYERS[name])
    assert is_piecewise_linear(hessian.network)
    residual = hessian.to_dense() - gauss_newton.to_dense()
    scale = residual.abs().max()
    assert scale > 1e-3  # so that it is no residual of zeros
    assert residual.diagonal().abs().max() <= 1e-12 * scale


@pytest.mark.parametrize("name", OTHERS)
def test_other_networks_are_told_apart(name):
    hessian, gauss_newton = operators(*OTHERS[name])
    assert not is_piecewise_linear(hessian.network)
    residual = hessian.to_dense() - gauss_newton.to_dense()
    assert residual.diagonal().abs().max() > 1e-6
