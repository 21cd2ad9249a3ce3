"""Progressive sharpening to 2 / lr, for several learning rates.

Run with ``OMP_NUM_THREADS=1 python benchmarks/experiments/progressive_sharpening.py``.
"""

from typing import Any

import numpy as np
import torch
from findings import Finding, by_setting, interval, report
from runs import completed
from scipy.stats import spearmanr
from torch import nn
from watched_descent import column, even_schedule, images, one_hot, perceptron, watched_descent

from sharpfit.monitoring import diagnose

Row = dict[str, Any]

# Descent time, learning rate times updates, is the same for all learning rates of a problem.
PROBLEMS = {
    ("digits", "squared error"): (1200, (0.5, 1.0, 1.4, 2.0)),
    ("mnist", "squared error"): (300, (0.5, 0.6)),
    ("digits", "cross-entropy"): (300, (1.8, 2.5)),
}
# On digits the smallest learning rate puts the limit out of reach, and shows how far sharpness goes
# when nothing holds it.
FREE = ("digits", 0.5)
SEEDS = range(5)
CONFIGURATIONS = [
    {"data": data, "loss": loss, "lr": lr, "n_updates": round(time / lr), "seed": seed}
    for (data, loss), (time, rates) in PROBLEMS.items()
    for lr in rates
    for seed in SEEDS
]


def run(configuration: Row) -> Row:
    """Descend at one learning rate; return the trajectory and what is read off it."""
    torch.set_num_threads(1)
    seed, n_updates = configuration["seed"], configuration["n_updates"]
    inputs, labels = images(configuration["data"], 500, seed)
    squared = configuration["loss"] == "squared error"
    module = perceptron(inputs.shape[1], seed)
    records = watched_descent(
        module,
        nn.MSELoss() if squared else nn.CrossEntropyLoss(),
        inputs,
        one_hot(labels) if squared else labels,
        torch.optim.SGD(module.parameters(), lr=configuration["lr"]),
        schedule=even_schedule(n_updates, 41),
    )
    ratio = column(records, "sharpness") * configuration["lr"] / 2
    jacobian = column(records, "jacobian_max")
    read = diagnose(records)
    edge = read.edge_update
    before = slice(0, len(records))
    if edge is not None:
        before = slice(0, int(np.argmax(column(records, "update") >= edge)) + 1)
    late = slice(2 * len(records) // 3, None)
    rank = float("nan")
    if len(ratio[before]) >= 5:
        rank = float(spearmanr(ratio[before], jacobian[before]).statistic)
    return {
        "limit": 2 / configuration["lr"],
        "edge_update": float("nan") if edge is None else edge,
        "largest_ratio": float(ratio.max()),
        "late_ratio": float(np.median(ratio[late])),
        "late_share_at_edge": float(np.mean(ratio[late] >= 0.9)),
        "rank_correlation_before_edge": rank,
        "last_loss": records[-1]["loss"],
        "last_sharpness": records[-1]["sharpness"],
        "first_jacobian": float(jacobian[0]),
        "edge_jacobian": float("nan") if edge is None else float(jacobian[before][-1]),
        "last_jacobian": float(jacobian[-1]),
        "loss_slope_below_response": float(
            np.mean(column(records, "loss_slope_bound") <= column(records, "response_jacobian_max"))
        ),
        "trajectory": records,
    }


def summarise(rows: list[Row]) -> list[Row]:
    """Return one row a learning rate, with intervals over seeds."""
    table = []
    for (data, loss, lr), runs in by_setting(rows, "data", "loss", "lr").items():
        mean = {
            name: interval([run[name] for run in runs])
            for name in ("late_ratio", "largest_ratio", "last_sharpness", "last_loss")
        }
        growth = interval([run["last_jacobian"] / run["first_jacobian"] for run in runs])
        reached = [run["edge_update"] for run in runs if np.isfinite(run["edge_update"])]
        table.append(
            {
                "data": data,
                "loss": loss,
                "lr": lr,
                "2 / lr": f"{2 / lr:.3g}",
                "edge reached": f"{len(reached)} of {len(runs)}",
                "at update": f"{np.median(reached):.0f}" if reached else "",
                "sharpness / limit, last third": mean["late_ratio"],
                "largest sharpness / limit": mean["largest_ratio"],
                "last sharpness": mean["last_sharpness"],
                "last Jacobian / first": growth,
                "last loss": mean["last_loss"],
            }
        )
    return table


def findings(rows: list[Row]) -> list[Finding]:
    """Return the verdicts."""
    squared = [row for row in rows if row["loss"] == "squared error"]
    entropy = [row for row in rows if row["loss"] == "cross-entropy"]
    late = {
        key: interval([run["late_ratio"] for run in runs])
        for key, runs in by_setting(squared, "data", "lr").items()
        if key != FREE
    }
    ranks = interval([row["rank_correlation_before_edge"] for row in squared])
    held = [row for row in squared if (row["data"], row["lr"]) != FREE]
    reached = sum(np.isfinite(row["edge_update"]) for row in held)
    free = interval([row["last_sharpness"] for row in squared if (row["data"], row["lr"]) == FREE])
    above = {
        name: interval([row["loss_slope_below_response"] for row in group])
        for name, group in (("squared error", squared), ("cross-entropy", entropy))
    }
    growth = interval([row["last_jacobian"] / row["first_jacobian"] for row in squared])
    at_edge = interval([row["last_jacobian"] / row["edge_jacobian"] for row in squared])
    by_rate = {
        (data, seed): spearmanr(
            [run["lr"] for run in runs], [run["last_sharpness"] for run in runs]
        ).statistic
        for (data, seed), runs in by_setting(squared, "data", "seed").items()
    }
    left = [row for row in entropy if row["largest_ratio"] >= 0.9]
    entropy_growth = interval([row["last_jacobian"] / row["first_jacobian"] for row in entropy])
    return [
        Finding(
            "While the loss falls, Jacobian and sharpness rise together.",
            "Squared error, up to the edge: rank correlation of sharpness and largest Jacobian "
            f"{ranks} over {len(squared)} runs; the Jacobian grew to {growth} times its first "
            "value.",
            (ranks.low > 0.5, growth.low > 1),
        ),
        Finding(
            "The Jacobian at the rows is at least the slope that the losses alone imply somewhere "
            "between them.",
            f"So in {100 * above['squared error'].mean:.3g} % of the measurements with the squared "
            f"error, and in {100 * above['cross-entropy'].mean:.3g} % with cross-entropy "
            "(Jacobian of "
            "the probabilities), where the network is certain, and flat, at its rows.",
            (above["squared error"].mean == 1, above["cross-entropy"].mean == 1),
        ),
        Finding(
            "Sharpness rises to 2 / lr and stays there.",
            f"Squared error: {reached} of {len(held)} runs came within a tenth of 2 / lr. In the "
            "last "
            f"third of training sharpness was {min(v.mean for v in late.values()):.3g} to "
            f"{max(v.mean for v in late.values()):.3g} of 2 / lr (means of the {len(late)} "
            "settings). "
            f"With the limit out of reach it went to {free} on digits. Its rank correlation with "
            "the "
            f"learning rate is at most {max(by_rate.values()):.2g} in {len(by_rate)} groups of one "
            "data set and seed.",
            (
                reached == len(held),
                all(v.low >= 0.9 and v.high <= 1.1 for v in late.values()),
                max(by_rate.values()) < -0.9,
            ),
        ),
        Finding(
            "At the edge the Jacobian goes on rising with the falling loss, although sharpness is "
            "held "
            "at 2 / lr.",
            f"Squared error: from the edge to the end the Jacobian grew by the factor {at_edge}.",
            (at_edge.low > 1,),
        ),
        Finding(
            "With cross-entropy, sharpness leaves the limit again as the loss curvature vanishes, "
            "while the Jacobian stays large.",
            f"{len(left)} of {len(entropy)} runs reached the limit and "
            f"{sum(row['late_ratio'] < 0.5 for row in left)} of these were below half of it in the "
            f"last third; the Jacobian ended at {entropy_growth} times its first value.",
            (
                len(left) > 0 and all(row["late_ratio"] < 0.5 for row in left),
                entropy_growth.low > 1,
            ),
        ),
    ]


def main() -> None:
    rows = completed(run, CONFIGURATIONS, name="progressive_sharpening")
    report("progressive_sharpening", rows, summarise(rows), findings(rows))


if __name__ == "__main__":
    main()
