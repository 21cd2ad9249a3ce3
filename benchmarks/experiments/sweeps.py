"""Flat minima across runs: train and measure the networks of every sweep, resumably.

``python sweeps.py mlp cnn resnet cnn_mnist --seeds 3`` does what is missing and writes one table a
study: a kind of network on one data set.
"""

import argparse
from itertools import product
from typing import Any

import torch
from runs import RESULTS, write_table
from selection_criterion import completed_with_criterion
from trained_run import criterion_run, trained_run

Configuration = dict[str, Any]

# What every run of a study has unless a sweep changes it.
BASES: dict[str, Configuration] = {
    study: {
        "network": network,
        "data": data,
        "rows": rows,
        "batch_size": batch_size,
        "lr": 0.05,
        "weight_decay": 0.0,
        "label_smoothing": 0.0,
        "sam": 0.0,
        "mixup": 0.0,
        "shift": 0,
        "dropout": 0.0,
        "jacobian_penalty": 0.0,
        "equal": "updates",
        "at": updates,
    }
    for study, network, data, rows, batch_size, updates in (
        ("mlp", "mlp", "mnist", 500, 50, 600),
        ("cnn", "cnn", "digits", 300, 30, 300),
        ("resnet", "resnet", "digits", 300, 30, 400),
        ("cnn_mnist", "cnn", "mnist", 500, 50, 300),
    )
}

LEARNING_RATES = {"mlp": (0.01, 0.03, 0.1, 0.2), "cnn": (0.01, 0.03, 0.1)}
WEIGHT_DECAYS = {"mlp": (0.0, 1e-3, 3e-3, 1e-2), "cnn": (0.0, 1e-3, 1e-2)}
BATCH_SIZES = {"mlp": (10, 25, 50, 125, 250), "cnn": (10, 30, 100)}
TRAINING_LOSS = 0.05

STRENGTHS: dict[str, tuple[float, ...]] = {
    "label_smoothing": (0.05, 0.1, 0.3),
    "weight_decay": (1e-3, 3e-3, 1e-2),
    "sam": (0.02, 0.05, 0.15),
    "mixup": (0.1, 0.3, 1.0),
    "shift": (1, 2),
    "dropout": (0.1, 0.3, 0.5),
}
JACOBIAN_PENALTIES = (1e-5, 1e-4, 1e-3)
# Here weight decay alone throws the weights further away with every update.
DIVERGING = {"lr": 1000.0, "weight_decay": 1e-2}


def sweeps(
    base: Configuration, batch_sizes: tuple[int, ...] | None = None
) -> dict[str, list[Configuration]]:
    """Return the settings of every sweep around a base, seeds apart.

    Parameters
    ----------
    base : dict
        One of `BASES`, or one like them.
    batch_sizes : tuple of int, optional
        Levels other than those of `BATCH_SIZES`.

    Returns
    -------
    dict of str to list of dict
        Sweeps share settings, the base among them.
    """
    levels = "mlp" if base["network"] == "mlp" else "cnn"
    grid = [
        {**base, "lr": lr, "weight_decay": weight_decay}
        for lr, weight_decay in product(LEARNING_RATES[levels], WEIGHT_DECAYS[levels])
    ]
    batches = [{**base, "batch_size": size} for size in batch_sizes or BATCH_SIZES[levels]]
    n_epochs = base["at"] * base["batch_size"] // base["rows"]
    return {
        "weight decay x learning rate, equal updates": grid,
        "weight decay x learning rate, equal training loss": [
            {**setting, "equal": "training_loss", "at": TRAINING_LOSS} for setting in grid
        ],
        "batch size, equal updates": batches,
        "batch size, equal epochs": [
            {**setting, "at": n_epochs * -(-base["rows"] // setting["batch_size"])}
            for setting in batches
        ],
        **{
            f"regulariser: {name}": [base, *({**base, name: strength} for strength in strengths)]
            for name, strengths in STRENGTHS.items()
        },
        "intervention: jacobian_penalty": [
            base,
            *({**base, "jacobian_penalty": strength} for strength in JACOBIAN_PENALTIES),
        ],
        "a learning rate that diverges": [{**base, **DIVERGING}],
    }


def configurations(settings: dict[str, list[Configuration]], n_seeds: int) -> list[Configuration]:
    """Return every run of the sweeps once, all settings of the first seed first.

    Parameters
    ----------
    settings : dict of str to list of dict
        Of `sweeps`.
    n_seeds : int

    Returns
    -------
    list of dict
    """
    distinct = {repr(setting): setting for sweep in settings.values() for setting in sweep}
    return [{**s, "seed": seed} for seed in range(n_seeds) for s in distinct.values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("studies", nargs="*", default=list(BASES), help=", ".join(BASES))
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--jobs", type=int, default=1, help="number of processes")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for study in arguments.studies:
        runs = configurations(sweeps(BASES[study]), arguments.seeds)
        name = f"flat_minima_{study}"
        rows = completed_with_criterion(
            trained_run, criterion_run, runs, name=name, n_jobs=arguments.jobs
        )
        write_table(rows, RESULTS / f"{name}.csv")
        print(f"{study}: {len(rows)} runs, {sum(r.get('seconds', 0) for r in rows):.0f} s")


if __name__ == "__main__":
    main()
