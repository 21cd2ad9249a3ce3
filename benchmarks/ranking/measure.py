"""Take every measure of every network of the selection suites; resumable.

``python measure.py [--networks 24] [--seeds 3] [--jobs 1] [SUITE ...]`` does what is missing, one
network of every suite after the other, and writes ``cache/SUITE.csv``, one row a network and seed.
"""

import argparse
import functools
import hashlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from plain_networks import SUITES, before_and_after, problem
from selection_criterion import CRITERION, OTHER_MEASURES, completed_with_criterion
from suites import Data, Suite
from training import CACHE as TRAINED
from training import SEEDS, trained

from sharpfit.measures import MEASURES, TrainedNetwork

CACHE = Path(__file__).parent / "cache"
SMALLEST_GRID = 20
# Recurrent networks use a layer at every step, which path norms and exact traces do not cover.
RANKED = [name for name, suite in SUITES.items() if suite.grid != "recurrent"]


def measured_network(configuration: dict[str, Any]) -> dict[str, float]:
    """Measure one trained network.

    Parameters
    ----------
    configuration : dict
        Name of the suite, number of the network in it, seed, and a digest of the trained network.

    Returns
    -------
    dict of str to float
        Test and training error, their difference, and measures but for the selection criterion.

    Raises
    ------
    FloatingPointError
        If the network diverged.
    """
    warnings.simplefilter("ignore")
    network, test = trained_network(configuration)
    if not (np.isfinite(test) and bool(torch.isfinite(network.outputs).all())):
        raise FloatingPointError("outputs are not finite")
    suite = SUITES[configuration["suite"]]
    training = training_error(suite, network, rows_of(suite.name, configuration["seed"]))
    values = {name: MEASURES[name].evaluate(network).value for name in OTHER_MEASURES}
    return {"test": test, "training": training, "gap": test - training} | values


def criterion_of_network(configuration: dict[str, Any]) -> dict[str, float]:
    """Take the selection criterion of one trained network.

    Parameters
    ----------
    configuration : dict
        As of `measured_network`.

    Returns
    -------
    dict of str to float
    """
    network, _ = trained_network(configuration)
    return {CRITERION: MEASURES[CRITERION].evaluate(network).value}


def trained_network(configuration: dict[str, Any]) -> tuple[TrainedNetwork, float]:
    """Return a network as the measures see it, and its test error."""
    index, seed = configuration["network"], configuration["seed"]
    suite = SUITES[configuration["suite"]]
    result = trained(suite, index, suite.configurations()[index])
    data, position = rows_of(suite.name, seed), SEEDS.index(seed)
    initial, final = before_and_after(suite, index, result, position, data)
    network = TrainedNetwork(problem(suite, final, data), initial)
    return network, result["test"][0, position].item()


@torch.no_grad()
def training_error(suite: Suite, network: TrainedNetwork, data: Data) -> float:
    """Return the error as the suites define it."""
    outputs = network.outputs.numpy()
    if suite.task == "regression":
        return float(((outputs[:, 0] - data.y) ** 2).mean())
    predicted = outputs[:, 0] > 0 if suite.one_logit else outputs.argmax(axis=1)
    return float((predicted != data.y).mean())


@functools.cache
def rows_of(name: str, seed: int) -> Data:
    """Draw the rows of a suite."""
    return SUITES[name].data(seed)


def settings_of(suite: Suite, index: int) -> dict[str, str]:
    """Return the hyper-parameters of a network as columns of a table."""
    return {f"hp_{name}": str(v) for name, v in suite.configurations()[index].items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", nargs="*", default=RANKED)
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="seeds of a network")
    parser.add_argument("--networks", type=int, default=24, help="networks of a suite")
    parser.add_argument("--jobs", type=int, default=1, help="number of processes")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    CACHE.mkdir(exist_ok=True)
    todo = []
    # Across the suites, so that an unfinished table is balanced.
    for index in range(arguments.networks):
        for name in arguments.suites:
            file = TRAINED / name / f"{index:02d}.pt"
            if file.exists() and len(list(file.parent.glob("*.pt"))) >= SMALLEST_GRID:
                digest = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
                run = {"suite": name, "network": index, "trained": digest}
                todo += [{**run, "seed": seed} for seed in SEEDS[: arguments.seeds]]
    rows = completed_with_criterion(
        measured_network,
        criterion_of_network,
        todo,
        name="suites",
        same_rows=("suite", "seed"),
        n_jobs=arguments.jobs,
        directory=CACHE,
    )
    tables: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        settings = settings_of(SUITES[row["suite"]], row["network"])
        tables.setdefault(row["suite"], []).append(row | settings)
    for name, table in tables.items():
        pd.DataFrame(table).to_csv(CACHE / f"{name}.csv", index=False)
    print(f"{len(rows)} networks, {sum(row.get('seconds', 0) for row in rows):.0f} CPU seconds")


if __name__ == "__main__":
    # By its name, other processes can import it.
    from measure import main as run

    run()
