"""Penalties on the Jacobian and on spectral norms of weights, and what sharpness does.

Runs of one seed share rows and initial weights, so that what differs between them is the
intervention alone. A correlation over training could come from anything that moves both; this
cannot.

Run with ``OMP_NUM_THREADS=1 python benchmarks/experiments/interventions.py``.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from findings import Finding, Interval, by_setting, interval, report
from runs import completed
from torch import Tensor, nn
from watched_descent import (
    Record,
    column,
    even_schedule,
    images,
    one_hot,
    perceptron,
    watched_descent,
)

from sharpfit.networks.interventions import JacobianPenalty, SharpnessAwareMinimisation

Row = dict[str, Any]

STRENGTHS = {
    "Jacobian penalty": (0.01, 0.03, 0.1),
    "spectral penalty": (0.001, 0.003, 0.01),
    "sharpness-aware": (0.2, 0.5),
}
# Far below the edge of stability, where sharpness is not held by the learning rate.
DESCENTS = {"digits": (0.7, 700), "mnist": (0.3, 250)}
MNIST_STRENGTHS = {"Jacobian penalty": (0.1,), "spectral penalty": (0.01,)}
SEEDS = range(5)
CONFIGURATIONS = [
    {
        "data": data,
        "intervention": name,
        "strength": strength,
        "lr": lr,
        "n_updates": n_updates,
        "seed": seed,
    }
    for data, (lr, n_updates) in DESCENTS.items()
    for name, strengths in [
        ("none", (0.0,)),
        *(STRENGTHS if data == "digits" else MNIST_STRENGTHS).items(),
    ]
    for strength in strengths
    for seed in SEEDS
]


def run(configuration: Row) -> Row:
    """Descend under an intervention; return the trajectory of the data loss and its sharpness."""
    torch.set_num_threads(1)
    seed, n_updates = configuration["seed"], configuration["n_updates"]
    inputs, labels = images(configuration["data"], 300, seed)
    module, criterion, targets = perceptron(inputs.shape[1], seed), nn.MSELoss(), one_hot(labels)
    step = steps(module, criterion, inputs, targets)[configuration["intervention"]]
    records = watched_descent(
        module,
        criterion,
        inputs,
        targets,
        torch.optim.SGD(module.parameters(), lr=configuration["lr"]),
        schedule=even_schedule(n_updates, 29),
        step=lambda: step(configuration["strength"]),
    )
    return {
        f"last_{name}": records[-1][name] for name in ("loss", "sharpness", "jacobian_mean")
    } | {"trajectory": records}


def steps(
    module: nn.Sequential, criterion: nn.Module, inputs: Tensor, targets: Tensor
) -> dict[str, Callable[[float], Any]]:
    """Return what computes the gradient under every intervention, given its strength."""

    def objective(inputs: Tensor, targets: Tensor, loss: Any) -> tuple[Tensor, Tensor]:
        outputs = module(inputs)
        return loss(outputs, targets), outputs

    def plain(strength: float = 0.0) -> dict[str, Tensor]:
        value, outputs = objective(inputs, targets, criterion)
        value.backward()
        return {"loss": value, "y_pred": outputs}

    def jacobian(strength: float) -> None:
        penalty = JacobianPenalty(strength, n_projections=None)
        penalty.objective(module, objective, inputs, targets, criterion)[0].backward()

    def spectral(strength: float) -> None:
        norms = [torch.linalg.matrix_norm(m.weight, 2) for m in module if isinstance(m, nn.Linear)]
        value = criterion(module(inputs), targets)
        (value + strength * torch.stack(norms).square().sum()).backward()

    def sharpness_aware(strength: float) -> None:
        SharpnessAwareMinimisation(strength).gradient(module, plain)

    return {
        "none": plain,
        "Jacobian penalty": jacobian,
        "spectral penalty": spectral,
        "sharpness-aware": sharpness_aware,
    }


def ratios(
    rows: list[Row], name: str, *, at: str = "equal loss"
) -> dict[tuple[str, str, float], list[float]]:
    """Return a value over that without intervention, of the same seed.

    At equal updates these are the last values. At equal loss it is read where each run first has a
    data loss of at most the larger of the two last ones, so that both have come there.
    """
    plain = {(row["data"], row["seed"]): row for row in rows if row["intervention"] == "none"}
    found: dict[tuple[str, str, float], list[float]] = {}
    for row in rows:
        if row["intervention"] == "none":
            continue
        base = plain[row["data"], row["seed"]]
        if at == "equal loss":
            loss = max(base["last_loss"], row["last_loss"])
            pair = [at_loss(other["trajectory"], loss)[name] for other in (row, base)]
        else:
            pair = [other[f"last_{name}"] for other in (row, base)]
        key = (row["data"], row["intervention"], row["strength"])
        found.setdefault(key, []).append(pair[0] / pair[1])
    return found


def at_loss(records: list[Record], loss: float) -> Record:
    """Return the first record whose loss is at most `loss`."""
    return records[int(np.argmax(column(records, "loss") <= loss))]


def summarise(rows: list[Row]) -> list[Row]:
    """Return one row an intervention, with intervals over seeds."""
    sharpness, jacobian = ratios(rows, "sharpness"), ratios(rows, "jacobian_mean")
    later = ratios(rows, "sharpness", at="equal updates")

    def last(runs: list[Row], name: str) -> Interval:
        return interval([run[f"last_{name}"] for run in runs])

    table = []
    for key, runs in by_setting(rows, "data", "intervention", "strength").items():
        data, name, strength = key
        changed = name != "none"
        table.append(
            {
                "data": data,
                "intervention": name,
                "strength": strength or "",
                "last loss": last(runs, "loss"),
                "last sharpness": last(runs, "sharpness"),
                "last mean Jacobian": last(runs, "jacobian_mean"),
                "sharpness / untreated, equal updates": interval(later[key]) if changed else "",
                "sharpness / untreated, equal loss": interval(sharpness[key]) if changed else "",
                "Jacobian / untreated, equal loss": interval(jacobian[key]) if changed else "",
            }
        )
    return table


def findings(rows: list[Row]) -> list[Finding]:
    """Return the verdicts."""
    sharpness = {key: interval(values) for key, values in ratios(rows, "sharpness").items()}
    jacobian = {key: interval(values) for key, values in ratios(rows, "jacobian_mean").items()}
    later = {
        key: interval(values)
        for key, values in ratios(rows, "sharpness", at="equal updates").items()
    }

    def strongest(name: str) -> list[tuple[str, str, float]]:
        keys = [key for key in sharpness if key[1] == name]
        return [max(key for key in keys if key[0] == data) for data in sorted({k[0] for k in keys})]

    def told(name: str) -> str:
        return "; ".join(
            f"{key[0]}, strength {key[2]:g}: at equal data loss sharpness times {sharpness[key]} "
            "and "
            f"mean Jacobian times {jacobian[key]}, at equal updates sharpness times {later[key]}"
            for key in strongest(name)
        )

    def lowered(values: dict[tuple[str, str, float], Interval], name: str) -> tuple[bool, ...]:
        return tuple(values[key].high < 1 for key in strongest(name))

    doses = [
        [sharpness["digits", name, strength].mean for strength in STRENGTHS[name]]
        for name in ("Jacobian penalty", "spectral penalty")
    ]
    return [
        Finding(
            "Penalising the Jacobian lowers sharpness.",
            f"Relative to no penalty, {told('Jacobian penalty')}.",
            lowered(later, "Jacobian penalty") + lowered(sharpness, "Jacobian penalty"),
        ),
        Finding(
            "Penalising the spectral norms of the weights lowers sharpness.",
            f"Relative to no penalty, {told('spectral penalty')}.",
            lowered(later, "spectral penalty") + lowered(sharpness, "spectral penalty"),
        ),
        Finding(
            "The more of a penalty, the less sharpness.",
            "Sharpness over the untreated one at equal loss on digits, mean over seeds, from the "
            "weakest to the strongest penalty: "
            + "; ".join(", ".join(f"{value:.3g}" for value in dose) for dose in doses)
            + " (Jacobian; spectral).",
            tuple(bool(np.all(np.diff(dose) < 0)) for dose in doses),
        ),
        Finding(
            "The other way round, steps against sharpness lower the Jacobian.",
            f"Sharpness-aware minimisation, {told('sharpness-aware')}.",
            lowered(sharpness, "sharpness-aware") + lowered(jacobian, "sharpness-aware"),
        ),
    ]


def main() -> None:
    rows = completed(run, CONFIGURATIONS, name="interventions")
    report("interventions", rows, summarise(rows), findings(rows))


if __name__ == "__main__":
    main()
