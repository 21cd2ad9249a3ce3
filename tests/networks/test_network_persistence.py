"""Round trips: pickle, joblib, deepcopy, clone, saved weights; cheap representations."""

import copy
import io
import pickle
import time

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted
from skorch.exceptions import SkorchTrainingImpossibleError

from sharpfit.networks import NetworkClassifier, NetworkRegressor
from tests.networks.modules_for_tests import Plain


def through_joblib(network):
    file = io.BytesIO()
    joblib.dump(network, file)
    file.seek(0)
    return joblib.load(file)


@pytest.mark.parametrize(
    "copied", [lambda n: pickle.loads(pickle.dumps(n)), through_joblib, copy.deepcopy]
)
@pytest.mark.parametrize("estimator", [NetworkClassifier, NetworkRegressor])
def test_copies_predict_and_train_alike(copied, estimator, iris):
    X, y = iris
    network = estimator(module__hidden=(8,), max_epochs=3, random_state=0, class_weight="balanced")
    if estimator is NetworkRegressor:
        network = estimator(module__hidden=(8,), max_epochs=3, random_state=0)
    twin = copied(network.fit(X, y))
    np.testing.assert_array_equal(twin.predict(X), network.predict(X))
    assert twin.training_rows_hash_ == network.training_rows_hash_
    assert twin.history == network.history
    before = network.predict(X)
    twin.partial_fit(X, y)
    np.testing.assert_array_equal(network.predict(X), before)
    network.partial_fit(X, y)
    np.testing.assert_array_equal(twin.predict(X), network.predict(X))


def test_clone_forgets_the_training_only(iris):
    X, y = iris
    network = NetworkClassifier(
        module__hidden=(8, 4),
        optimizer=torch.optim.Adam,
        optimizer__weight_decay=1e-3,
        criterion__label_smoothing=0.1,
        iterator_train__shuffle=False,
        callbacks__print_log=None,
        class_weight={0: 1, 1: 2, 2: 3},
        max_epochs=2,
    )
    twin = clone(network.fit(X, y))
    assert twin.get_params(deep=False) == network.get_params(deep=False)
    with pytest.raises(NotFittedError):
        check_is_fitted(twin)
    with pytest.raises(NotFittedError):
        twin.predict(X)
    assert clone(twin).get_params(deep=False) == network.get_params(deep=False)


def test_initialised_is_not_trained(iris):
    X, y = iris
    network = NetworkClassifier(Plain, classes=[0, 1, 2], max_epochs=2).initialize()
    with pytest.raises(NotFittedError):
        network.predict(X)
    assert network.fit(X, y).predict(X).shape == (150,)


def test_saved_weights(iris, tmp_path):
    X, y = iris
    names = np.array(["x", "a", "m"])[y]
    network = NetworkClassifier(Plain, max_epochs=3, random_state=0).fit(X, names)
    files = {
        "f_params": tmp_path / "weights.pt",
        "f_optimizer": tmp_path / "optimiser.pt",
        "f_history": tmp_path / "history.json",
    }
    network.save_params(**files)
    # A net without data takes its labels from `classes`.
    other = NetworkClassifier(Plain, classes=["a", "m", "x"]).initialize()
    other.load_params(f_params=files["f_params"])
    np.testing.assert_array_equal(other.predict(X), network.predict(X))
    check_is_fitted(other)
    assert other.loss_row_weights(names) is None
    trained = NetworkClassifier(Plain, max_epochs=1, random_state=1).fit(X, names)
    trained.load_params(**files)
    np.testing.assert_array_equal(trained.predict_proba(X), network.predict_proba(X))
    assert len(trained.history) == 3
    # Training goes on from loaded weights.
    other.partial_fit(X, names)
    assert other.n_features_in_ == 4


def test_saved_weights_of_a_regressor(plane, tmp_path):
    X, targets = plane
    for y, k in [(targets[:, 0], 1), (targets, 2)]:
        arguments = {"module__d": 3, "module__k": k}
        network = NetworkRegressor(Plain, max_epochs=3, **arguments).fit(X, y)
        network.save_params(f_params=tmp_path / "weights.pt")
        other = NetworkRegressor(Plain, **arguments).initialize()
        other.load_params(tmp_path / "weights.pt")
        np.testing.assert_array_equal(other.predict(X), network.predict(X))


def test_trimmed_for_prediction(iris):
    X, y = iris
    network = NetworkClassifier(max_epochs=3, random_state=0).fit(X, y)
    expected = network.predict_proba(X)
    network.trim_for_prediction()
    np.testing.assert_array_equal(network.predict_proba(X), expected)
    assert network.optimizer_ is None
    with pytest.raises(SkorchTrainingImpossibleError):
        network.partial_fit(X, y)


def test_new_module_parameters_untrain(iris):
    X, y = iris
    network = NetworkClassifier(max_epochs=2, random_state=0).fit(X, y)
    network.set_params(lr=0.5, optimizer__momentum=0.3)
    assert network.optimizer_.param_groups[0]["lr"] == 0.5
    assert network.optimizer_.param_groups[0]["momentum"] == 0.3
    check_is_fitted(network)
    network.set_params(module__hidden=(5,))
    with pytest.raises(NotFittedError):
        network.predict(X)
    assert network.partial_fit(X, y).module_[0].out_features == 5


def test_representations(iris):
    X, y = iris
    network = NetworkClassifier(module__hidden=(8,), max_epochs=3, optimizer=torch.optim.Adam)
    expected = "NetworkClassifier(optimizer=Adam, max_epochs=3, module__hidden=(8,))"
    assert repr(network) == expected
    network.fit(X, y)
    assert repr(network) == expected
    start = time.perf_counter()
    assert "NetworkClassifier" in network._repr_html_()
    assert time.perf_counter() - start < 1


def test_fitted_attributes_are_cheap_and_on_the_cpu(iris):
    X, y = iris
    network = NetworkClassifier(max_epochs=2).fit(X, y)
    assert isinstance(network.classes_, np.ndarray)
    assert isinstance(network.n_iter_, int)
    assert isinstance(network.training_rows_hash_, str)
    properties = {
        name
        for kind in type(network).__mro__
        for name, value in vars(kind).items()
        if isinstance(value, property) and name.endswith("_") and name[0] != "_"
    }
    assert properties == {"classes_"}
