"""Take every measure of every network of the selection suites; resumable.

``python measure.py [--minutes 10] [--networks 24] [--seeds 3] [SUITE ...]`` goes on where it
stopped. Rows are kept in ``cache/SUITE.csv``, one a network and seed.
"""

import argparse
import functools
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from plain_networks import before_and_after, problem
from suites import SUITES, Data, Suite
from training import CACHE as TRAINED
from training import SEEDS, trained

from sharpfit.measures import MEASURES, TrainedNetwork

CACHE = Path(__file__).parent / "cache"
SMALLEST_GRID = 20


@torch.no_grad()
def training_error(suite: Suite, network: TrainedNetwork, data: Data) -> float:
    outputs = network.outputs.numpy()
    if suite.task == "regression":
        return float(((outputs[:, 0] - data.y) ** 2).mean())
    predicted = outputs[:, 0] > 0 if suite.one_logit else outputs.argmax(axis=1)
    return float((predicted != data.y).mean())


@functools.cache
def data_of(name: str, seed: int) -> Data:
    return SUITES[name].data(seed)


def rows_of(suite: Suite, index: int, n_seeds: int) -> pd.DataFrame:
    """One row for each seed of a configuration."""
    configuration = suite.configurations()[index]
    result = trained(suite, index, configuration)
    rows = []
    for position, seed in enumerate(SEEDS[:n_seeds]):
        data = data_of(suite.name, seed)
        initial, final = before_and_after(suite, index, result, position, data)
        network = TrainedNetwork(problem(suite, final, data), initial)
        test = result["test"][0, position].item()
        row = {"seed": seed, "configuration": index, "status": "ok", "test": test}
        if np.isfinite(test) and bool(torch.isfinite(network.outputs).all()):
            row["training"] = training_error(suite, network, data)
            row["gap"] = test - row["training"]
            row |= {name: measure.evaluate(network).value for name, measure in MEASURES.items()}
        else:
            row["status"] = "diverged: outputs are not finite"
        rows.append(row)
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", nargs="*", default=list(SUITES))
    parser.add_argument("--minutes", type=float, default=10.0, help="stop after this CPU time")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="seeds of a network")
    parser.add_argument("--networks", type=int, default=24, help="networks of a suite")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    CACHE.mkdir(exist_ok=True)
    started = time.process_time()
    # Across the suites, so that an unfinished table is balanced.
    for index in range(arguments.networks):
        for name in arguments.suites:
            suite, path = SUITES[name], CACHE / f"{name}.csv"
            files = sorted((TRAINED / name).glob("*.pt"))
            if len(files) < SMALLEST_GRID or not (TRAINED / name / f"{index:02d}.pt").exists():
                continue
            known = pd.read_csv(path) if path.exists() else pd.DataFrame({"configuration": []})
            if index in set(known["configuration"]):
                continue
            table = pd.concat([known, rows_of(suite, index, arguments.seeds)])
            temporary = path.with_suffix(".tmp")
            table.to_csv(temporary, index=False)
            temporary.replace(path)
            if time.process_time() - started > 60 * arguments.minutes:
                print(
                    f"stopped at network {index}; {time.process_time() - started:.0f} CPU seconds"
                )
                return
    print(f"done; {time.process_time() - started:.0f} CPU seconds")


if __name__ == "__main__":
    main()
