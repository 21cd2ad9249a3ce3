"""Which measure ranks best? Tables from the measured suites, the full grid and the sweeps.

``python report.py --write`` reads what `measure.py` and `factorial.py` kept and the tables of
``../experiments/results``, and writes results.md and one small table a section.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from plain_networks import SUITES

from sharpfit.comparison import Comparison
from sharpfit.comparison.ranking import compare_with_best
from sharpfit.comparison.resampling import resample_counts, resampled_correlations
from sharpfit.measures import MEASURES

HERE = Path(__file__).parent
N_BOOTSTRAP = 1000
CONFIDENCE = 0.95
FEWEST_NETWORKS = 5
SWEEPS = HERE.parent / "experiments" / "results"
ASKED_FOR = {
    "mean Jacobian": "mean_jacobian",
    "sharpness": "sharpness",
    "bound": "bound",
    "selection criterion": "selection_criterion",
}
SHOWN_WITHIN = 6
FACTORS = ["lr", "batch_size", "weight_decay", "hidden", "dropout"]


def suite_tables(task):
    """Measured networks of the suites of a task, diverged ones left out."""
    tables = {}
    for name, suite in SUITES.items():
        path = HERE / "cache" / f"{name}.csv"
        if suite.task != task or not path.exists():
            continue
        table = pd.read_csv(path)
        table = table[(table["status"] == "ok") & (table["seed"] == 0)]
        if len(table) >= FEWEST_NETWORKS:
            tables[name] = table
    return tables


def over_suites(tables, target):
    """Mean tau of every measure over the suites, with intervals over suites and networks."""
    names = [
        name
        for name in MEASURES
        if all(name in table and table[name].notna().all() for table in tables.values())
    ]
    once, resampled = [], []
    for seed, table in enumerate(tables.values()):
        truth = table[target].to_numpy()
        counts = resample_counts(len(table), N_BOOTSTRAP, seed)
        unit = np.ones((1, len(table)), dtype=np.int64)
        columns = [table[name].to_numpy() for name in names]
        once.append([resampled_correlations(x, truth, unit, "kendall")[0] for x in columns])
        resampled.append([resampled_correlations(x, truth, counts, "kendall") for x in columns])
    # A measure that is constant over a suite does not rank it.
    once, resampled = np.nan_to_num(once), np.nan_to_num(resampled)
    values = once.mean(axis=0)
    picks = np.random.default_rng(0).integers(len(tables), size=(N_BOOTSTRAP, len(tables)))
    draws = np.stack([resampled[pick, :, i].mean(axis=0) for i, pick in enumerate(picks)], axis=1)
    order = np.argsort(-values)
    behind, share = compare_with_best(values[order], draws[order], CONFIDENCE)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws[order], [tail, 1 - tail], axis=1)
    return pd.DataFrame(
        {
            "measure": [names[i] for i in order],
            "tau": values[order],
            "low": low,
            "high": high,
            "behind the best by at least": behind,
            "best in resamples": share,
        }
    )


def within(table, measures, gap, factors, nuisance=()):
    """Granulated tau of every measure within each factor, the nuisance factors held fixed too."""
    comparison = Comparison.from_table(
        table, measures, gap=gap, hyperparameters=[*factors, *nuisance]
    )
    rows = []
    for name in measures:
        if table[name].notna().mean() < 0.99:
            continue
        found = comparison.granulated(name)
        row = {"measure": name, "mean": np.mean([found.by_hyperparameter[f] for f in factors])}
        for factor in factors:
            low, high = found.intervals[factor]
            row[factor] = interval(found.by_hyperparameter[factor], low, high)
        rows.append(row)
    return pd.DataFrame(rows).sort_values("mean", ascending=False)


def interval(value, low, high):
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def summary(networks, against, found):
    """One line of the guide: who is in front, and where the ones that people ask for stand."""
    place = found.set_index("measure")
    equal = int((found["behind the best by at least"] <= 0).sum()) - 1
    row = {"networks": networks, "against": against, "in front": found["measure"].iloc[0]}
    for column, name in (("its tau", row["in front"]), *ASKED_FOR.items()):
        row[column] = (
            interval(*place.loc[name, ["tau", "low", "high"]]) if name in place.index else ""
        )
    return row | {"others not told apart": equal}


def sweep_tables():
    """Weight decay times learning rate at equal updates, by network; seeds are a factor."""
    for network in ("mlp", "cnn", "resnet"):
        path = SWEEPS / f"flat_minima_{network}.csv"
        if not path.exists():
            continue
        table = pd.read_csv(path)
        plain = ["label_smoothing", "sam", "mixup", "shift", "dropout", "jacobian_penalty"]
        chosen = (table[plain] == 0).all(axis=1) & (table["equal"] == "updates")
        chosen &= table["batch_size"] == table["batch_size"].mode()[0]
        table = table[chosen & (table["status"] == "ok") & (table["reached"] == 1)]
        yield network, table.drop_duplicates(["lr", "weight_decay", "seed"])


def markdown(table, rows=None):
    shown = table.head(rows) if rows else table
    lines = ["| " + " | ".join(shown.columns) + " |", "|" + "---|" * len(shown.columns)]
    for record in shown.itertuples(index=False):
        cells = [f"{v:.3f}" if isinstance(v, float) else str(v) for v in record]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write results.md and the tables")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    sections, written, lines = ["# Which measure ranks best"], {}, []
    for task in ("classification", "regression"):
        tables = suite_tables(task)
        if not tables:
            continue
        sizes = ", ".join(f"{name} {len(table)}" for name, table in tables.items())
        for target, words in (("gap", "test minus training error"), ("test", "test error")):
            found = over_suites(tables, target)
            written[f"{task}_{target}"] = found
            networks = f"{len(tables)} {task} suites, {sum(map(len, tables.values()))} networks"
            lines.append(summary(networks, words, found))
            sections += [
                f"## {task.capitalize()} suites: {words}",
                f"Networks: {sizes}.",
                markdown(found),
            ]
    factorial = HERE / "cache" / "factorial.csv"
    if factorial.exists():
        table = pd.read_csv(factorial)
        measures = [name for name in MEASURES if name in table]
        comparison = Comparison.from_table(table, measures, hyperparameters=FACTORS)
        ranking = comparison.ranking(n_bootstrap=N_BOOTSTRAP)
        overall = pd.DataFrame(
            {
                "measure": ranking.names,
                "tau": ranking.values,
                "low": ranking.low,
                "high": ranking.high,
                "behind the best by at least": ranking.behind,
            }
        )
        networks = f"full grid of perceptrons on digits, {ranking.n_runs} networks"
        lines.append(summary(networks, "test minus training error", overall))
        found = within(table[table["status"] == "ok"], measures, "gap", FACTORS)
        written["full_grid"] = found
        asked = found["measure"].isin(ASKED_FOR.values())
        written["full_grid_shown"] = pd.concat(
            [found.head(SHOWN_WITHIN), found[asked]]
        ).drop_duplicates()
        sections += [
            f"## Full grid of perceptrons on digits: {comparison.statement}",
            ranking.statement + ".",
            markdown(found),
        ]
    for network, table in sweep_tables():
        measures = [name for name in MEASURES if name in table]
        for gap in ("error_gap", "loss_gap"):
            found = within(table, measures, gap, ["lr", "weight_decay"], ["seed"])
            written[f"sweep_{network}_{gap}"] = found
            sections += [
                f"## Weight decay x learning rate, {network}, {len(table)} runs: {gap}",
                markdown(found),
            ]
    written["in_front"] = pd.DataFrame(lines)
    text = "\n\n".join(sections) + "\n"
    print(text)
    if arguments.write:
        (HERE / "results.md").write_text(text)
        for name, table in written.items():
            table.round(3).to_csv(HERE / f"{name}.csv", index=False)


if __name__ == "__main__":
    main()
