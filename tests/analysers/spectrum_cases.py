"""Trained estimators with their losses written out, and dense matrices by finite differences."""

import copy

import numpy as np
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn
from torch.nn import functional

from sharpfit import NetworkClassifier, NetworkRegressor

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 4))
LABELS = np.array(["a", "b", "c"])[(X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5)]
CODES = np.unique(LABELS, return_inverse=True)[1]
BINARY = (X[:, 0] + X[:, 2] > 0).astype(float)
REAL = np.stack([X[:, 0] * X[:, 1], np.sin(X[:, 2])], axis=1)
IMAGES = RNG.normal(size=(20, 1, 6, 6))
CLASS_WEIGHT = {"a": 1.0, "b": 3.0, "c": 0.5}


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(48, 3)
        )

    def forward(self, images):
        return self.layers(images)


class Probabilities(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3), nn.Softmax(dim=1))

    def forward(self, rows):
        return self.layers(rows)


def skorch_net(kind, module, dtype=torch.float64, **settings):
    torch.manual_seed(0)
    defaults = {"train_split": None, "verbose": 0, "max_epochs": 3, "lr": 0.1}
    return kind(module.to(dtype), **(defaults | settings))


def network(kind=NetworkClassifier, **settings):
    return kind(
        **{
            "module__hidden": (5,),
            "module__activation": "tanh",
            "max_epochs": 3,
            "random_state": 0,
            **settings,
        }
    )


def weights_of(labels):
    return torch.as_tensor([CLASS_WEIGHT[label] for label in labels])


def weighted_mean(values, weights):
    return (values * weights).sum() / weights.sum()


def cross_entropy(outputs, codes):
    return -functional.log_softmax(outputs, dim=1)[range(len(codes)), codes]


# Name: fitted estimator, rows, targets, and the trained loss written out on the raw outputs.
CASES = {
    "cross-entropy": (
        lambda: network(),
        X,
        LABELS,
        lambda outputs: cross_entropy(outputs, CODES).mean(),
    ),
    "cross-entropy, sum": (
        lambda: network(criterion__reduction="sum", lr=1e-3),
        X,
        LABELS,
        lambda outputs: cross_entropy(outputs, CODES).sum(),
    ),
    "class weights": (
        lambda: network(class_weight=CLASS_WEIGHT),
        X,
        LABELS,
        lambda outputs: weighted_mean(cross_entropy(outputs, CODES), weights_of(LABELS)),
    ),
    "class weights of the criterion": (
        lambda: skorch_net(
            NeuralNetClassifier,
            nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)),
            criterion=nn.CrossEntropyLoss,
            criterion__weight=torch.tensor([1.0, 3.0, 0.5], dtype=torch.float64),
        ),
        X,
        CODES,
        lambda outputs: weighted_mean(cross_entropy(outputs, CODES), weights_of(LABELS)),
    ),
    "mean squared error": (
        lambda: network(NetworkRegressor),
        X,
        REAL,
        lambda outputs: ((outputs - torch.as_tensor(REAL)) ** 2).mean(),
    ),
    "squared error, sum": (
        lambda: network(NetworkRegressor, criterion__reduction="sum", lr=1e-3),
        X,
        REAL,
        lambda outputs: ((outputs - torch.as_tensor(REAL)) ** 2).sum(),
    ),
    "raw net, squared error": (
        lambda: skorch_net(
            NeuralNetRegressor, nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
        ),
        X,
        REAL,
        lambda outputs: ((outputs - torch.as_tensor(REAL)) ** 2).mean(),
    ),
    "one logit": (
        lambda: skorch_net(
            NeuralNetBinaryClassifier, nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))
        ),
        X,
        BINARY,
        lambda outputs: functional.softplus(
            (1 - 2 * torch.as_tensor(BINARY)) * outputs.ravel()
        ).mean(),
    ),
    "probabilities and NLLLoss": (
        lambda: skorch_net(NeuralNetClassifier, Probabilities()),
        X,
        CODES,
        lambda outputs: -torch.log(outputs[range(len(CODES)), CODES]).mean(),
    ),
    "convolutions and batch norm": (
        lambda: skorch_net(NeuralNetClassifier, Convolutional(), criterion=nn.CrossEntropyLoss),
        IMAGES,
        CODES[:20],
        lambda outputs: cross_entropy(outputs, CODES[:20]).mean(),
    ),
    "pipeline": (
        lambda: make_pipeline(StandardScaler(), network()),
        X,
        LABELS,
        lambda outputs: cross_entropy(outputs, CODES).mean(),
    ),
}


def inner_network(estimator):
    return estimator[-1] if hasattr(estimator, "steps") else estimator


def rows_of(estimator, rows):
    return estimator[:-1].transform(rows) if hasattr(estimator, "steps") else rows


def gradient_at(module, vector, rows, loss):
    torch.nn.utils.vector_to_parameters(vector, module.parameters())
    module.zero_grad()
    loss(module(rows)).backward()
    return torch.cat([parameter.grad.ravel() for parameter in module.parameters()])


def dense_hessian(module, rows, loss, step=1e-5):
    """Central differences of first derivatives, with no second derivative of autograd."""
    module = copy.deepcopy(module).double().eval()
    centre = torch.nn.utils.parameters_to_vector(module.parameters()).detach()
    columns = []
    for unit in torch.eye(len(centre), dtype=torch.float64) * step:
        above = gradient_at(module, centre + unit, rows, loss)
        below = gradient_at(module, centre - unit, rows, loss)
        columns.append((above - below) / (2 * step))
    matrix = torch.stack(columns)
    return ((matrix + matrix.T) / 2).numpy()


def dense_gauss_newton(module, rows, loss, step=1e-5):
    """Curvature of the loss in the outputs between finite-difference Jacobians."""
    module = copy.deepcopy(module).double().eval()
    centre = torch.nn.utils.parameters_to_vector(module.parameters()).detach()

    def outputs_at(vector):
        torch.nn.utils.vector_to_parameters(vector, module.parameters())
        with torch.no_grad():
            return module(rows)

    jacobian = torch.stack(
        [
            ((outputs_at(centre + unit) - outputs_at(centre - unit)) / (2 * step)).ravel()
            for unit in torch.eye(len(centre), dtype=torch.float64) * step
        ],
        dim=1,
    )
    outputs = outputs_at(centre)
    middle = torch.autograd.functional.hessian(
        lambda flat: loss(flat.reshape(outputs.shape)), outputs.ravel()
    )
    return (jacobian.T @ middle @ jacobian).numpy()
