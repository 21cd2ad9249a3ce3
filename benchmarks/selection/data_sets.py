"""Rows of the suites that are tables or words: bundled sets, other packages', artificial ones."""

import importlib
import pkgutil
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from mlxtend.data import autompg_data, boston_housing_data
from river.datasets import (
    Bananas,
    ChickWeights,
    ImageSegments,
    Phishing,
    SolarFlare,
    TrumpApproval,
    Yeast,
    synth,
)
from sklearn import datasets
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import HashingVectorizer

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


def spirals(rng: np.random.Generator) -> DataSet:
    """Three arms of one and a half turns in the plane, with noise."""
    y = rng.integers(3, size=2300)
    along = np.sqrt(rng.random(len(y)))
    angle = 3 * np.pi * along + 2 * np.pi / 3 * y
    X = along[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return X + 0.06 * rng.normal(size=X.shape), y


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


def bananas(rng: np.random.Generator) -> DataSet:
    """Two overlapping bananas in the plane."""
    return _stream(Bananas())


def approval(rng: np.random.Generator) -> DataSet:
    """Approval of a president by five polls and the day."""
    return _stream(TrumpApproval(), regression=True)


def waveform(rng: np.random.Generator) -> DataSet:
    """Noisy mixtures of two of three waves, 21 samples each (Breiman et al. 1984)."""
    return _stream(synth.Waveform(seed=_seed(rng)).take(2250))


def display_digits(rng: np.random.Generator) -> DataSet:
    """Digits on seven segments that each err in 10 % of the rows, and 17 irrelevant bits."""
    rows = synth.LEDDrift(
        seed=_seed(rng), noise_percentage=0.1, irrelevant_features=True, n_drift_features=0
    )
    return _stream(rows.take(2300))


def loans(rng: np.random.Generator) -> DataSet:
    """Whether a loan is granted by rules on age, education and salary (Agrawal et al. 1993)."""
    rows = synth.Agrawal(classification_function=4, seed=_seed(rng), perturbation=0.05)
    return _stream(rows.take(2300))


def centroids(rng: np.random.Generator) -> DataSet:
    """Twenty clouds of different size in eight dimensions, of four classes."""
    rows = synth.RandomRBF(_seed(rng), _seed(rng), n_classes=4, n_features=8, n_centroids=20)
    return _stream(rows.take(2300))


def planes(rng: np.random.Generator) -> DataSet:
    """Two noisy planes of ten features, chosen by one of them (Breiman et al. 1984)."""
    return _stream(synth.Planes2D(seed=_seed(rng)).take(2250), regression=True)


def checkerboard(rng: np.random.Generator) -> DataSet:
    """Four by four squares of two classes in the plane."""
    X = rng.uniform(0, 4, size=(2300, 2))
    return X, np.floor(X).sum(axis=1).astype(np.int64) % 2


def sparse_linear(rng: np.random.Generator) -> DataSet:
    """Draw two classes by a noisy linear rule on 4 of 60 features."""
    X = rng.normal(size=(2200, 60))
    return X, (X[:, :4].sum(axis=1) + rng.normal(size=len(X)) > 0).astype(np.int64)


def yeast(rng: np.random.Generator) -> DataSet:
    """Genes by 103 features of their expression; whether they have the first of 14 functions."""
    features, labels = zip(*Yeast(), strict=True)
    X = np.array([list(row.values()) for row in features], dtype=np.float64)
    return X, np.array([next(iter(row.values())) for row in labels]).astype(np.int64)


def sums(rng: np.random.Generator) -> DataSet:
    """Whether two of three features exceed a sum, 10 % of the labels turned (Street & Kim 2001)."""
    return _stream(synth.SEA(variant=2, noise=0.1, seed=_seed(rng)).take(2250))


def signs(rng: np.random.Generator) -> DataSet:
    """Whether two of five normal features have the same sign."""
    X = rng.normal(size=(2300, 5))
    return X, (X[:, 0] * X[:, 1] > 0).astype(np.int64)


def teacher(rng: np.random.Generator) -> DataSet:
    """Draw classes: the largest of three outputs of a random network on six inputs."""
    X = rng.normal(size=(2300, 6))
    return X, _random_network(X, 3, rng).argmax(axis=1)


def teacher_regression(rng: np.random.Generator) -> DataSet:
    """Evaluate a random network on six inputs and add noise."""
    X = rng.normal(size=(2250, 6))
    y = _random_network(X, 1, rng)[:, 0]
    return X, y + 0.3 * y.std() * rng.normal(size=len(y))


def curve(rng: np.random.Generator) -> DataSet:
    """Draw a wave of one input whose frequency grows, with noise."""
    X = rng.uniform(0, 1, size=(2100, 1))
    return X, np.sin(12 * X[:, 0] ** 2) + 0.3 * rng.normal(size=len(X))


def arm(rng: np.random.Generator) -> DataSet:
    """Distance of a hand from a point, by the four angles of an arm in the plane, with noise."""
    X = rng.uniform(-np.pi / 2, np.pi / 2, size=(2250, 4))
    hand = np.exp(1j * X.cumsum(axis=1)).sum(axis=1)
    return X, np.abs(hand - 1 - 2j) + 0.1 * rng.normal(size=len(X))


def docstrings(rng: np.random.Generator) -> DataSet:
    """Hashed words of the first 30 of a docstring; which of four packages it is from."""
    found = [_docstrings(name) for name in ("networkx", "numpy", "scipy", "sklearn")]
    words = [" ".join(text.split()[:30]) for texts in found for text in texts]
    X = HashingVectorizer(n_features=64, alternate_sign=False).transform(words).toarray()
    return X, np.repeat(np.arange(4), [len(texts) for texts in found])


def boston(rng: np.random.Generator) -> DataSet:
    """Prices of houses by 13 features of their suburb."""
    return boston_housing_data()


def pendulum(rng: np.random.Generator) -> DataSet:
    """Angle of a damped pendulum after some time, by its start, length, damping and the time."""
    low, high = [-2.5, -2, 0.5, 0, 0.5], [2.5, 2, 2, 1, 2]
    X = rng.uniform(low, high, size=(2250, 5))
    angle, speed, length, damping, time = X.T
    for _ in range(400):  # semi-implicit steps
        speed = speed - time / 400 * (9.81 / length * np.sin(angle) + damping * speed)
        angle = angle + time / 400 * speed
    return X, angle + 0.05 * rng.normal(size=len(X))


def uneven_noise(rng: np.random.Generator) -> DataSet:
    """Draw a smooth function of three inputs with noise that grows along one of them."""
    X = rng.uniform(-1, 1, size=(2250, 3))
    y = np.sin(3 * X[:, 0]) + X[:, 1] ** 2 + 0.5 * X[:, 2]
    return X, y + 0.1 * np.exp(1 + 1.5 * X[:, 2]) * rng.normal(size=len(X))


def sparse_regression(rng: np.random.Generator) -> DataSet:
    """Draw a noisy linear function of 5 of 100 features."""
    X = rng.normal(size=(2200, 100))
    return X, X[:, :5] @ [2, -2, 1, 1, -1] + rng.normal(size=len(X))


def sunspots(rng: np.random.Generator) -> DataSet:
    """Layout, size and past of groups of sunspots; which of six classes they belong to."""
    rows = [row for row, _ in SolarFlare()]
    y = np.unique([row.pop("zurich-class") for row in rows], return_inverse=True)[1]
    return DictVectorizer(sparse=False).fit_transform(rows), y


def chicks(rng: np.random.Generator) -> DataSet:
    """Weight of chicks by their age and which of four diets they get."""
    rows = [({"age": row["time"], "diet": str(row["diet"])}, y) for row, y in ChickWeights()]
    features, weights = zip(*rows, strict=True)
    return DictVectorizer(sparse=False).fit_transform(features), np.array(weights, dtype=float)


def random_tree(rng: np.random.Generator) -> DataSet:
    """Three classes by the leaves of a random tree on four numbers and three codes of four."""
    rows = synth.RandomTree(
        _seed(rng),
        _seed(rng),
        n_classes=3,
        n_num_features=4,
        n_cat_features=3,
        n_categories_per_feature=4,
    )
    return _stream(rows.take(2300))


def ratios(rng: np.random.Generator) -> DataSet:
    """Which of three ratios of heavy-tailed features is the largest; three more are irrelevant."""
    X = np.exp(1.2 * rng.normal(size=(2300, 9)))
    return X, (X[:, :3] / X[:, 3:6]).argmax(axis=1)


def unsure_labels(rng: np.random.Generator) -> DataSet:
    """Two sides of a wave, where 35 % of the labels err in one half of the rows, none elsewhere."""
    X = rng.uniform(-2, 2, size=(2300, 4))
    errs = (rng.random(len(X)) < 0.35) & (X[:, 2] > 0)
    return X, ((X[:, 0] > 1.5 * np.sin(2 * X[:, 1])) ^ errs).astype(np.int64)


def counts(rng: np.random.Generator) -> DataSet:
    """Count events at a rate by three factors, which are seen in thirty noisy mixtures."""
    factors = rng.normal(size=(2250, 3))
    X = factors @ rng.normal(size=(3, 30)) + 0.5 * rng.normal(size=(2250, 30))
    rate = np.exp(0.7 * factors[:, 0] + np.sin(2 * factors[:, 1]) - 0.5 * np.abs(factors[:, 2]))
    return X, rng.poisson(2 * rate).astype(np.float64)


def backwards(rng: np.random.Generator) -> DataSet:
    """Words of docstrings, letter by letter and ending at the tenth; whether they are reversed."""
    found = {word for text in _docstrings("numpy") + _docstrings("scipy") for word in text.split()}
    words = [word for word in sorted(found) if 5 <= len(word) <= 10]
    y = rng.integers(2, size=len(words))
    read = [word[::-1] if turned else word for word, turned in zip(words, y, strict=True)]
    letters = np.array([list(word.rjust(10)) for word in read])
    X = letters[:, :, None] == np.array(list("abcdefghijklmnopqrstuvwxyz"))
    return X.reshape(len(X), -1).astype(np.float64), y


def _docstrings(package: str) -> list[str]:
    """First docstring words of a package's public callables, letters only, by name."""
    found = {}
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if module.name.startswith("_") or module.name in ("conftest", "tests"):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            members = vars(importlib.import_module(f"{package}.{module.name}"))
        for name, member in members.items():
            text = getattr(member, "__doc__", None)
            home = getattr(member, "__module__", None) or ""
            if callable(member) and isinstance(text, str) and home.startswith(package):
                found[name] = re.sub("[^a-z]+", " ", text.lower())
    return [found[name] for name in sorted(found)]


def _random_network(X: np.ndarray, n_outputs: int, rng: np.random.Generator) -> np.ndarray:
    first = rng.normal(size=(X.shape[1], 12)) / np.sqrt(X.shape[1])
    return np.tanh(3 * X @ first) @ rng.normal(size=(12, n_outputs))


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


def _stream(rows: Any, *, regression: bool = False) -> DataSet:
    features, targets = zip(*rows, strict=True)
    X = np.array([list(row.values()) for row in features], dtype=np.float64)
    return X, np.array(targets) if regression else np.unique(targets, return_inverse=True)[1]
