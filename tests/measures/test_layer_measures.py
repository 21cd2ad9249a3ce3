"""Measures made of what enters the layers, against Jacobians of the parts of the network."""

import numpy as np
import ot
import pytest
import torch
from scipy.spatial.distance import cdist
from torch import nn

from sharpfit.measures import compute_measures
from sharpfit.measures.k_variance import class_spread

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


class Convolutional(nn.Module):
    """Two kinds of weights, batch norm between them."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv1d(1, 3, 2)
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(9, 3)

    def features(self, rows):
        """What enters the head."""
        return self.norm(self.convolution(rows.unsqueeze(1))).relu().flatten(1)

    def forward(self, rows):
        return self.head(self.features(rows))


@pytest.fixture(scope="module")
def perceptron(measured):
    return measured(module__hidden=(6, 5))


@pytest.fixture(scope="module")
def convolutional(measured):
    return measured(Convolutional)


def rowwise_jacobians(function, points):
    return torch.func.vmap(torch.func.jacrev(lambda row: function(row.unsqueeze(0))[0]))(points)


def pieces(case):
    """Points and the rest of the network from there, for every layer with weights."""
    if isinstance(case.module, Convolutional):
        return [
            (case.inputs, case.module),
            (case.module.features(case.inputs).detach(), case.module.head),
        ]
    layers = list(case.module)
    return [
        (nn.Sequential(*layers[:start])(case.inputs).detach(), nn.Sequential(*layers[start:]))
        for start in range(0, len(layers), 2)
    ]


@pytest.mark.parametrize("case", ["perceptron", "convolutional"])
def test_network_sensitivity_is_the_mean_over_layers_and_rows(case, request):
    case = request.getfixturevalue(case)
    norms = [
        torch.linalg.matrix_norm(rowwise_jacobians(rest, points), 2).mean().item()
        for points, rest in pieces(case)
    ]
    assert case("network_sensitivity") == pytest.approx(np.mean(norms), rel=1e-6)


def test_input_scaled_sensitivity(perceptron):
    norms = torch.linalg.matrix_norm(rowwise_jacobians(perceptron.module, perceptron.inputs), 2)
    expected = (norms * perceptron.inputs.norm(dim=1)).mean().item()
    assert perceptron("input_scaled_sensitivity") == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("case", ["perceptron", "convolutional"])
def test_variance_normalised_margin_against_the_earth_mover(case, request):
    case = request.getfixturevalue(case)
    features, rest = pieces(case)[1]
    labels = case.labels
    logits = rest(features).detach()
    rows = torch.arange(len(labels))
    rivals = logits.clone()
    rivals[rows, labels] = -torch.inf
    margins = logits[rows, labels] - rivals.amax(dim=1)
    jacobians = rowwise_jacobians(rest, features)
    gradients = (jacobians[rows, labels] - jacobians[rows, rivals.argmax(dim=1)]).norm(dim=1)
    generator = np.random.default_rng(0)
    spread = 0.0
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        half = len(members) // 2
        first, second = (
            features[members[part]].numpy() for part in (slice(0, half), slice(half, 2 * half))
        )
        cost = ot.dist(first, second, metric="euclidean")
        spread += len(members) / len(labels) * ot.emd2([], [], cost)
    expected = -np.median((margins / gradients).detach().numpy() / spread)
    assert case("negative_variance_normalised_margin") == pytest.approx(expected, rel=1e-6)


def test_spread_of_classes_is_the_expected_matching_distance():
    # Two points and two halves: the only matching is their distance, a quarter of it away.
    features = np.array([[0.0, 0.0], [3.0, 4.0], [1.0, 1.0]])
    spread = class_spread(features, np.array([0, 0, 1]), random_state=0)
    assert spread == pytest.approx(2 / 3 * cdist(features[:1], features[1:2])[0, 0])


def test_large_networks_are_worked_through_in_chunks(perceptron, monkeypatch):
    whole = compute_measures(
        perceptron.network.problem.estimator,
        perceptron.inputs.numpy(),
        perceptron.labels.numpy(),
        measures=["network_sensitivity", "negative_variance_normalised_margin"],
    )
    monkeypatch.setattr("sharpfit.measures.layer_jacobians._ENTRIES_PER_CHUNK", 500)
    chunked = compute_measures(
        perceptron.network.problem.estimator,
        perceptron.inputs.numpy(),
        perceptron.labels.numpy(),
        measures=["network_sensitivity", "negative_variance_normalised_margin"],
    )
    for name, found in whole.items():
        assert chunked[name].value == pytest.approx(found.value, rel=1e-9)


def test_local_variation_of_slopes_and_jacobians(perceptron):
    points = perceptron.inputs
    distances = torch.cdist(points, points)
    distances.fill_diagonal_(torch.inf)
    halfway = (points + points[distances.argmin(dim=1)]) / 2
    there = rowwise_jacobians(perceptron.module, halfway)
    here = rowwise_jacobians(perceptron.module, points)
    change = torch.linalg.matrix_norm(there - here, 2)
    assert perceptron("mean_local_variation") == pytest.approx(change.mean().item(), rel=1e-6)
    largest_here = torch.linalg.matrix_norm(here, 2).max().item()
    largest_there = torch.linalg.matrix_norm(there, 2).max().item()
    assert perceptron("excess_jacobian") >= max(largest_there / largest_here, 1.0) - 1e-9
    outputs = perceptron.module(points).detach()
    slopes = torch.cdist(outputs, outputs) / distances
    nearest = distances.argsort(dim=1)[:, :10]
    expected = slopes.gather(1, nearest).amax(dim=1).mean().item()
    assert perceptron("mean_slope") == pytest.approx(expected, rel=1e-6)


def test_geometric_complexity_of_the_probabilities(perceptron):
    jacobians = rowwise_jacobians(
        lambda rows: perceptron.module(rows).softmax(1), perceptron.inputs
    )
    expected = jacobians.square().sum(dim=(1, 2)).mean().item()
    assert perceptron("probability_geometric_complexity") == pytest.approx(expected, rel=1e-6)


def test_sensitivities_of_binary_networks_with_one_logit(measured):
    rng = np.random.default_rng(2)
    X = rng.normal(size=(30, 3))
    y = (X[:, 0] > 0).astype(np.float64)
    case = measured(
        nn.Linear, X, y, module__in_features=3, module__out_features=1,
        criterion=nn.BCEWithLogitsLoss,
    )  # fmt: skip
    weight = case.module.weight.detach().norm().item()
    assert case("network_sensitivity") == pytest.approx(weight, rel=1e-6)
    logits = case.module(case.inputs).detach()[:, 0].numpy() * (2 * y - 1)
    spread = class_spread(X, y.astype(int), 0)
    expected = -np.median(logits / weight / spread)
    assert case("negative_variance_normalised_margin") == pytest.approx(expected, rel=1e-5)
