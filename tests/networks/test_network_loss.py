"""The trained loss against torch's own functions and against repeated rows."""

import numpy as np
import pytest
import torch
from sklearn import config_context
from sklearn.model_selection import cross_validate
from torch import nn
from torch.nn import functional as F

from sharpfit.networks import NetworkClassifier, NetworkRegressor
from tests.networks.modules_for_tests import Double, Flat, Plain, Probabilities

# No update: the recorded loss is that of the untrained weights.
ONE_LOOK = {"lr": 0.0, "max_epochs": 1, "batch_size": -1, "random_state": 0}


def recorded_loss(network):
    return network.history[-1, "train_loss"]


@pytest.fixture
def weights():
    return np.random.default_rng(0).integers(0, 4, size=150).astype(float)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("class_weight", [None, {0: 1.0, 1: 5.0, 2: 0.5}, "balanced"])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy(reduction, class_weight, weighted, iris, weights):
    X, y = iris[0][:120], iris[1][:120]
    network = NetworkClassifier(
        class_weight=class_weight, criterion__reduction=reduction, **ONE_LOOK
    )
    sample_weight = weights[:120] if weighted else None
    network.fit(X, y, sample_weight=sample_weight)
    counts = np.bincount(y)
    by_class = {
        "None": np.ones(3),
        "balanced": 120 / (3 * counts),
    }.get(str(class_weight), np.array([1.0, 5.0, 0.5]))
    w = by_class[y] * (sample_weight if weighted else 1)
    values = -network.predict_log_proba(X)[np.arange(120), y]
    expected = w @ values / (w.sum() if reduction == "mean" else 1)
    assert recorded_loss(network) == pytest.approx(expected, rel=1e-12)
    if class_weight is None:
        assert network.class_weight_ is None
    else:
        np.testing.assert_allclose(network.class_weight_, by_class)
    if class_weight is None and not weighted:
        assert network.loss_row_weights(y) is None
    else:
        np.testing.assert_allclose(network.loss_row_weights(y, sample_weight), w)


def test_class_weight_is_torchs_in_every_batch(iris):
    X, y = iris
    network = NetworkClassifier(
        Double, class_weight={0: 2.0, 1: 1.0, 2: 0.3}, random_state=0, max_epochs=5, batch_size=32
    ).fit(X, y)
    weight = torch.tensor([2.0, 1.0, 0.3], dtype=torch.float64)
    twin = NetworkClassifier(
        Double, criterion__weight=weight, random_state=0, max_epochs=5, batch_size=32
    ).fit(X, y)
    np.testing.assert_allclose(network.predict_proba(X), twin.predict_proba(X), rtol=1e-10)


def test_class_weight_by_string_label(iris):
    X, y = iris
    names = np.array(["x", "a", "m"])[y]
    network = NetworkClassifier(class_weight={"x": 2.0, "a": 1.0, "m": 0.3}, **ONE_LOOK)
    np.testing.assert_array_equal(network.fit(X, names).class_weight_, [1.0, 0.3, 2.0])


@pytest.mark.parametrize("estimator", [NetworkClassifier, NetworkRegressor])
def test_weights_are_repetitions(estimator, iris, weights):
    X, y = iris
    arguments = {"batch_size": -1, "random_state": 0, "max_epochs": 9, "lr": 0.05}
    weighted = estimator(**arguments).fit(X, y, sample_weight=weights)
    repeats = np.repeat(np.arange(150), weights.astype(int))
    repeated = estimator(**arguments).fit(X[repeats], y[repeats])
    method = "predict_proba" if estimator is NetworkClassifier else "predict"
    np.testing.assert_allclose(getattr(weighted, method)(X), getattr(repeated, method)(X), 1e-9)
    unweighted = estimator(**arguments).fit(X, y)
    assert not np.allclose(getattr(weighted, method)(X), getattr(unweighted, method)(X), 1e-3)


def test_weights_follow_their_rows_through_shuffled_batches(iris):
    # Rows of weight 0 carry wrong labels: with any mix-up they would be learned.
    X, y = iris
    wrong = np.random.default_rng(1).random(150) < 0.4
    labels = np.where(wrong, (y + 1) % 3, y)
    for arguments in ({}, {"iterator_train__num_workers": 0}):
        network = NetworkClassifier(random_state=0, batch_size=16, **arguments)
        network.fit(X, labels, sample_weight=(~wrong).astype(float))
        assert np.mean(network.predict(X) == y) > 0.95


def test_batch_of_weight_zero(iris):
    X, y = iris
    weight = np.r_[np.zeros(75), np.ones(75)]
    network = NetworkClassifier(
        batch_size=75, iterator_train__shuffle=False, max_epochs=5, random_state=0
    ).fit(X, y, sample_weight=weight)
    assert np.isfinite(network.predict_proba(X)).all()
    assert network.history[0, "batches", 0, "train_loss"] == 0


def test_binary_module_of_one_logit(two_classes):
    X, y = two_classes
    y = np.array(["no", "yes"])[y]
    for module in (Flat, None):
        network = NetworkClassifier(
            module, criterion=nn.BCEWithLogitsLoss, class_weight={"no": 3.0, "yes": 1.0}, **ONE_LOOK
        ).fit(X, y)
        z = torch.tensor(network.decision_function(X))
        targets = torch.tensor((y == "yes").astype(float))
        w = torch.where(targets == 1, 1.0, 3.0).double()
        expected = F.binary_cross_entropy_with_logits(z, targets, weight=w, reduction="sum")
        assert recorded_loss(network) == pytest.approx(float(expected / w.sum()), rel=1e-6)
        np.testing.assert_allclose(network.predict_proba(X)[:, 1], torch.sigmoid(z), rtol=1e-12)
        np.testing.assert_allclose(network.predict_proba(X).sum(1), 1)
        assert network.target_tensor(y).is_floating_point()
        trained = network.set_params(lr=0.1, max_epochs=60).fit(X, y)
        assert trained.score(X, y) == 1
        np.testing.assert_array_equal(trained.predict(X) == "yes", trained.decision_function(X) > 0)


def test_probabilities_under_negative_log_likelihood(iris):
    X, y = iris
    network = NetworkClassifier(Probabilities, criterion=nn.NLLLoss, **ONE_LOOK).fit(X, y)
    with torch.no_grad():
        p = network.module_(network.input_tensor(X)).double().numpy()
    np.testing.assert_allclose(network.predict_proba(X), p, rtol=1e-6)
    assert recorded_loss(network) == pytest.approx(-np.log(p[np.arange(150), y]).mean(), rel=1e-5)
    np.testing.assert_array_equal(network.decision_function(X).argmax(1), p.argmax(1))
    twin = NetworkClassifier(Plain, random_state=0, max_epochs=9).fit(X, y)
    same = NetworkClassifier(Probabilities, criterion=nn.NLLLoss, random_state=0, max_epochs=9)
    np.testing.assert_allclose(same.fit(X, y).predict_proba(X), twin.predict_proba(X), atol=1e-4)


def test_log_probabilities_far_out(iris):
    # The logarithm of a probability that underflows is still finite.
    X, y = iris
    network = NetworkClassifier(random_state=0).fit(X, y)
    log_p = network.predict_log_proba(X * 1e4)
    assert np.isfinite(log_p).all()
    assert log_p.min() < -1000
    z = network.decision_function(X * 1e4)
    np.testing.assert_allclose(log_p, z - z.max(1, keepdims=True), atol=1.0)


def test_decision_function_of_two_classes_is_the_log_odds(two_classes):
    X, y = two_classes
    network = NetworkClassifier(random_state=0, max_epochs=5).fit(X, y)
    log_p = network.predict_log_proba(X)
    np.testing.assert_allclose(network.decision_function(X), log_p[:, 1] - log_p[:, 0])


def test_own_nonlinearity(iris):
    X, y = iris
    network = NetworkClassifier(
        Plain, criterion=nn.MultiMarginLoss, predict_nonlinearity=_softmax, random_state=0
    ).fit(X, y)
    np.testing.assert_allclose(network.predict_proba(X).sum(1), 1)
    assert network.score(X, y) > 0.9


def _softmax(outputs):
    return torch.softmax(outputs, dim=-1)


def test_squared_error_of_several_targets(plane):
    X, y = plane
    weight = np.random.default_rng(2).random(120)
    network = NetworkRegressor(**ONE_LOOK).fit(X, y, sample_weight=weight)
    squares = ((network.predict(X) - y) ** 2).mean(1)
    assert recorded_loss(network) == pytest.approx(np.average(squares, weights=weight), rel=1e-12)


class PlainMean(nn.Module):
    """A criterion without the attribute `reduction`."""

    def forward(self, outputs, targets):
        return F.cross_entropy(outputs, targets)


def test_weights_need_a_criterion_that_can_be_weighted(iris):
    X, y = iris
    network = NetworkClassifier(criterion__weight=torch.ones(3).double(), max_epochs=1).fit(X, y)
    for weights in ({"class_weight": "balanced"}, {}):
        with pytest.raises(ValueError, match=r"^CrossEntropyLoss has weights .*class_weight="):
            network.set_params(**weights).fit(X, y, sample_weight=np.ones(150))
    NetworkClassifier(criterion=PlainMean, max_epochs=1).fit(X, y)
    with pytest.raises(ValueError, match="PlainMean has reduction=None"):
        NetworkClassifier(criterion=PlainMean).fit(X, y, sample_weight=np.ones(150))


class Scaled(Double):
    def forward(self, X, factor=1.0):
        return super().forward(X) * factor


def test_fit_parameters_reach_the_module(iris):
    X, y = iris
    network = NetworkClassifier(Scaled, **ONE_LOOK).fit(X, y, factor=0.0)
    assert recorded_loss(network) == pytest.approx(np.log(3))


def test_sample_weight_is_routed(iris, weights):
    X, y = iris
    with config_context(enable_metadata_routing=True):
        network = NetworkClassifier(max_epochs=5, random_state=0)
        network.set_fit_request(sample_weight=True).set_score_request(sample_weight=False)
        result = cross_validate(
            network, X, y, params={"sample_weight": weights}, return_estimator=True, cv=2
        )
    unweighted = cross_validate(network, X, y, return_estimator=True, cv=2)
    pairs = zip(result["estimator"], unweighted["estimator"], strict=True)
    assert all(recorded_loss(a) != recorded_loss(b) for a, b in pairs)


def test_weights_of_the_criterion_follow_the_precision_of_the_rows(iris):
    X, y = iris
    weight = torch.tensor([1.0, 2.0, 5.0])
    network = NetworkClassifier(criterion__weight=weight, max_epochs=1, random_state=0).fit(X, y)
    assert network.criterion_.weight.dtype == torch.float64
    assert weight.dtype == torch.float32
