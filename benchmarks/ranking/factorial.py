"""Train a full grid of perceptrons on digits and compare them; times both, resumable.

``python factorial.py [--minutes 10]``. Labels of all rows are redrawn with probability 0.15, so
that networks differ in how much noise they take in. Rows are kept in ``cache/factorial.csv`` and
CPU seconds of training and of `compare_models` in ``cache/factorial_seconds.csv``.
"""

import argparse
import itertools
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_digits

from sharpfit import NetworkClassifier, compare_models

CACHE = Path(__file__).parent / "cache"
ROWS, SECONDS = CACHE / "factorial.csv", CACHE / "factorial_seconds.csv"
N_TRAINING = 1000
AT_ONCE = 6
GRID = {
    "lr": [0.02, 0.1, 0.3],
    "batch_size": [32, 128],
    "weight_decay": [0.0, 1e-3, 1e-2],
    "hidden": [(64,), (128, 128), (64, 64, 64)],
    "dropout": [0.0, 0.3],
}


def rows():
    X, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    y = np.where(rng.random(len(y)) < 0.15, rng.integers(10, size=len(y)), y)
    order = rng.permutation(len(X))
    X, y = (X[order] / 16).astype(np.float32), y[order]
    return X[:N_TRAINING], y[:N_TRAINING], X[N_TRAINING:], y[N_TRAINING:]


def network(setting, seed):
    return NetworkClassifier(
        module__hidden=setting["hidden"],
        module__dropout=setting["dropout"],
        optimizer__weight_decay=setting["weight_decay"],
        lr=setting["lr"],
        batch_size=setting["batch_size"],
        max_epochs=40,
        random_state=seed,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="stop after this CPU time")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    CACHE.mkdir(exist_ok=True)
    started = time.process_time()
    data = rows()
    settings = [
        dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())
    ]
    jobs = [(seed, setting) for seed in range(arguments.seeds) for setting in settings]
    known = pd.read_csv(ROWS) if ROWS.exists() else pd.DataFrame()
    seconds = pd.read_csv(SECONDS) if SECONDS.exists() else pd.DataFrame()
    for start in range(len(known), len(jobs), AT_ONCE):
        batch = jobs[start : start + AT_ONCE]
        clock = time.process_time()
        fitted = [network(setting, seed).fit(*data[:2]) for seed, setting in batch]
        trained = time.process_time()
        comparison = compare_models(
            fitted,
            *data,
            hyperparameters={name: [setting[name] for _, setting in batch] for name in GRID},
        )
        compared = time.process_time()
        table = comparison.frame().assign(seed=[seed for seed, _ in batch])
        known = pd.concat([known, table])
        spent = {
            "networks": len(batch),
            "training": trained - clock,
            "comparing": compared - trained,
        }
        seconds = pd.concat([seconds, pd.DataFrame([spent])])
        known.to_csv(ROWS, index=False)
        seconds.to_csv(SECONDS, index=False)
        if time.process_time() - started > 60 * arguments.minutes:
            break
    ratios = seconds["comparing"] / seconds["training"]
    low, median, high = ratios.quantile([0.25, 0.5, 0.75])
    total = seconds.sum()
    print(
        f"{total['networks']:.0f} of {len(jobs)} networks: training {total['training']:.0f} s, "
        f"comparing {total['comparing']:.0f} s, ratio {total['comparing'] / total['training']:.2f} "
        f"(batches: median {median:.2f}, quartiles {low:.2f} to {high:.2f}), bar 1"
    )


if __name__ == "__main__":
    main()
