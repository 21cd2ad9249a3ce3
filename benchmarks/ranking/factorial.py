"""Train a full grid of perceptrons on digits and compare them; times both, resumable.

``python factorial.py [--seeds 3] [--jobs 1]`` does what is missing. Labels of all rows are redrawn
with probability 0.15, so that networks differ in how much noise they take in. The table with the
CPU seconds of training and of `compare_models` is ``cache/factorial.csv``.
"""

import argparse
import functools
import itertools
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plain_networks  # noqa: F401  makes the store of runs importable
import torch
from numpy.typing import NDArray
from selection_criterion import CRITERION, completed_with_criterion
from sklearn.datasets import load_digits

from sharpfit import NetworkClassifier, compare_models
from sharpfit.measures import compute_measures

CACHE = Path(__file__).parent / "cache"
N_TRAINING = 1000
GRID: dict[str, list[Any]] = {
    "lr": [0.02, 0.1, 0.3],
    "batch_size": [32, 128],
    "weight_decay": [0.0, 1e-3, 1e-2],
    "hidden": [[64], [128, 128], [64, 64, 64]],
    "dropout": [0.0, 0.3],
}


@functools.cache
def rows() -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """Draw training and test rows."""
    X, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    y = np.where(rng.random(len(y)) < 0.15, rng.integers(10, size=len(y)), y)
    order = rng.permutation(len(X))
    X, y = (X[order] / 16).astype(np.float32), y[order]
    return X[:N_TRAINING], y[:N_TRAINING], X[N_TRAINING:], y[N_TRAINING:]


def grid_run(configuration: dict[str, Any]) -> dict[str, Any]:
    """Train and compare the network of a configuration.

    Parameters
    ----------
    configuration : dict
        A value of every key of `GRID`, and a seed.

    Returns
    -------
    dict of str to float
        Gap, measures, and CPU seconds of training and comparing.

    Raises
    ------
    FloatingPointError
        If the network diverged.
    """
    warnings.simplefilter("ignore")
    X, y, X_test, y_test = rows()
    estimator = network(configuration)
    start = time.process_time()
    estimator.fit(X, y)
    trained = time.process_time()
    frame = compare_models([estimator], X, y, X_test, y_test).frame()
    compared = time.process_time()
    row = frame.drop(columns="run").iloc[0].to_dict()
    if row.pop("status") != "ok":
        raise FloatingPointError("outputs are not finite")
    row["n_updates"] = int(row["n_updates"])
    return row | {"training_seconds": trained - start, "comparing_seconds": compared - trained}


def criterion_run(configuration: dict[str, Any]) -> dict[str, float]:
    """Train the network of a configuration and take the selection criterion.

    Parameters
    ----------
    configuration : dict
        As of `grid_run`.

    Returns
    -------
    dict of str to float
    """
    warnings.simplefilter("ignore")
    X, y, _, _ = rows()
    estimator = network(configuration).fit(X, y)
    found = compute_measures(estimator, X, y, measures=[CRITERION])
    return {CRITERION: found[CRITERION].value}


def network(configuration: dict[str, Any]) -> NetworkClassifier:
    """Build the network of a configuration, not trained."""
    return NetworkClassifier(
        module__hidden=tuple(configuration["hidden"]),
        module__dropout=configuration["dropout"],
        optimizer__weight_decay=configuration["weight_decay"],
        lr=configuration["lr"],
        batch_size=configuration["batch_size"],
        max_epochs=40,
        random_state=configuration["seed"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="number of processes")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = [
        dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())
    ]
    runs = [{**setting, "seed": seed} for seed in range(arguments.seeds) for setting in settings]
    found = completed_with_criterion(
        grid_run, criterion_run, runs, name="factorial", n_jobs=arguments.jobs, directory=CACHE
    )
    table = pd.DataFrame(found)
    table.to_csv(CACHE / "factorial.csv", index=False)
    training, comparing = table["training_seconds"].sum(), table["comparing_seconds"].sum()
    ratios = table["comparing_seconds"] / table["training_seconds"]
    low, median, high = ratios.quantile([0.25, 0.5, 0.75])
    print(
        f"{len(table)} networks: training {training:.0f} s, comparing {comparing:.0f} s, ratio "
        f"{comparing / training:.2f} (networks: median {median:.2f}, quartiles {low:.2f} to "
        f"{high:.2f}), bar 1"
    )


if __name__ == "__main__":
    # By its name, other processes can import it.
    from factorial import main as run

    run()
