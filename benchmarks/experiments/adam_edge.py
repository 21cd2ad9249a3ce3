"""Full-batch Adam at the edge of stability of its preconditioned curvature.

Run with ``OMP_NUM_THREADS=1 python benchmarks/experiments/adam_edge.py``.
"""

from typing import Any

import numpy as np
import torch
from findings import Finding, Interval, by_setting, interval, report
from runs import completed
from torch import nn
from watched_descent import column, even_schedule, images, one_hot, perceptron, watched_descent

Row = dict[str, Any]

# Learning rates and decays of the averaged gradient; the smallest limit first.
OPTIMISERS = {
    "digits": ((0.001, 0.0), (0.001, 0.5), (0.001, 0.9), (0.003, 0.9)),
    "mnist": ((0.001, 0.5),),
}
SEEDS = range(5)
CONFIGURATIONS = [
    {"data": data, "lr": lr, "beta1": beta1, "n_updates": 1200 if data == "digits" else 400}
    | {"seed": seed}
    for data, settings in OPTIMISERS.items()
    for lr, beta1 in settings
    for seed in SEEDS
]


def run(configuration: Row) -> Row:
    """Train by full-batch Adam on the squared error; return the trajectory."""
    torch.set_num_threads(1)
    seed = configuration["seed"]
    inputs, labels = images(configuration["data"], 500, seed)
    module = perceptron(inputs.shape[1], seed)
    records = watched_descent(
        module,
        nn.MSELoss(),
        inputs,
        one_hot(labels),
        torch.optim.Adam(
            module.parameters(), lr=configuration["lr"], betas=(configuration["beta1"], 0.999)
        ),
        # The preconditioner exists from the first update on.
        schedule=[update for update in even_schedule(configuration["n_updates"], 31) if update],
    )
    ratio = column(records, "trained_sharpness") / column(records, "stability_limit")
    late = slice(2 * len(records) // 3, None)
    reached = ratio >= 0.9
    return {
        "limit": records[-1]["stability_limit"],
        "edge_update": records[int(np.argmax(reached))]["update"]
        if reached.any()
        else float("nan"),
        "late_ratio": float(np.median(ratio[late])),
        "late_lowest": float(ratio[late].min()),
        "late_highest": float(ratio[late].max()),
        "late_plain_ratio": float(np.median(column(records, "sharpness")[late]))
        * configuration["lr"]
        / 2,
        "sharpness_growth": records[-1]["sharpness"] / records[0]["sharpness"],
        "jacobian_growth": records[-1]["jacobian_max"] / records[0]["jacobian_max"],
        "last_loss": records[-1]["loss"],
        "trajectory": records,
    }


def summarise(rows: list[Row]) -> list[Row]:
    """Return one row a setting, with intervals over seeds."""

    def cell(runs: list[Row], name: str) -> Interval:
        return interval([run[name] for run in runs])

    return [
        {
            "data": data,
            "lr": lr,
            "beta1": beta1,
            "limit": f"{runs[0]['limit']:.4g}",
            "at update": f"{np.nanmedian([run['edge_update'] for run in runs]):.0f}",
            "preconditioned sharpness / limit, last third": cell(runs, "late_ratio"),
            "sharpness / (2 / lr), last third": cell(runs, "late_plain_ratio"),
            "last Jacobian / first": cell(runs, "jacobian_growth"),
            "last loss": cell(runs, "last_loss"),
        }
        for (data, lr, beta1), runs in by_setting(rows, "data", "lr", "beta1").items()
    ]


def findings(rows: list[Row]) -> list[Finding]:
    """Return the verdicts."""
    late = {
        key: interval([run["late_ratio"] for run in runs])
        for key, runs in by_setting(rows, "data", "lr", "beta1").items()
    }
    plain = max(row["late_plain_ratio"] for row in rows)
    growth = interval([row["jacobian_growth"] for row in rows])
    return [
        Finding(
            "Under full-batch Adam the preconditioned sharpness rises to (2 + 2 beta1) / "
            "((1 - beta1) lr) and stays there.",
            f"In the last third of training it was {min(v.mean for v in late.values()):.3g} to "
            f"{max(v.mean for v in late.values()):.3g} of that limit (means of {len(late)} "
            "settings; "
            f"single measurements {min(row['late_lowest'] for row in rows):.3g} to "
            f"{max(row['late_highest'] for row in rows):.3g}).",
            tuple(v.low >= 0.9 and v.high <= 1.1 for v in late.values()),
        ),
        Finding(
            "Sharpness itself is not held: it is far below 2 / lr, and the Jacobian goes on "
            "rising.",
            f"Sharpness was at most {plain:.2g} of 2 / lr; the largest Jacobian norm ended at "
            f"{growth} times its first value.",
            (plain < 0.5, growth.low > 1),
        ),
    ]


def main() -> None:
    rows = completed(run, CONFIGURATIONS, name="adam_edge")
    report("adam_edge", rows, summarise(rows), findings(rows))


if __name__ == "__main__":
    main()
