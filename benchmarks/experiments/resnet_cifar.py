"""The sweeps of flat minima with a ResNet on images of CIFAR's shape, for a machine with a GPU.

``python resnet_cifar.py --device cuda --data cifar-10-batches-py`` trains, resumes and writes one
table. ``--data`` names the folder of CIFAR-10's Python version; nothing is ever downloaded, and
without it images of the same shape are drawn. Without a CUDA device nothing is done.
"""

import argparse
import functools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from runs import RESULTS, completed, write_table
from sweeps import BASES, configurations, sweeps
from trained_run import Row, measured, network, train

IMAGE = (3, 32, 32)
BASE = BASES["resnet"] | {"batch_size": 128, "at": 8000, "width": 32, "n_blocks": 3}
BATCH_SIZES = (64, 128, 512)
MAX_EPOCHS = 1000  # beyond the end of every run that fits


def cifar_run(configuration: dict[str, Any]) -> Row:
    """Train and measure one ResNet.

    Parameters
    ----------
    configuration : dict
        As of `trained_run.trained_run`, with the width and number of blocks, the device, and the
        folder of the data or None.

    Returns
    -------
    dict of str to float
    """
    X, y = images(configuration["data"], True, configuration["rows"], configuration["seed"])
    n_test = min(10_000, configuration["rows"])
    X_test, y_test = images(configuration["data"], False, n_test, configuration["seed"])
    estimator = network(configuration, IMAGE).set_params(
        module__width=configuration["width"],
        module__n_blocks=configuration["n_blocks"],
        device=configuration["device"],
        max_epochs=MAX_EPOCHS,
    )
    return measured(train(estimator, X, y), X, y, X_test, y_test)


@functools.cache
def images(
    folder: str | None, training: bool, n_rows: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return images in [-1, 1] and labels, drawn by a seed.

    Parameters
    ----------
    folder : str or None
        CIFAR-10's Python version; None draws images.
    training : bool
        Training or test rows.
    n_rows : int
        How many.
    seed : int
        Which.

    Returns
    -------
    X : ndarray of shape (n_rows, 3, 32, 32)
    y : ndarray of shape (n_rows,)
    """
    rng = np.random.default_rng([seed, training])
    if folder is None:
        return _drawn_images(rng, n_rows)
    names = [f"data_batch_{i}" for i in range(1, 6)] if training else ["test_batch"]
    parts = [pickle.loads((Path(folder) / name).read_bytes(), encoding="bytes") for name in names]
    pixels = np.concatenate([part[b"data"] for part in parts])
    labels = np.concatenate([part[b"labels"] for part in parts])
    chosen = rng.permutation(len(pixels))[:n_rows]
    X = pixels[chosen].reshape(-1, *IMAGE).astype(np.float32) / 127.5 - 1
    return X, labels[chosen].astype(np.int64)


def _drawn_images(
    rng: np.random.Generator, n_rows: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draw images of ten classes: a smooth pattern each, moved about, under noise."""
    coarse = np.random.default_rng(0).normal(size=(10, 3, 8, 8))
    patterns = coarse.repeat(4, axis=2).repeat(4, axis=3)
    labels = rng.integers(10, size=n_rows)
    shifts = rng.integers(-6, 7, size=(n_rows, 2))
    moved = [np.roll(patterns[k], s, axis=(1, 2)) for k, s in zip(labels, shifts, strict=True)]
    X = 0.4 * np.stack(moved) + 0.6 * rng.normal(size=(n_rows, *IMAGE))
    return X.astype(np.float32), labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu for a trial")
    parser.add_argument("--data", help="folder of CIFAR-10's Python version")
    parser.add_argument("--rows", type=int, default=10_000, help="training rows")
    parser.add_argument("--updates", type=int, default=BASE["at"], help="updates of every run")
    parser.add_argument("--seeds", type=int, default=2, help="number of seeds")
    parser.add_argument("--first", type=int, help="only so many runs")
    arguments = parser.parse_args()
    if torch.device(arguments.device).type == "cuda" and not torch.cuda.is_available():
        print("No CUDA device here, so nothing is trained; --device cpu --rows 200 tries the code.")
        return
    if arguments.data is not None and not (Path(arguments.data) / "test_batch").exists():
        parser.error(f"--data {arguments.data} holds no file test_batch of CIFAR-10")
    base = BASE | {"rows": arguments.rows, "at": arguments.updates}
    base |= {"data": arguments.data, "device": arguments.device}
    runs = configurations(sweeps(base, BATCH_SIZES), arguments.seeds)[: arguments.first]
    name = "resnet_cifar" if arguments.data else "resnet_drawn_images"
    rows = completed(cifar_run, runs, name=name)
    write_table(rows, RESULTS / f"{name}.csv")


if __name__ == "__main__":
    main()
