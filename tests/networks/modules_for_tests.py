"""Modules as users write them."""

import torch
from torch import nn


class Plain(nn.Module):
    def __init__(self, d=4, k=3, width=8):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(d, width), nn.Tanh(), nn.Linear(width, k))

    def forward(self, X):
        return self.layers(X)


class Probabilities(Plain):
    def forward(self, X):
        return torch.softmax(super().forward(X), dim=-1)


class Flat(Plain):
    """One output per row, as a vector."""

    def __init__(self, d=4):
        super().__init__(d, 1)

    def forward(self, X):
        return super().forward(X).squeeze(-1)


class Normalised(nn.Module):
    def __init__(self, d=4, k=3):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(d, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, k))

    def forward(self, X):
        return self.layers(X)


class Convolutional(nn.Module):
    def __init__(self, channels=1, k=3):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        )
        self.head = nn.Linear(16, k)

    def forward(self, X):
        return self.head(self.layers(X))


class Double(Plain):
    def __init__(self, d=4, k=3, width=8):
        super().__init__(d, k, width)
        self.double()


class Lazy(nn.Module):
    def __init__(self, k=3):
        super().__init__()
        self.layers = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(k))

    def forward(self, X):
        return self.layers(X)


class DropsInputs(nn.Module):
    def __init__(self, d=4, k=3):
        super().__init__()
        self.layers = nn.Sequential(nn.Dropout(0.3), nn.Linear(d, k))

    def forward(self, X):
        return self.layers(X)


class TwoOutputs(Plain):
    def forward(self, X):
        logits = super().forward(X)
        return logits, logits
