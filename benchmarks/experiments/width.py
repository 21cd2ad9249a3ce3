"""What ties the Jacobian to curvature across widths: the weight of the first layer.

The derivative in the first layer's weight has every factor of the input Jacobian except that weight
itself. How large a factor is missing is changed here by the width and by the scale of the first
layer at the start.

Run with ``OMP_NUM_THREADS=1 python benchmarks/experiments/width.py``.
"""

from typing import Any

import numpy as np
import torch
from findings import Finding, Interval, by_setting, interval, report
from runs import completed
from torch import nn
from watched_descent import Record, even_schedule, images, one_hot, perceptron, watched_descent

from sharpfit.curvature import layer_terms

Row = dict[str, Any]

GRID = {"digits": (0.5, 800, (16, 64, 256)), "mnist": (0.3, 320, (16, 64))}
SCALES = (0.5, 1.0, 2.0)
SEEDS = range(5)
CONFIGURATIONS = [
    {"data": data, "width": width, "scale": scale, "lr": lr, "n_updates": n_updates, "seed": seed}
    for data, (lr, n_updates, widths) in GRID.items()
    for width in widths
    for scale in SCALES
    for seed in SEEDS
]
LOSS = 0.03  # widths are compared at the first measurement with the loss below this


def run(configuration: Row) -> Row:
    """Descend to the common loss; return both sides of the tie there."""
    torch.set_num_threads(1)
    seed, width, n_updates = (configuration[name] for name in ("seed", "width", "n_updates"))
    inputs, labels = images(configuration["data"], 500, seed)
    targets, criterion = one_hot(labels), nn.MSELoss()
    module = perceptron(inputs.shape[1], seed, hidden=(width, width))
    with torch.no_grad():
        module[0].weight *= configuration["scale"]
    records = watched_descent(
        module,
        criterion,
        inputs,
        targets,
        torch.optim.SGD(module.parameters(), lr=configuration["lr"]),
        schedule=even_schedule(n_updates, 41),
        enough=lambda record: record["loss"] <= LOSS,
    )
    last = records[-1]
    if last["loss"] > LOSS:
        raise ArithmeticError(f"the loss did not come below {LOSS}")
    return {
        "update": last["update"],
        "loss_there": last["loss"],
        "sharpness": last["sharpness"],
        "jacobian_mean": last["jacobian_mean"],
        "first_layer_share": last["share"],
        **tie(module, criterion, inputs[:250], targets[:250]),
    }


def tie(module: Any, criterion: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> Record:
    """Return the Jacobian's energy over the first layer's trace, and candidates for the factor."""
    (terms,) = layer_terms(module, criterion, inputs, targets, parameters=["0.weight", "0.bias"])
    weight = module[0].weight.detach().double()
    return {
        "energy_over_trace": terms.mean_jacobian / terms.trace,
        "mean_square_gain": float(weight.square().sum() / len(weight)),
        "square_norm": float(torch.linalg.matrix_norm(weight, 2) ** 2),
        "within_bound": float(terms.mean_jacobian <= terms.mean_bound),
        "largest_ratio": float(terms.ratio.max()),
    }


def summarise(rows: list[Row]) -> list[Row]:
    """Return one row a width and scale, with intervals over seeds."""

    def cell(runs: list[Row], name: str) -> Interval:
        return interval([run[name] for run in runs])

    return [
        {
            "data": data,
            "width": width,
            "first layer times": scale,
            "Jacobian energy / first-layer trace": cell(runs, "energy_over_trace"),
            "mean square gain of first weight": cell(runs, "mean_square_gain"),
            "its squared norm": cell(runs, "square_norm"),
            "sharpness": cell(runs, "sharpness"),
            "mean Jacobian": cell(runs, "jacobian_mean"),
            "first layer's share of top curvature": cell(runs, "first_layer_share"),
        }
        for (data, width, scale), runs in by_setting(rows, "data", "width", "scale").items()
    ]


def findings(rows: list[Row]) -> list[Finding]:
    """Return the verdicts."""

    def spread(runs: list[Row], values: Any) -> Interval:
        """Return the deviation of logarithms over widths and scales, by data set and seed."""
        return interval(
            [
                np.std([np.log(values(run)) for run in group], ddof=1)
                for group in by_setting(runs, "data", "seed").values()
            ]
        )

    raw = spread(rows, lambda run: run["energy_over_trace"])
    gain = spread(rows, lambda run: run["energy_over_trace"] / run["mean_square_gain"])
    norm = spread(rows, lambda run: run["energy_over_trace"] / run["square_norm"])
    whole = {
        data: (
            spread(runs, lambda run: run["jacobian_mean"] ** 2 / run["sharpness"]),
            spread(
                runs,
                lambda run: run["jacobian_mean"] ** 2 / run["sharpness"] / run["mean_square_gain"],
            ),
            interval([run["first_layer_share"] for run in runs]),
        )
        for (data,), runs in by_setting(rows, "data").items()
    }
    rest = interval([row["energy_over_trace"] / row["mean_square_gain"] for row in rows])
    plain = [row for row in rows if row["scale"] == 1.0 and row["data"] == "digits"]
    by_width = {
        width: interval([run["jacobian_mean"] ** 2 / run["sharpness"] for run in runs])
        for (width,), runs in by_setting(plain, "width").items()
    }
    narrow, wide = min(by_width), max(by_width)
    return [
        Finding(
            "The first layer's curvature bounds the Jacobian once the weight of the layer is put "
            "in.",
            f"{sum(row['within_bound'] for row in rows):.0f} of {len(rows)} networks are within "
            "the "
            f"bound in the mean; the tightest row reached "
            f"{max(row['largest_ratio'] for row in rows):.2g} of its own.",
            (all(row["within_bound"] for row in rows),),
        ),
        Finding(
            "The factor that is missing between first-layer curvature and Jacobian is the first "
            "weight: it accounts for their ratio across widths and scales.",
            f"The ratio varies by {raw} in its logarithm (standard deviation over widths and "
            "scales). "
            f"Over the mean square gain of the weight {gain} is left, and the ratio is {rest} "
            "times "
            f"that gain; over the squared spectral norm {norm} is left.",
            (gain.high < raw.low / 2, norm.high < raw.low / 2),
        ),
        Finding(
            "The same factor accounts for the ratio of squared Jacobian to sharpness of the whole "
            "network.",
            "; ".join(
                f"on {data} it varies by {left[0]}, over the gain by {left[1]}, with {left[2]} of "
                "the "
                "top curvature in the first layer"
                for data, left in whole.items()
            )
            + f". On digits it falls from {by_width[narrow]} at width {narrow} to {by_width[wide]} "
            f"at width {wide} with the scale left alone.",
            tuple(left[1].high < left[0].low / 2 for left in whole.values()),
        ),
    ]


def main() -> None:
    rows = completed(run, CONFIGURATIONS, name="width")
    reached = [row for row in rows if row["status"] == "ok"]
    report("width", reached, summarise(reached), findings(reached))


if __name__ == "__main__":
    main()
