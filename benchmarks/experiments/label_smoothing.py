"""Sharpness and Jacobian under label smoothing: together early, apart late, and why.

Run with ``OMP_NUM_THREADS=1 python benchmarks/experiments/label_smoothing.py``.
"""

from typing import Any

import numpy as np
import torch
from findings import Finding, Interval, by_setting, interval, report
from runs import completed
from scipy.stats import spearmanr
from torch import nn
from watched_descent import Record, column, even_schedule, images, perceptron, watched_descent

Row = dict[str, Any]

LEVELS = (0.0, 0.05, 0.2, 0.5)
# Far below the edge of stability, so that sharpness is free to go where the factors take it.
DESCENTS = {"digits": (0.2, 750), "mnist": (0.1, 400)}
SEEDS = range(5)
# Measured densely at first, where most of the loss goes.
N_MEASUREMENTS = 24
CONFIGURATIONS = [
    {"data": data, "smoothing": level, "lr": lr, "n_updates": n_updates, "seed": seed}
    for data, (lr, n_updates) in DESCENTS.items()
    for level in LEVELS
    for seed in SEEDS
]
FACTORS = ("loss_curvature", "backward_energy", "feature_energy", "alignment")


def run(configuration: Row) -> Row:
    """Descend on smoothed labels; return the trajectory."""
    torch.set_num_threads(1)
    seed, n_updates = configuration["seed"], configuration["n_updates"]
    inputs, labels = images(configuration["data"], 500, seed)
    module = perceptron(inputs.shape[1], seed)
    records = watched_descent(
        module,
        nn.CrossEntropyLoss(label_smoothing=configuration["smoothing"]),
        inputs,
        labels,
        torch.optim.SGD(module.parameters(), lr=configuration["lr"]),
        schedule=schedule(n_updates),
    )
    early, late = phases(records, configuration["smoothing"])
    values: Row = {
        "largest_ratio": float(column(records, "sharpness").max() / (2 / configuration["lr"]))
    }
    for name, part in (("early", early), ("late", late)):
        for other in ("jacobian_mean", "jacobian_max", "first_layer_trace"):
            values[f"{name}_{other}"] = correlation(records[part], other)
    last_half = records[late]
    for name in ("sharpness", "jacobian_mean", "first_layer_trace", *FACTORS):
        values[f"{name}_growth"] = last_half[-1][name] / last_half[0][name]
    return values | {"trajectory": records}


def schedule(n_updates: int) -> list[int]:
    """Return the updates to measure after: half of them in equal steps, half in equal ratios."""
    early = {round(u) for u in np.geomspace(1, n_updates, N_MEASUREMENTS)}
    return sorted(early | set(even_schedule(n_updates, N_MEASUREMENTS)))


def phases(records: list[Record], smoothing: float) -> tuple[slice, slice]:
    """Return the early phase, in which half of the loss above its floor goes, and the last half."""
    soft = np.full(10, smoothing / 10)
    soft[0] += 1 - smoothing
    floor = -float(np.sum(soft * np.log(np.where(soft > 0, soft, 1.0))))
    excess = column(records, "loss") - floor
    end = int(np.argmax(excess <= excess[0] / 2))
    updates = column(records, "update")
    return slice(0, end + 1), slice(int(np.argmax(updates >= updates[-1] / 2)), None)


def correlation(records: list[Record], name: str) -> float:
    """Return the rank correlation of sharpness with another value along a trajectory."""
    return float(spearmanr(column(records, "sharpness"), column(records, name)).statistic)


def early_gauss_newton(run: Row) -> float:
    """Return the rank correlation of the Gauss-Newton part with the Jacobian, early."""
    early = run["trajectory"][phases(run["trajectory"], run["smoothing"])[0]]
    return float(
        spearmanr(column(early, "gauss_newton_part"), column(early, "jacobian_mean")).statistic
    )


def summarise(rows: list[Row]) -> list[Row]:
    """Return one row a level, with intervals over seeds."""

    def cell(runs: list[Row], name: str) -> Interval:
        return interval([run[name] for run in runs])

    return [
        {
            "data": data,
            "smoothing": level,
            "early: sharpness with Jacobian": cell(runs, "early_jacobian_mean"),
            "early: its Gauss-Newton part with Jacobian": interval(
                [early_gauss_newton(run) for run in runs]
            ),
            "late: sharpness with Jacobian": cell(runs, "late_jacobian_mean"),
            "late: sharpness with product of factors": cell(runs, "late_first_layer_trace"),
            "last half: sharpness": cell(runs, "sharpness_growth"),
            "product of factors": cell(runs, "first_layer_trace_growth"),
            "loss curvature": cell(runs, "loss_curvature_growth"),
            "backward": cell(runs, "backward_energy_growth"),
            "features": cell(runs, "feature_energy_growth"),
            "alignment": cell(runs, "alignment_growth"),
            "Jacobian": cell(runs, "jacobian_mean_growth"),
        }
        for (data, level), runs in by_setting(rows, "data", "smoothing").items()
    ]


def findings(rows: list[Row]) -> list[Finding]:
    """Return the verdicts."""
    early = {
        data: interval([run["early_jacobian_mean"] for run in runs])
        for (data,), runs in by_setting(rows, "data").items()
    }
    late = {
        level: interval([run["late_jacobian_mean"] for run in runs])
        for (level,), runs in by_setting(rows, "smoothing").items()
    }
    product = interval([row["late_first_layer_trace"] for row in rows])
    unsmoothed = [row for row in rows if row["smoothing"] == 0]
    curvature = interval([row["loss_curvature_growth"] for row in unsmoothed])
    sharpness = interval([row["sharpness_growth"] for row in unsmoothed])
    steepness = interval([row["jacobian_mean_growth"] for row in unsmoothed])
    at_end = []
    for runs in by_setting(rows, "data", "seed").values():
        last = [run["trajectory"][-1] for run in runs]
        levels = [run["smoothing"] for run in runs]
        at_end.append(spearmanr(levels, column(last, "jacobian_mean")).statistic)
    ordered = float(np.max(at_end))
    told = ", ".join(f"{value} at smoothing {level:g}" for level, value in late.items())
    missed = interval(
        [abs(np.log(row["sharpness_growth"] / row["first_layer_trace_growth"])) for row in rows]
    )
    return [
        Finding(
            "Sharpness and Jacobian move together early in training.",
            "Rank correlation along the trajectory while the first half of the loss goes: "
            + ", ".join(f"{value} on {data}" for data, value in early.items())
            + ".",
            tuple(value.low > 0.5 for value in early.values()),
        ),
        Finding(
            "They part later without smoothing, and stay together with much of it.",
            f"Rank correlation in the last half of the updates: {told}.",
            (late[0.0].high < 0, late[0.5].low > 0.5),
        ),
        Finding(
            "The vanishing loss curvature explains the parting: multiplied with the other factors "
            "it "
            "follows sharpness.",
            f"Without smoothing, the last half of training multiplied the Jacobian by {steepness}, "
            f"the loss curvature by {curvature} and sharpness by {sharpness}. Over all levels the "
            "product of the first layer's factors follows sharpness with rank correlation "
            f"{product} "
            f"there; the two growth factors differ by {np.expm1(missed.mean):.0%} on average.",
            (steepness.low > 1, curvature.high < 1, product.low > 0.5),
        ),
        Finding(
            "Smoothing lowers the Jacobian that training ends with.",
            f"Rank correlation of level and last mean Jacobian: at most {ordered:.2g} in "
            f"{len(at_end)} groups of one data set and seed.",
            (ordered < -0.9,),
        ),
    ]


def main() -> None:
    rows = completed(run, CONFIGURATIONS, name="label_smoothing")
    report("label_smoothing", rows, summarise(rows), findings(rows))


if __name__ == "__main__":
    main()
