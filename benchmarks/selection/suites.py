"""The suites: a data set, a number of training rows and a grid of networks each."""

import dataclasses
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from data_sets import (
    approval,
    arm,
    autompg,
    backwards,
    bananas,
    boston,
    bundled,
    centroids,
    checkerboard,
    chicks,
    counts,
    curve,
    display_digits,
    docstrings,
    drawn,
    hastie,
    loans,
    pendulum,
    phishing,
    planes,
    random_tree,
    ratios,
    segments,
    signs,
    sparse_linear,
    sparse_regression,
    spirals,
    sums,
    sunspots,
    teacher,
    teacher_regression,
    uneven_noise,
    unsure_labels,
    waveform,
    yeast,
)
from images_and_signals import (
    autoregression,
    capitals,
    larger_digit,
    mnist,
    motifs,
    moved_digits,
    next_pixel,
    orders,
    oscillators,
    parity,
    patches,
    pulse_counts,
    shapes,
    signals,
    slant,
    tones,
    turned_digits,
    walks,
    water,
)
from sklearn import datasets
from sklearn.preprocessing import StandardScaler

N_CONFIGURATIONS = 50

SGD_SLOW = {"optimiser": "sgd", "lr": 0.02, "momentum": 0.9}
SGD_FAST = {"optimiser": "sgd", "lr": 0.2, "momentum": 0.5}
ADAMW = {"optimiser": "adamw", "lr": 0.003}

GRIDS: dict[str, dict[str, list[Any]]] = {
    "plain": {
        "width": [16, 64, 256],
        "depth": [1, 2, 4],
        "optimisation": [SGD_SLOW, SGD_FAST, ADAMW],
        "batch_size": [32, 128],
        "weight_decay": [0.0, 1e-3, 1e-2],
        "activation": ["relu", "tanh"],
        "label_smoothing": [0.0, 0.1],
        "epochs": [20, 80],
    },
    "regularised": {
        "width": [32, 128],
        "depth": [1, 2, 3],
        "optimisation": [
            {"optimiser": "sgd", "lr": 0.05, "momentum": 0.9},
            {"optimiser": "adamw", "lr": 0.001},
            {"optimiser": "adamw", "lr": 0.01},
        ],
        "batch_size": [32, 64],
        "weight_decay": [0.0, 1e-2],
        "activation": ["relu", "gelu"],
        "dropout": [0.0, 0.2, 0.5],
        "normalised": [False, True],
        "residual": [False, True],
        "epochs": [15, 40, 100],
    },
    "convolutional": {
        "width": [4, 8, 16],
        "depth": [1, 2],
        "convolutional": [True],
        "optimisation": [SGD_SLOW, ADAMW, {"optimiser": "adamw", "lr": 0.01}],
        "batch_size": [32, 128],
        "weight_decay": [0.0, 1e-2],
        "activation": ["relu", "gelu"],
        "dropout": [0.0, 0.3],
        "normalised": [False, True],
        "epochs": [5, 15, 40],
    },
    "recurrent": {
        "width": [8, 16, 32],
        "depth": [1, 2],
        "recurrent": [True],
        "optimisation": [SGD_SLOW, ADAMW, {"optimiser": "adamw", "lr": 0.02}],
        "batch_size": [32, 64],
        "weight_decay": [0.0, 1e-2],
        "activation": ["relu", "tanh"],
        "epochs": [5, 15, 40],
    },
}


@dataclass(frozen=True)
class Data:
    """Training and test rows of one seed, inputs (and regression targets) standardised."""

    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray


@dataclass(frozen=True)
class Suite:
    """One data set with its grid.

    Attributes
    ----------
    load : callable
        ``load(rng)`` returns all rows, in any order.
    n : int
        Training rows; a multiple of 5, so that all folds are equal.
    n_test : int
        Largest number of test rows.
    noise : float
        Share of the training labels that is redrawn; test labels are left alone.
    one_logit : bool
        Two classes with a single output.
    held_back : bool
        Not looked at while the criterion was chosen.
    """

    name: str
    load: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]
    n: int
    grid: str
    n_test: int = 2000
    noise: float = 0.0
    task: str = "classification"
    image: tuple[int, int] | None = None
    one_logit: bool = False
    held_back: bool = False
    n_configurations: int = N_CONFIGURATIONS
    overrides: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """What the networks take: features, a channel of an image, or steps of some channels."""
        if self.image is None:
            return (-1,)
        return self.image if self.grid == "recurrent" else (1, *self.image)

    def data(self, seed: int) -> Data:
        """Draw the training and test rows of a seed."""
        rng = np.random.default_rng([seed, zlib.crc32(self.name.encode())])
        X, y = self.load(rng)
        order = rng.permutation(len(X))[: self.n + self.n_test]
        train, test = order[: self.n], order[self.n :]
        y_train, y_test = y[train], y[test]
        if self.task == "regression":
            mean, scale = y_train.mean(), y_train.std()
            y_train, y_test = (y_train - mean) / scale, (y_test - mean) / scale
        elif self.noise:
            redrawn = rng.random(self.n) < self.noise
            y_train = np.where(redrawn, rng.integers(y.max() + 1, size=self.n), y_train)
        if self.image:  # one scale for all pixels
            mean, scale = X[train].mean(), X[train].std()
            X_train, X_test = (X[train] - mean) / scale, (X[test] - mean) / scale
        else:
            scaler = StandardScaler().fit(X[train])
            X_train, X_test = scaler.transform(X[train]), scaler.transform(X[test])
        return Data(X_train.astype(np.float32), y_train, X_test.astype(np.float32), y_test)

    def configurations(self) -> list[dict[str, Any]]:
        """Draw the suite's grid: distinct configurations, the same for every seed."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        choices = GRIDS[self.grid] | self.overrides
        if self.task == "regression":
            choices = {key: values for key, values in choices.items() if key != "label_smoothing"}
        drawn: dict[str, dict[str, Any]] = {}
        while len(drawn) < self.n_configurations:
            picked = {key: values[rng.integers(len(values))] for key, values in choices.items()}
            drawn.setdefault(repr(picked), picked)
        return list(drawn.values())


DIGITS = bundled(datasets.load_digits)
CLASSIFICATION = drawn(
    datasets.make_classification, n_samples=2600, n_features=20, n_informative=8, n_classes=3
)
IMBALANCED = drawn(
    datasets.make_classification,
    n_samples=2400,
    n_features=12,
    n_informative=6,
    n_classes=3,
    weights=[0.75, 0.17],
    class_sep=0.8,
)
QUANTILES = drawn(datasets.make_gaussian_quantiles, n_samples=2400, n_features=6, n_classes=4)
MOONS = drawn(datasets.make_moons, n_samples=2300, noise=0.25)
CIRCLES = drawn(datasets.make_circles, n_samples=2250, noise=0.15, factor=0.6)
FRIEDMAN1 = drawn(datasets.make_friedman1, n_samples=2300, noise=1.0)
FRIEDMAN2 = drawn(datasets.make_friedman2, n_samples=2250, noise=125.0)
OVERLAPPING = drawn(datasets.make_blobs, n_samples=2200, n_features=8, centers=5, cluster_std=4.0)
SPARSE_SUM = drawn(datasets.make_sparse_uncorrelated, n_samples=2200, n_features=10)
SWISS_ROLL = drawn(datasets.make_swiss_roll, n_samples=2250, noise=0.5)
RARE_CLASSES = drawn(
    datasets.make_classification,
    n_samples=2400,
    n_features=15,
    n_informative=6,
    n_classes=5,
    weights=[0.6, 0.2, 0.1, 0.06],
    class_sep=1.5,
)
FRIEDMAN3 = drawn(datasets.make_friedman3, n_samples=2250, noise=0.1)

SUITES = {
    suite.name: suite
    for suite in [
        Suite("breast_cancer", bundled(datasets.load_breast_cancer), 300, "plain"),
        Suite("classification", CLASSIFICATION, 600, "plain"),
        Suite("digits", DIGITS, 500, "plain"),
        Suite("digits_noisy", DIGITS, 500, "plain", noise=0.15),
        Suite("moons", MOONS, 300, "plain"),
        Suite("wine", bundled(datasets.load_wine), 100, "regularised"),
        Suite("quantiles", QUANTILES, 400, "regularised", noise=0.1),
        Suite("digits_convolutional", DIGITS, 400, "convolutional", image=(8, 8)),
        Suite("mnist", mnist, 500, "regularised"),
        Suite("diabetes", bundled(datasets.load_diabetes), 250, "plain", task="regression"),
        Suite("friedman1", FRIEDMAN1, 300, "regularised", task="regression"),
        Suite("hastie", hastie, 500, "regularised", one_logit=True),
        Suite(
            "mnist_noisy_convolutional",
            mnist,
            500,
            "convolutional",
            image=(14, 14),
            noise=0.1,
            overrides={"width": [4, 8], "epochs": [5, 15, 30]},
        ),
        Suite("friedman2", FRIEDMAN2, 250, "plain", task="regression"),
        *(
            dataclasses.replace(suite, n_configurations=24)
            for suite in [
                Suite("circles", CIRCLES, 250, "plain", noise=0.1, one_logit=True),
                Suite("spirals", spirals, 300, "plain"),
                Suite("imbalanced", IMBALANCED, 400, "regularised"),
                Suite("segments", segments, 350, "plain"),
                Suite("phishing", phishing, 300, "regularised", one_logit=True),
                Suite("signals", signals, 400, "convolutional", image=(1, 64)),
                Suite("autompg", autompg, 200, "plain", task="regression"),
                Suite("friedman3", FRIEDMAN3, 250, "regularised", task="regression"),
                Suite("bananas", bananas, 300, "regularised", one_logit=True),
                Suite("waveform", waveform, 250, "plain"),
                Suite("display_digits", display_digits, 300, "regularised"),
                Suite("loans", loans, 300, "plain", one_logit=True),
                Suite("centroids", centroids, 300, "regularised"),
                Suite("checkerboard", checkerboard, 300, "plain"),
                Suite("sparse_linear", sparse_linear, 200, "plain"),
                Suite("overlapping", OVERLAPPING, 200, "regularised"),
                Suite(
                    "parity", parity, 300, "convolutional", image=(8, 8), noise=0.1, one_logit=True
                ),
                Suite("approval", approval, 250, "regularised", task="regression"),
                Suite("planes", planes, 250, "plain", task="regression"),
                Suite("swiss_roll", SWISS_ROLL, 250, "plain", task="regression"),
                Suite("yeast", yeast, 300, "regularised", one_logit=True),
                Suite("sums", sums, 250, "plain", one_logit=True),
                Suite("signs", signs, 300, "regularised"),
                Suite("teacher", teacher, 300, "plain", noise=0.1),
                Suite("shapes", shapes, 300, "convolutional", image=(12, 12)),
                Suite("sparse_sum", SPARSE_SUM, 200, "regularised", task="regression"),
                Suite("teacher_regression", teacher_regression, 250, "plain", task="regression"),
                Suite("curve", curve, 100, "plain", task="regression"),
                Suite("arm", arm, 250, "regularised", task="regression"),
            ]
        ),
        *(
            dataclasses.replace(suite, n_configurations=24)
            for suite in [
                Suite("orders", orders, 250, "recurrent", image=(20, 2), one_logit=True),
                Suite("water", water, 200, "recurrent", image=(24, 1), task="regression"),
                Suite("motifs", motifs, 300, "convolutional", image=(1, 48)),
                Suite("patches", patches, 300, "convolutional", image=(8, 8), one_logit=True),
            ]
        ),
        Suite(
            "moved_digits",
            moved_digits,
            400,
            "convolutional",
            image=(18, 18),
            n_configurations=12,
            overrides={"width": [4, 8], "epochs": [5, 15, 30]},
        ),
        *(
            dataclasses.replace(suite, n_configurations=24)
            for suite in [
                Suite("docstrings", docstrings, 300, "regularised"),
                Suite("boston", boston, 250, "regularised", task="regression"),
                Suite("pendulum", pendulum, 250, "plain", task="regression"),
                Suite("uneven_noise", uneven_noise, 200, "plain", task="regression"),
                Suite("sparse_regression", sparse_regression, 200, "plain", task="regression"),
                Suite("rare_classes", RARE_CLASSES, 350, "plain", noise=0.05),
            ]
        ),
        *(
            dataclasses.replace(suite, n_configurations=20)
            for suite in [
                Suite("pulse_counts", pulse_counts, 300, "convolutional", image=(1, 40)),
                Suite(
                    "next_pixel",
                    next_pixel,
                    300,
                    "convolutional",
                    image=(8, 8),
                    task="regression",
                ),
                Suite("turned_digits", turned_digits, 300, "convolutional", image=(8, 8)),
                Suite("walks", walks, 250, "recurrent", image=(16, 1), one_logit=True),
                Suite(
                    "oscillators", oscillators, 250, "recurrent", image=(30, 1), task="regression"
                ),
            ]
        ),
        *(
            dataclasses.replace(suite, held_back=True, n_configurations=24)
            for suite in [
                Suite("sunspots", sunspots, 300, "regularised"),
                Suite("chicks", chicks, 250, "plain", task="regression"),
                Suite("random_tree", random_tree, 300, "plain"),
                Suite("ratios", ratios, 300, "plain"),
                Suite("unsure_labels", unsure_labels, 400, "regularised", one_logit=True),
                Suite("counts", counts, 250, "plain", task="regression"),
                Suite("slant", slant, 250, "regularised", task="regression"),
            ]
        ),
        *(
            dataclasses.replace(suite, held_back=True, n_configurations=20)
            for suite in [
                Suite("backwards", backwards, 400, "recurrent", image=(10, 26), one_logit=True),
                Suite(
                    "larger_digit",
                    larger_digit,
                    350,
                    "convolutional",
                    n_test=400,
                    image=(8, 16),
                    one_logit=True,
                    overrides={"width": [4, 8]},
                ),
                Suite(
                    "capitals",
                    capitals,
                    300,
                    "convolutional",
                    image=(12, 12),
                    one_logit=True,
                    overrides={"width": [4, 8]},
                ),
                Suite("tones", tones, 300, "convolutional", image=(1, 64), task="regression"),
                Suite(
                    "autoregression",
                    autoregression,
                    250,
                    "recurrent",
                    image=(40, 1),
                    task="regression",
                ),
            ]
        ),
    ]
}
