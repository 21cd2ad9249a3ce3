import numpy as np
import pytest
from sklearn.datasets import load_digits, load_iris
from sklearn.preprocessing import scale


@pytest.fixture(scope="session")
def iris():
    X, y = load_iris(return_X_y=True)
    return scale(X), y


@pytest.fixture(scope="session")
def two_classes(iris):
    X, y = iris
    return X[y < 2], y[y < 2]


@pytest.fixture(scope="session")
def digits():
    return load_digits(return_X_y=True)


@pytest.fixture(scope="session")
def plane():
    """A smooth function of three features, in two targets."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 3))
    return X, np.stack([np.sin(X[:, 0]) + X[:, 1], X[:, 2] - X[:, 0]], axis=1)
