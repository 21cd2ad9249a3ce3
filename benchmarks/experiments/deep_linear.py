r"""Progressive sharpening in closed form: deep linear networks with one neuron a layer.

For :math:`f(x) = p x`, :math:`p = w_1 \cdots w_L`, and the mean squared error with
:math:`s = \overline{x^2}`, :math:`c = \overline{x y}`, :math:`u_k = 1 / w_k`, every quantity has a
formula: the Jacobian is `p`, the Gauss-Newton matrix :math:`2 s p^2 u u^\top`, the Hessian
:math:`2 p (2 s p - c)\, u u^\top - 2 p (s p - c) \operatorname{diag}(u^2)`. Along gradient flow
:math:`w_k^2 - w_j^2` stays, so that it ends at :math:`w_k^2 + t` with the `t` that makes `p` the
minimiser :math:`c / s`. Of all minimisers the balanced one is flattest, with sharpness
:math:`2 s L (c / s)^{2 - 2 / L}`.

Run with ``OMP_NUM_THREADS=1 python benchmarks/experiments/deep_linear.py``.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from findings import Finding, Interval, by_setting, interval, report
from numpy.typing import NDArray
from runs import completed
from scipy.optimize import brentq
from sklearn.datasets import load_digits
from torch import Tensor, nn
from watched_descent import column, even_schedule, watched_descent

Row = dict[str, Any]
Floats = NDArray[np.float64]

# 2 / lr as multiples of the sharpness of the flattest minimiser and of the one of gradient flow.
LIMITS = {
    "above the flow's minimiser": (0.0, 4.0),
    "between": (0.5, 0.5),
    "below every minimiser": (0.9, 0.0),
}
DEPTHS = (2, 4, 8)
SEEDS = range(5)
CONFIGURATIONS = [
    {"depth": depth, "limit_is": name, "n_updates": 2000, "seed": seed}
    for depth in DEPTHS
    for name in LIMITS
    for seed in SEEDS
]


@dataclass(frozen=True)
class ClosedForm:
    """What the formulas say about data with moments `s` and `c`.

    Attributes
    ----------
    s, c : float
        Means of ``x^2`` and ``x y``.
    """

    s: float
    c: float

    def gauss_newton(self, weights: Floats) -> float:
        """Return the largest eigenvalue of the Gauss-Newton matrix."""
        return float(2 * self.s * np.prod(weights) ** 2 * np.sum(weights**-2))

    def sharpness(self, weights: Floats) -> float:
        """Return the largest eigenvalue of the Hessian."""
        p, u = np.prod(weights), 1 / weights
        hessian = 2 * p * (2 * self.s * p - self.c) * np.outer(u, u)
        hessian -= 2 * p * (self.s * p - self.c) * np.diag(u**2)
        return float(np.linalg.eigvalsh(hessian)[-1])

    def flow_end(self, weights: Floats) -> Floats:
        """Return where gradient flow from positive weights ends."""
        target = self.c / self.s
        shift = brentq(
            lambda t: np.prod(weights**2 + t) - target**2, -(np.min(weights) ** 2), target**2 + 1
        )
        return np.sqrt(weights**2 + shift)

    def flattest(self, depth: int) -> float:
        """Return the sharpness of the balanced minimiser."""
        return float(2 * self.s * depth * (self.c / self.s) ** (2 - 2 / depth))


def rows() -> tuple[Tensor, Tensor]:
    """Return the zeros and ones of the digits along their first principal component."""
    pixels, labels = load_digits(return_X_y=True)
    pixels, labels = pixels[labels < 2], labels[labels < 2]
    signs = np.where(labels == 1, 1.0, -1.0)
    component = np.linalg.svd(pixels - pixels.mean(axis=0), full_matrices=False)[0][:, 0]
    x = component / component.std() * np.sign(component @ signs) / 2
    return torch.tensor(x)[:, None], torch.tensor(signs)[:, None]


def run(configuration: Row) -> Row:
    """Descend from unbalanced weights; compare every measurement with the formulas."""
    torch.set_num_threads(1)
    inputs, targets = rows()
    closed = ClosedForm(float(inputs.square().mean()), float((inputs * targets).mean()))
    depth = configuration["depth"]
    target = closed.c / closed.s
    start = np.exp(np.random.default_rng(configuration["seed"]).uniform(-1, 1, depth))
    start *= (0.2 * target / np.prod(start)) ** (1 / depth)
    flattest, flow = closed.flattest(depth), closed.gauss_newton(closed.flow_end(start))
    limit = float(np.dot(LIMITS[configuration["limit_is"]], (flattest, flow)))
    module = chain(start)
    weights: list[Floats] = []

    def remember(record: Row) -> bool:
        weights.append(np.array([layer.weight.item() for layer in module]))
        return False

    records = watched_descent(
        module,
        nn.MSELoss(),
        inputs,
        targets,
        torch.optim.SGD(module.parameters(), lr=2 / limit),
        schedule=even_schedule(configuration["n_updates"], 41),
        enough=remember,
        tol=1e-6,
        n_jacobian_rows=len(inputs),
    )

    def error(measured: str, formula: list[float]) -> float:
        expected = np.array(formula)
        return float(np.max(np.abs(column(records, measured) / expected - 1)))

    return {
        "limit": limit,
        "flattest": flattest,
        "flow": flow,
        "sharpness_error": error("sharpness", [closed.sharpness(w) for w in weights]),
        "jacobian_error": error("jacobian_max", [abs(np.prod(w)) for w in weights]),
        "trace_error": error(
            "first_layer_trace", [2 * closed.s * (np.prod(w) / w[0]) ** 2 for w in weights]
        ),
        "identity_error": error(
            "first_layer_trace",
            [2 * closed.s * r["jacobian_max"] ** 2 / w[0] ** 2
             for r, w in zip(records, weights, strict=True)],
        ),
        "last_over_limit": records[-1]["sharpness"] / limit,
        "last_over_flow": records[-1]["sharpness"] / flow,
        "first_jacobian": records[0]["jacobian_max"],
        "last_jacobian_over_target": records[-1]["jacobian_max"] / target,
        "sharpness_growth": records[-1]["sharpness"] / records[0]["sharpness"],
        "trajectory": records,
    }  # fmt: skip


def chain(weights: Floats) -> nn.Sequential:
    """Build the network with these weights."""
    module = nn.Sequential(*(nn.Linear(1, 1, bias=False, dtype=torch.float64) for _ in weights))
    with torch.no_grad():
        for layer, weight in zip(module, weights, strict=True):
            layer.weight.fill_(weight)
    return module


def summarise(runs: list[Row]) -> list[Row]:
    """Return one row a depth and limit, with intervals over seeds."""

    def cell(group: list[Row], name: str) -> Interval:
        return interval([row[name] for row in group])

    return [
        {
            "depth": depth,
            "2 / lr is": name,
            "2 / lr": cell(group, "limit"),
            "flattest minimiser": f"{group[0]['flattest']:.4g}",
            "flow's minimiser": cell(group, "flow"),
            "last sharpness / limit": cell(group, "last_over_limit"),
            "last sharpness / flow's": cell(group, "last_over_flow"),
            "last Jacobian / minimiser's": cell(group, "last_jacobian_over_target"),
            "largest error of sharpness": f"{max(row['sharpness_error'] for row in group):.1g}",
        }
        for (depth, name), group in by_setting(runs, "depth", "limit_is").items()
    ]


def findings(runs: list[Row]) -> list[Finding]:
    """Return the verdicts."""
    groups = by_setting(runs, "limit_is")
    free, edge, never = (groups[(name,)] for name in LIMITS)
    worst = {
        name: max(row[f"{name}_error"] for row in runs)
        for name in ("sharpness", "jacobian", "trace", "identity")
    }
    free_flow = interval([row["last_over_flow"] for row in free])
    growth = min(row["sharpness_growth"] for row in free)
    at_limit = interval([row["last_over_limit"] for row in edge])
    arrived = max(abs(row["last_jacobian_over_target"] - 1) for row in free)
    oscillating = max(abs(row["last_jacobian_over_target"] - 1) for row in edge)
    away = min(abs(row["last_jacobian_over_target"] - 1) for row in never)
    return [
        Finding(
            "The measurements are those of the formulas.",
            f"Largest relative error over {len(runs)} trainings: sharpness "
            f"{worst['sharpness']:.1g}, "
            f"Jacobian {worst['jacobian']:.1g}, first layer's trace {worst['trace']:.1g}.",
            (worst["sharpness"] < 1e-4, worst["jacobian"] < 1e-4, worst["trace"] < 1e-4),
        ),
        Finding(
            "Squared Jacobian and first-layer curvature differ by the first weight squared.",
            f"Here an identity, met to {worst['identity']:.1g} in all measurements.",
            (worst["identity"] < 1e-4,),
        ),
        Finding(
            "The falling loss forces the Jacobian up, and sharpness with it, to the minimiser that "
            "gradient flow finds if 2 / lr is above its sharpness.",
            f"Sharpness grew at least {growth:.3g} times and ended at {free_flow} of the flow's "
            f"minimiser; the Jacobian came within {arrived:.1g} of the minimiser's.",
            (growth > 1, free_flow.low > 0.9 and free_flow.high < 1.1, arrived < 0.01),
        ),
        Finding(
            "With 2 / lr below that, descent goes to a minimiser at the limit, with the same "
            "Jacobian.",
            f"Sharpness ended at {at_limit} of 2 / lr, the Jacobian within {oscillating:.1g} of "
            "the "
            "minimiser's, about which it oscillates less and less.",
            (at_limit.low >= 0.95 and at_limit.high <= 1.01, oscillating < 0.05),
        ),
        Finding(
            "With 2 / lr below every minimiser's sharpness, descent does not converge.",
            f"The Jacobian stayed at least {away:.2g} away from the minimiser's, relative to it.",
            (away > 0.01,),
        ),
    ]


def main() -> None:
    runs = completed(run, CONFIGURATIONS, name="deep_linear")
    report("deep_linear", runs, summarise(runs), findings(runs))


if __name__ == "__main__":
    main()
