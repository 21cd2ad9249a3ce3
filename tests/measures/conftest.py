"""A small network, its rows and its module before training."""

import copy
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from sharpfit import NetworkClassifier
from sharpfit.bridge import as_problem
from sharpfit.measures import MEASURES, TrainedNetwork


class Measured(NamedTuple):
    """A trained network in float64 and what the measures say of it."""

    network: TrainedNetwork
    module: nn.Module
    inputs: torch.Tensor
    labels: torch.Tensor

    def __call__(self, name: str) -> float:
        return MEASURES[name].function(self.network)


@pytest.fixture(scope="session")
def measured():
    """Return a function that trains a network and measures it."""

    def train(module_class=None, X=None, y=None, **settings):
        rng = np.random.default_rng(1)
        if X is None:
            X = rng.normal(size=(48, 4))
            y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.7)
        if module_class is not None:
            settings["module"] = module_class
        estimator = NetworkClassifier(
            **({"max_epochs": 15, "lr": 0.1, "random_state": 0} | settings)
        ).fit(X, y)
        start = NetworkClassifier(**(settings | {"max_epochs": 0, "random_state": 0})).fit(X, y)
        network = TrainedNetwork(as_problem(estimator, X, y), copy.deepcopy(start.module_))
        return Measured(
            network, network.module, network.problem.inputs, torch.as_tensor(np.asarray(y))
        )

    return train
