"""What comes in: containers, dtypes, labels, targets, images."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

from sharpfit.networks import NetworkClassifier, NetworkRegressor, rows_hash
from tests.networks.modules_for_tests import Convolutional, Double, Plain

NAMES = ["a", "b", "c", "d"]
CONTAINERS = {
    "array": np.asarray,
    "list": lambda X: X.tolist(),
    "pandas": lambda X: pd.DataFrame(X, columns=NAMES),
    "polars": lambda X: pl.DataFrame(X, schema=NAMES),
    "tensor": torch.tensor,
    "fortran": np.asfortranarray,
    "negative strides": lambda X: X[::-1].copy()[::-1],
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_containers_of_the_same_rows_give_the_same_network(container, iris):
    X, y = iris
    expected = NetworkClassifier(max_epochs=5, random_state=0).fit(X, y)
    given = CONTAINERS[container](X)
    network = NetworkClassifier(max_epochs=5, random_state=0).fit(given, y)
    np.testing.assert_array_equal(network.predict_proba(given), expected.predict_proba(X))
    assert network.n_features_in_ == 4
    assert network.training_rows_hash_ == expected.training_rows_hash_ == rows_hash(given, y)
    if container in ("pandas", "polars"):
        assert list(network.feature_names_in_) == NAMES
    else:
        assert not hasattr(network, "feature_names_in_")


def test_nullable_labels_are_the_same_labels(iris):
    X, y = iris
    network = NetworkClassifier(max_epochs=1, random_state=0).fit(X, pd.Series(y, dtype="Int64"))
    assert network.training_rows_hash_ == rows_hash(X, y)
    assert network.training_rows_hash_ == rows_hash(X, pd.Series(y, dtype="Int64"))
    names = np.array(["a", "b", "c"])[y]
    assert rows_hash(X, pd.Series(names, dtype="string")) == rows_hash(X, names)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.float16])
def test_reference_module_takes_the_precision_of_the_rows(dtype, iris):
    X, y = iris
    network = NetworkClassifier(max_epochs=3, random_state=0).fit(np.round(X * 4).astype(dtype), y)
    single = dtype in (np.float32, np.float16)
    expected = torch.float32 if single else torch.float64
    assert {p.dtype for p in network.module_.parameters()} == {expected}
    assert network.predict_proba(X).dtype == np.float64
    assert network.input_tensor(X).dtype == expected


def test_rows_are_cast_to_the_dtype_of_a_users_module(iris):
    X, y = iris
    for module, dtype in [(Plain, torch.float32), (Double, torch.float64)]:
        network = NetworkClassifier(module, max_epochs=3).fit(X, y)
        assert network.input_tensor(X).dtype == dtype
        assert network.predict_proba(X).dtype == np.float64


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["setosa", "versicolor", "a virginica"]),
        np.array(["setosa", "versicolor", "a virginica"], dtype=object),
        np.array([7, -3, 40]),
        np.array([0.0, 2.0, 1.0]),
        np.array([2**40, 0, 1]),
    ],
)
def test_labels_are_encoded_inside(labels, iris):
    X, y = iris
    network = NetworkClassifier(random_state=0).fit(X, labels[y])
    np.testing.assert_array_equal(network.classes_, np.unique(labels))
    assert np.mean(network.predict(X) == labels[y]) > 0.95
    columns = np.searchsorted(network.classes_, labels[y])
    assert np.mean(network.predict_proba(X).argmax(1) == columns) > 0.95
    np.testing.assert_array_equal(network.target_tensor(labels[y]).numpy(), columns)


def test_boolean_and_pandas_labels(two_classes):
    X, y = two_classes
    network = NetworkClassifier(random_state=0).fit(X, y.astype(bool))
    assert network.predict(X).dtype == bool
    assert network.score(X, y.astype(bool)) == 1
    words = pd.Series(np.array(["no", "yes"])[y], index=np.arange(len(y))[::-1])
    assert NetworkClassifier(random_state=0).fit(X, words).score(X, words) == 1
    series = pl.Series(words.to_list())
    assert NetworkClassifier(random_state=0).fit(X, series).score(X, words.to_list()) == 1
    categories = words.astype("category")
    assert NetworkClassifier(random_state=0).fit(X, categories).score(X, categories) == 1


@pytest.mark.parametrize("shape", [(120,), (120, 1), (120, 2)])
@pytest.mark.parametrize("module", [None, Double])
def test_regression_targets_keep_their_shape(shape, module, plane):
    X, targets = plane
    y = targets if shape == (120, 2) else targets[:, 0].reshape(shape)
    arguments = {} if module is None else {"module__d": 3, "module__k": shape[-1]}
    if shape == (120,) and module is not None:
        arguments["module__k"] = 1
    network = NetworkRegressor(module, random_state=0, max_epochs=100, **arguments).fit(X, y)
    assert network.predict(X).shape == y.shape
    assert network.target_tensor(y).shape == y.shape
    assert network.score(X, y) > 0.9


def test_column_targets_do_not_broadcast(plane):
    # (n, 1) outputs against (n,) targets would broadcast to (n, n) and learn the mean.
    X, targets = plane
    network = NetworkRegressor(batch_size=-1, max_epochs=1, lr=0.0).fit(X, targets[:, 0])
    expected = np.mean((network.predict(X) - targets[:, 0]) ** 2)
    assert network.history[-1, "train_loss"] == pytest.approx(expected, rel=1e-12)


def test_images_with_a_users_module(digits):
    X, y = digits
    images = (X[y < 3] / 16).reshape(-1, 1, 8, 8).astype(np.float32)
    network = NetworkClassifier(Convolutional, random_state=0, max_epochs=30, lr=0.05)
    network.fit(images, y[y < 3])
    assert network.input_shape_ == (1, 8, 8)
    assert network.input_tensor(images).shape == images.shape
    assert network.score(images, y[y < 3]) > 0.9
    with pytest.raises(ValueError, match=r"shape \(1, 8, 7\), but .* \(1, 8, 8\)"):
        network.predict(images[..., :7])


def test_input_is_not_changed(iris):
    X, y = iris
    X, y = X.astype(np.float32), y.copy()
    before, labels = X.copy(), y.copy()
    X.flags.writeable = y.flags.writeable = False
    network = NetworkClassifier(max_epochs=2).fit(X, y)
    network.input_tensor(X).zero_()
    np.testing.assert_array_equal(X, before)
    np.testing.assert_array_equal(y, labels)


def test_defaults_train_on_raw_digits(digits):
    X, y = digits
    order = np.random.default_rng(0).permutation(len(X))
    train, test = order[:1347], order[1347:]
    for seed in range(2):
        network = NetworkClassifier(random_state=seed).fit(X[train], y[train])
        assert network.score(X[test], y[test]) > 0.95
