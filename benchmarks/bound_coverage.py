"""How often bounds fail, on data whose error is known.

    python -m benchmarks.bound_coverage [--data-sets 1000]

For every distribution the best of 50 networks is chosen by its bound, at 95 % and on 120 rows, and
its error is measured on 4000 fresh ones. The worst network that the forms allow comes next, at
three levels of confidence, on 200 rows: there the bound is nearly as small as it can be, and it
must fail sometimes. Outcomes are kept in cache/bound_coverage.jsonl, so that a run can be
interrupted and continued. The tables are written to bound_coverage.md.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.stats import binom

from tests.theory.coverage_simulation import DISTRIBUTIONS, search, worst_network

HERE = Path(__file__).parent
KEPT = HERE / "cache" / "bound_coverage.jsonl"
N_ROWS, CONFIDENCE = 120, 0.95
N_ROWS_WORST, LEVELS = 200, (0.5, 0.8, 0.95)

Outcomes = dict[str, dict[int, dict[str, dict[str, float]]]]


def kept() -> Outcomes:
    """Outcomes of earlier runs, by setting and seed."""
    found: Outcomes = defaultdict(dict)
    if KEPT.exists():
        for line in KEPT.read_text().splitlines():
            record = json.loads(line)
            found[record.pop("distribution")][record.pop("seed")] = record
    return found


def simulated(name: str, seed: int) -> dict[str, dict[str, float]]:
    """Bound and error of one data set, by kind of constant or by form."""
    if name in DISTRIBUTIONS:
        outcomes = search(name, N_ROWS, seed, CONFIDENCE)
    else:
        outcomes = worst_network(N_ROWS_WORST, seed, float(name))
    return {
        kind: {"bound": float(outcome.bound), "error": float(outcome.error)}
        for kind, outcome in outcomes.items()
    }


def complete(n_data_sets: int) -> Outcomes:
    """Simulate what is missing, and return everything."""
    found = kept()
    KEPT.parent.mkdir(exist_ok=True)
    with KEPT.open("a") as file:
        for seed in range(n_data_sets):
            for name in [*DISTRIBUTIONS, *map(str, LEVELS)]:
                if seed not in found[name]:
                    found[name][seed] = simulated(name, seed)
                    record = {"distribution": name, "seed": seed, **found[name][seed]}
                    file.write(json.dumps(record) + "\n")
            file.flush()
            if seed % 50 == 49:
                print(f"{seed + 1} of {n_data_sets} data sets", flush=True)
    return found


def lines(found: Outcomes, names: list[str], n_data_sets: int) -> Iterator[str]:
    """Rows of a table: failures, those allowed, bound, error and share of informative bounds."""
    yield "| setting | bound | failures | allowed | mean bound | mean error | bounds below 1 |"
    yield "|---|---|---|---|---|---|---|"
    for name in names:
        outcomes = [found[name][seed] for seed in range(n_data_sets)]
        worst = name not in DISTRIBUTIONS
        confidence = float(name) if worst else CONFIDENCE
        # As many as a true level makes likely: the upper end of a two-sided 95 % interval.
        allowed = int(binom.isf(0.025, n_data_sets, 1 - confidence))
        label = f"worst network, {100 * confidence:.0f} %" if worst else name
        for kind in outcomes[0]:
            bounds = np.array([outcome[kind]["bound"] for outcome in outcomes])
            errors = np.array([outcome[kind]["error"] for outcome in outcomes])
            yield (
                f"| {label} | {kind} | {np.count_nonzero(errors > bounds)} | "
                f"{'none is promised' if kind == 'empirical' else allowed} | {bounds.mean():.3f} | "
                f"{errors.mean():.3f} | {100 * np.mean(bounds < 1):.0f} % |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-sets", type=int, default=1000)
    n_data_sets = parser.parse_args().data_sets
    found = complete(n_data_sets)
    text = "\n".join(
        [
            f"# Failures of the bound in {n_data_sets} data sets",
            "",
            f"The best of 50 networks by its bound; {N_ROWS} rows, {100 * CONFIDENCE:.0f} %.",
            "",
            *lines(found, list(DISTRIBUTIONS), n_data_sets),
            "",
            f"The worst network that the forms allow; {N_ROWS_WORST} rows.",
            "",
            *lines(found, [str(level) for level in LEVELS], n_data_sets),
            "",
        ]
    )
    print(text)
    (HERE / "bound_coverage.md").write_text(text)


if __name__ == "__main__":
    main()
