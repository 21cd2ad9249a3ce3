"""What an experiment found: intervals over seeds, verdicts on claims, and tables that keep them.

A claim is split into checks. It *held* if all of its checks did, *in part* if some did, and *did
not hold* otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from runs import RESULTS, write_table
from scipy.stats import t

Row = dict[str, Any]


@dataclass(frozen=True)
class Interval:
    """Mean of a quantity over seeds with its 95 % t-interval.

    Attributes
    ----------
    mean, low, high : float
        Centre and ends.
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3g} ({self.low:.3g} to {self.high:.3g})"


def interval(values: Sequence[float]) -> Interval:
    """Return the mean of the finite values with its 95 % t-interval."""
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if len(finite) < 2:
        raise ValueError(f"{len(finite)} finite values of {len(values)} give no interval")
    half = t.ppf(0.975, len(finite) - 1) * finite.std(ddof=1) / np.sqrt(len(finite))
    return Interval(finite.mean(), finite.mean() - half, finite.mean() + half)


@dataclass(frozen=True)
class Finding:
    """A claim, what was measured, and which checks it passed.

    Attributes
    ----------
    claim, measured : str
        Sentences.
    checks : tuple of bool
        Outcomes of the parts of the claim.
    """

    claim: str
    measured: str
    checks: tuple[bool, ...]

    @property
    def verdict(self) -> str:
        """Verdict in words."""
        if all(self.checks):
            return "held"
        return "held in part" if any(self.checks) else "did not hold"


def by_setting(rows: Sequence[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    """Group runs by their values of `names`, in the order of their first appearance."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups


def report(
    name: str, runs: Sequence[Row], summary: Sequence[Row], findings: Sequence[Finding]
) -> None:
    """Print the findings of an experiment and write its tables.

    Parameters
    ----------
    name : str
        Experiment; ``results/name.csv`` holds the summary, ``name_runs.csv`` one row a run,
        ``name_findings.csv`` the verdicts.
    runs, summary : sequence of dict
        Rows of the tables; lists, such as trajectories, are left out.
    findings : sequence of Finding
        Verdicts.
    """
    plain = [{k: v for k, v in run.items() if not isinstance(v, list)} for run in runs]
    told = [
        {
            "claim": f.claim,
            "measured": f.measured,
            "checks passed": f"{sum(f.checks)} of {len(f.checks)}",
            "verdict": f.verdict,
        }
        for f in findings
    ]
    for suffix, rows in (("_runs", plain), ("", summary), ("_findings", told)):
        write_table(rows, RESULTS / f"{name}{suffix}.csv")
    for row in summary:
        print("; ".join(f"{key}: {value}" for key, value in row.items()))
    for finding in findings:
        passed = [bool(check) for check in finding.checks]
        print(f"\n{finding.claim}\n{finding.measured}\n-> {finding.verdict} {passed}")
    print(f"\n{sum(run['seconds'] for run in runs):.0f} s of CPU time in {len(runs)} runs")
