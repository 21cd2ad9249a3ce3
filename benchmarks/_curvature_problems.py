"""The networks and rows that curvature is timed on."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy, interpolate


def mlp(activation=nn.ReLU):
    return nn.Sequential(
        *(nn.Linear(64, 128), activation(), nn.Linear(128, 128), activation()),
        nn.Linear(128, 10),
    )


def cnn():
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(1568, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


class Block(nn.Module):
    def __init__(self, width, following, stride):
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(width, following, 3, stride, 1, bias=False), nn.BatchNorm2d(following)),
            nn.ReLU(),
            *(nn.Conv2d(following, following, 3, 1, 1, bias=False), nn.BatchNorm2d(following)),
        )
        self.skip = nn.Identity()
        if stride != 1 or width != following:
            self.skip = nn.Sequential(
                nn.Conv2d(width, following, 1, stride, bias=False), nn.BatchNorm2d(following)
            )

    def forward(self, inputs):
        return torch.relu(self.body(inputs) + self.skip(inputs))


def resnet18(width=64):
    layers = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    current = width
    for factor, stride in ((1, 1), (1, 1), (2, 2), (2, 1), (4, 2), (4, 1), (8, 2), (8, 1)):
        layers.append(Block(current, factor * width, stride))
        current = factor * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(current, 10))


def problem(name, steps=None):
    """Return a briefly trained network and its rows."""
    torch.manual_seed(0)
    digits = load_digits()
    inputs = torch.tensor(digits.data, dtype=torch.float32) / 16
    targets = torch.tensor(digits.target)
    if name in ("mlp", "smooth"):
        module = mlp(nn.ReLU if name == "mlp" else nn.Tanh)
        inputs, targets = inputs[:1437], targets[:1437]
    elif name == "cnn":
        images = inputs[:1024].view(-1, 1, 8, 8)
        module, inputs, targets = cnn(), interpolate(images, 28, mode="bilinear"), targets[:1024]
    else:
        module = resnet18()
        inputs, targets = torch.randn(64, 3, 32, 32), torch.randint(0, 10, (64,))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    if steps is None:
        steps = 3 if name == "resnet" else 40
    for _ in range(steps):
        optimizer.zero_grad()
        cross_entropy(module(inputs), targets).backward()
        optimizer.step()
    return module.eval(), inputs, targets


def batched(inputs, targets, size):
    return list(zip(inputs.split(size), targets.split(size), strict=True))
