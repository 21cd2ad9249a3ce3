"""Judge the claims about flat minima by the tables of ``sweeps.py``, and draw the figures.

``python flat_minima.py`` trains nothing. It writes to ``results/flat_minima*``: every check with
its interval, ``_findings_*`` (verdicts), ``_strengths`` (what each regulariser does), ``_runs`` and
``_networks`` (what was trained), ``_measures`` (every measure's correlation with the gap),
``_best`` (which ranks best), and the figures. Studies without a table are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas
from associations import Association, resampled_within_seeds, summary_of, within_seeds
from findings import Finding
from flat_minima_figures import draw_all
from runs import RESULTS, write_table
from sweeps import BASES, STRENGTHS, sweeps

from sharpfit.comparison.ranking import compare_with_best
from sharpfit.measures import MEASURES

JACOBIAN, SHARPNESS = "largest_jacobian", "sharpness"
PROBABILITIES = "largest_probability_jacobian"
GAPS = ("error_gap", "loss_gap")
# A network that has not learned its training rows is in no minimum, flat or sharp.
LARGEST_TRAINING_ERROR = 0.05


@dataclass(frozen=True)
class Check:
    """One number that a claim is judged by.

    Attributes
    ----------
    question : str
        Key of `CLAIMS`.
    network, sweep : str
        Which runs.
    gap : str
        Column of the gap; empty where none is involved.
    association : Association
        The number, positive if the claim is right.
    """

    question: str
    network: str
    sweep: str
    gap: str
    association: Association

    @property
    def passed(self) -> bool:
        """Whether the whole interval is on the side of the claim."""
        return self.association.low > 0


CLAIMS = {
    "agree": "Networks in flatter minima have smaller Jacobians.",
    # What the theory proves for dense networks.
    "agree_probabilities": "Networks in flatter minima have smaller Jacobians of probabilities "
    "(added after the runs).",
    "jacobian": "Networks with a smaller Jacobian generalise better.",
    "sharpness": "Networks in flatter minima generalise better.",
    "better": "The Jacobian is the better guide to the gap than sharpness.",
    "dose_jacobian": "The stronger, the smaller the Jacobian.",
    "dose_sharpness": "The stronger, the flatter the minimum.",
    "dose_gap": "The stronger, the smaller the gap.",
}
REGULARISERS = tuple(f"regulariser: {name}" for name in STRENGTHS)
PENALTY = "intervention: jacobian_penalty"
TOPICS = {
    "weight decay x learning rate": (
        "weight decay x learning rate, equal updates",
        "weight decay x learning rate, equal training loss",
    ),
    "batch size": ("batch size, equal updates", "batch size, equal epochs"),
    "six regularisers": ("six regularisers",),
    "each regulariser in strength": REGULARISERS,
    "penalty on the Jacobian": (PENALTY,),
}


def runs_of(study: str) -> dict[str, Any]:
    """Return the runs of every sweep of a study, those of all regularisers together as well.

    Parameters
    ----------
    study : str
        Key of `BASES`.

    Returns
    -------
    dict of str to pandas.DataFrame
        The column ``network`` holds the study.
    """
    base = BASES[study]
    numbers = [name for name, value in base.items() if not isinstance(value, str)]
    table = pandas.read_csv(RESULTS / f"flat_minima_{study}.csv").astype(
        dict.fromkeys(numbers, float)
    )
    parts = {}
    for name, settings in sweeps(base).items():
        wanted = pandas.DataFrame(settings).drop_duplicates().astype(dict.fromkeys(numbers, float))
        found = table.merge(wanted, on=list(base)).astype({"batch_size": int, "shift": int})
        parts[name] = found.assign(network=study)
    together = pandas.concat(parts[f"regulariser: {name}"] for name in STRENGTHS)
    active = together[list(STRENGTHS)].gt(0)
    together["regulariser"] = active.idxmax(axis=1).where(active.any(axis=1), "none")
    parts["six regularisers"] = together.drop_duplicates([*base, "seed"])
    return parts


def fitted(table: Any) -> Any:
    """Return the runs that ended as they should and learned their training rows."""
    ended = (table["status"] == "ok") & (table["reached"] == 1)
    return table[ended & (table["training_error"] <= LARGEST_TRAINING_ERROR)]


def checks_of(network: str, parts: dict[str, Any], names: Sequence[str]) -> list[Check]:
    """Return the checks of sweeps that compare all their settings with each other."""
    checks = []
    for name in names:
        table = fitted(parts[name])
        found = {
            ("agree", ""): within_seeds(table, SHARPNESS, JACOBIAN),
            ("agree_probabilities", ""): within_seeds(table, SHARPNESS, PROBABILITIES),
        }
        for gap in GAPS:
            found["jacobian", gap] = within_seeds(table, JACOBIAN, gap)
            found["sharpness", gap] = within_seeds(table, SHARPNESS, gap)
            found["better", gap] = within_seeds(table, JACOBIAN, gap, minus=SHARPNESS)
        checks += [Check(q, network, name, gap, value) for (q, gap), value in found.items()]
    return checks


def checks_of_strength(network: str, parts: dict[str, Any], names: Sequence[str]) -> list[Check]:
    """Return the checks of sweeps of one strength each, from none at all."""
    checks = []
    for name in names:
        table = fitted(parts[name])
        table = table.assign(weakness=-table[name.split(": ")[1]])
        outcomes = {("dose_jacobian", ""): JACOBIAN, ("dose_sharpness", ""): SHARPNESS}
        outcomes |= {("dose_gap", gap): gap for gap in GAPS}
        for (question, gap), outcome in outcomes.items():
            found = within_seeds(table, "weakness", outcome, fixed_levels=True)
            checks.append(Check(question, network, name, gap, found))
    return checks


def findings_of(checks: list[Check]) -> list[dict[str, str]]:
    """Return the verdict on every claim, by topic and kind of gap, over all networks."""
    rows = []
    for topic, names in TOPICS.items():
        keys = dict.fromkeys((c.question, c.gap) for c in checks if c.sweep in names)
        for question, gap in keys:
            those = [
                c for c in checks if (c.question, c.gap) == (question, gap) and c.sweep in names
            ]
            values = [c.association.value for c in those]
            passed = sum(c.passed for c in those)
            opposite = sum(c.association.high < 0 for c in those)
            measured = (
                f"tau {np.nanmin(values):.2f} to {np.nanmax(values):.2f}; of {len(those)} "
                f"intervals {passed} for the claim, {opposite} against it"
            )
            finding = Finding(CLAIMS[question], measured, tuple(c.passed for c in those))
            rows.append(
                {
                    "sweep": topic,
                    "claim": finding.claim,
                    "gap": gap.removesuffix("_gap"),
                    "measured": finding.measured,
                    "verdict": finding.verdict,
                }
            )
    return rows


def strengths_of(checks: list[Check]) -> list[dict[str, str]]:
    """Return what the checks of strength say, a row a regulariser."""
    columns = {"dose_jacobian": "Jacobian", "dose_sharpness": "sharpness", "dose_gap": "gap in"}
    rows: dict[str, dict[str, str]] = {}
    for c in checks:
        name, found = c.sweep.split(": ")[1].replace("_", " "), c.association
        row = rows.setdefault(name, {"regulariser": name, "runs": str(found.n_runs)})
        column = f"{columns[c.question]} {c.gap.removesuffix('_gap')}".strip()
        row[f"{column} falls"] = f"{found.value:+.2f} ({found.low:+.2f} to {found.high:+.2f})"
    return list(rows.values())


def all_runs(network: str, parts: dict[str, Any]) -> Any:
    """Return the runs of a network, those of several sweeps once."""
    return pandas.concat(parts.values()).drop_duplicates([*BASES[network], "seed"])


def trained(network: str, parts: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the table of what was trained."""
    rows = []
    for name, table in parts.items():
        if table.empty:  # a sweep that the table of runs does not have yet
            continue
        ok = table["status"] == "ok"
        rows.append(
            {
                "network": network,
                "sweep": name,
                "settings": len(table) // table["seed"].nunique(),
                "seeds": table["seed"].nunique(),
                "runs": len(table),
                "diverged": int((~ok).sum()),
                "end not reached": int((table["reached"][ok] == 0).sum()),
                "not fitted": len(table) - len(fitted(table)),
                "CPU seconds": round(table["seconds"].sum()),
            }
        )
    return rows


def measures_of(network: str, parts: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the correlation of every measure with both gaps over all runs of equal updates."""
    table = fitted(all_runs(network, parts).query("equal == 'updates'"))
    taken = [measure for measure in MEASURES if measure in table]
    rows = []
    for gap in GAPS:
        found = [resampled_within_seeds(table, measure, gap) for measure in taken]
        values, draws = (np.stack(parts) for parts in zip(*found, strict=True))
        behind, _ = compare_with_best(values, draws, 0.95)
        rows += [
            {"network": network, "gap": gap, "measure": measure}
            | vars(summary_of(table, value, drawn))
            | {"behind": how_far}
            for measure, value, drawn, how_far in zip(taken, values, draws, behind, strict=True)
        ]
    return rows


def best_of(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return which measure ranks best, and where the paper's and ours stand."""
    best = []
    for (network, gap), table in pandas.DataFrame(rows).groupby(["network", "gap"], sort=False):
        values = table.set_index("measure")
        row = {"network": network, "gap": gap.removesuffix("_gap")}
        row["ranks best"] = values["value"].idxmax()
        for column, measure in (
            ("its tau", row["ranks best"]),
            ("tau of sharpness", SHARPNESS),
            ("of the largest Jacobian", JACOBIAN),
            ("of the selection criterion", "selection_criterion"),
            ("of the bound", "bound"),
        ):
            row[column] = "not taken"
            if measure in values.index:
                value, low, high = values.loc[measure, ["value", "low", "high"]]
                known = f"{value:.2f} ({low:.2f} to {high:.2f})"
                row[column] = known if np.isfinite(value) else "does not vary"
        defined = values["value"].notna()
        row["others not told apart"] = str(int((values["behind"][defined] <= 0).sum()) - 1)
        row["measures"] = str(int(defined.sum()))
        best.append(row)
    return best


def main() -> None:
    finished = [study for study in BASES if (RESULTS / f"flat_minima_{study}.csv").exists()]
    tables = {study: runs_of(study) for study in finished}
    compared = [name for topic in list(TOPICS)[:3] for name in TOPICS[topic]]
    checks = []
    for network, parts in tables.items():
        checks += checks_of(network, parts, compared)
        checks += checks_of_strength(network, parts, [PENALTY])
    strengths = (*REGULARISERS, PENALTY)
    pooled = {name: pandas.concat(parts[name] for parts in tables.values()) for name in strengths}
    together = checks_of_strength("all", pooled, strengths)
    checks += [check for check in together if check.sweep in REGULARISERS]
    told = findings_of(checks)
    write_table(
        [
            {
                "network": c.network,
                "sweep": c.sweep,
                "claim": CLAIMS[c.question],
                "gap": c.gap,
                **{name: round(v, 3) for name, v in vars(c.association).items()},
                "passed": c.passed,
            }
            for c in checks
        ],
        RESULTS / "flat_minima.csv",
    )
    for topic in TOPICS:
        rows = [
            {k: v for k, v in row.items() if k != "sweep"} for row in told if row["sweep"] == topic
        ]
        write_table(rows, RESULTS / f"flat_minima_findings_{topic.replace(' ', '_')}.csv")
    write_table(strengths_of(together), RESULTS / "flat_minima_strengths.csv")
    everything = tables.items()
    runs = [row for network, parts in everything for row in trained(network, parts)]
    measures = [row for network, parts in everything for row in measures_of(network, parts)]
    totals = [row for n, parts in everything for row in trained(n, {"all": all_runs(n, parts)})]
    write_table(runs, RESULTS / "flat_minima_runs.csv")
    write_table(totals, RESULTS / "flat_minima_networks.csv")
    write_table(measures, RESULTS / "flat_minima_measures.csv")
    write_table(best_of(measures), RESULTS / "flat_minima_best.csv")
    for row in told:
        print("; ".join(row.values()))
    draw_all({n: {k: fitted(t) for k, t in parts.items()} for n, parts in tables.items()})


if __name__ == "__main__":
    main()
