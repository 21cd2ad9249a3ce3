"""Networks whose Jacobians take different routes, and their Jacobians by plain reverse mode."""

import torch
from torch import nn


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(5, 5)
        self.activation = nn.Tanh()
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return self.head(x + self.activation(self.first(x)))


class HiddenInPlaceOperation(nn.Module):
    """Looks like a chain of layers, but doubles a tensor between two of them."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(5, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.first(x).mul_(2.0))


class HiddenScale(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return 3 * self.head(x)


def networks():
    torch.manual_seed(0)
    normalised = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    normalised(torch.randn(50, 5))
    flat, image = (5,), (1, 8, 8)
    return {
        "tanh": (nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)), flat),
        "in-place relu": (
            nn.Sequential(nn.Linear(5, 8), nn.ReLU(inplace=True), nn.Linear(8, 3)),
            flat,
        ),
        "in-place elu": (
            nn.Sequential(nn.Linear(5, 8), nn.ELU(inplace=True), nn.Linear(8, 3)),
            flat,
        ),
        "two activations": (
            nn.Sequential(nn.Linear(5, 8), nn.PReLU(), nn.SiLU(), nn.Linear(8, 3), nn.Sigmoid()),
            flat,
        ),
        "dropout": (nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.5), nn.Linear(8, 3)), flat),
        "batch norm": (normalised, flat),
        "batch norm first": (nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 3)), flat),
        "residual": (Residual(), flat),
        "hidden in-place": (HiddenInPlaceOperation(), flat),
        "hidden scale": (HiddenScale(), flat),
        "more outputs than inputs": (
            nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.Linear(8, 9)),
            flat,
        ),
        "one logit": (nn.Sequential(nn.Linear(5, 8), nn.ELU(), nn.Linear(8, 1)), flat),
        "flattened image": (nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), image),
        "convolutional": (
            nn.Sequential(
                nn.Conv2d(1, 4, 3),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Flatten(),
                nn.Linear(36, 4),
            ),
            image,
        ),
    }


def case(name, dtype=torch.float64):
    net, shape = networks()[name]
    inputs = torch.randn(7, *shape, generator=torch.Generator().manual_seed(1))
    return net.to(dtype).eval(), inputs.to(dtype)


def dense_jacobians(function, inputs):
    """Jacobians by plain reverse mode, one row of inputs and one output at a time."""
    jacobians = []
    for row in inputs:
        row = row.clone().requires_grad_()
        outputs = function(row.unsqueeze(0))[0]
        gradients = [torch.autograd.grad(z, row, retain_graph=True)[0] for z in outputs]
        jacobians.append(torch.stack([gradient.flatten() for gradient in gradients]))
    return torch.stack(jacobians).numpy()
