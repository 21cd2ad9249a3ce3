"""Which measure ranks best? Tables from the measured suites, the full grid and the sweeps.

``python report.py --write`` reads what `measure.py` and `factorial.py` kept and the tables of
``../experiments/results``, and writes results.md and one small table a section.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from over_suites import CONFIDENCE, N_BOOTSTRAP, held_fixed, interval, over_suites, suite_tables

from sharpfit.comparison import Comparison
from sharpfit.measures import MEASURES

HERE = Path(__file__).parent
N_PERMUTATIONS = 1000
SWEEPS = HERE.parent / "experiments" / "results"
ASKED_FOR = {
    "mean Jacobian": "mean_jacobian",
    "sharpness": "sharpness",
    "bound": "bound",
    "selection criterion": "selection_criterion",
}
SHOWN_WITHIN = 6
FACTORS = ["lr", "batch_size", "weight_decay", "hidden", "dropout"]
STATISTICS = ("granulated", "conditional_information", "sign_error")


def within(table, measures, gap, factors, nuisance=()):
    """Granulated tau of every measure within each factor, the nuisance factors held fixed too.

    A star marks what is told from chance over all measures and factors together.
    """
    comparison = Comparison.from_table(
        table, measures, gap=gap, hyperparameters=[*factors, *nuisance]
    )
    tests = comparison.tests(n_permutations=N_PERMUTATIONS)
    adjusted = tests.set_index(["measure", "hyperparameter"])["adjusted_p_value"]
    rows = []
    for name in comparison.complete_measures:
        found = comparison.granulated(name)
        row = {"measure": name, "mean": np.mean([found.by_hyperparameter[f] for f in factors])}
        for factor in factors:
            low, high = found.intervals[factor]
            star = "*" if adjusted[name, factor] <= 1 - CONFIDENCE else ""
            row[factor] = interval(found.by_hyperparameter[factor], low, high) + star
        rows.append(row)
    return pd.DataFrame(rows).sort_values("mean", ascending=False)


def all_statistics(comparison):
    """Every statistic over all hyper-parameters with its adjusted p-value."""
    columns = []
    for statistic in STATISTICS:
        tests = comparison.tests(statistic, n_permutations=N_PERMUTATIONS)
        overall = tests[tests["hyperparameter"] == "all"].set_index("measure")
        words = statistic.replace("_", " ")
        columns += [
            overall["value"].rename(words),
            overall["adjusted_p_value"].rename(f"p, {words}"),
        ]
    return pd.concat(columns, axis=1).sort_values("granulated", ascending=False).reset_index()


def summary(networks, against, found):
    """One line of the guide: who is in front, and where the ones that people ask for stand."""
    place = found.set_index("measure")
    equal = int((found["behind the best by at least"] <= 0).sum()) - 1
    row = {"networks": networks, "against": against, "in front": found["measure"].iloc[0]}
    for column, name in (("its tau", row["in front"]), *ASKED_FOR.items()):
        row[column] = (
            interval(*place.loc[name, ["tau", "low", "high"]]) if name in place.index else ""
        )
    return row | {"others not told apart": equal, "of": len(found)}


def shown(found):
    """Take the first rows of a table, and those of the measures that people ask for."""
    asked = found["measure"].isin(ASKED_FOR.values())
    return pd.concat([found.head(SHOWN_WITHIN), found[asked]]).drop_duplicates()


def sweep_tables():
    """Weight decay times learning rate at equal updates, by study; seeds are a factor."""
    for path in sorted(SWEEPS.glob("flat_minima_*.csv")):
        table = pd.read_csv(path)
        if not {"seed", "weight_decay", "error_gap"} <= set(table):
            continue
        plain = ["label_smoothing", "sam", "mixup", "shift", "dropout", "jacobian_penalty"]
        chosen = (table[plain] == 0).all(axis=1) & (table["equal"] == "updates")
        chosen &= table["batch_size"] == table["batch_size"].mode()[0]
        table = table[chosen & (table["status"] == "ok") & (table["reached"] == 1)]
        yield (
            path.stem.removeprefix("flat_minima_"),
            table.drop_duplicates(["lr", "weight_decay", "seed"]),
        )


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
        sizes = ", ".join(
            f"{name} {' + '.join(str(len(rows)) for rows in by_seed)}"
            for name, by_seed in tables.items()
        )
        for target, words in (("gap", "test minus training error"), ("test", "test error")):
            found = over_suites(tables, target)
            written[f"{task}_{target}"] = found
            n_networks = sum(len(rows) for by_seed in tables.values() for rows in by_seed)
            networks = f"{len(tables)} {task} suites, {n_networks} networks"
            lines.append(summary(networks, words, found))
            fixed = held_fixed(tables, target)
            written[f"{task}_{target}_held_fixed"] = fixed
            written[f"{task}_{target}_held_fixed_shown"] = shown(fixed)
            sections += [
                f"## {task.capitalize()} suites: {words}",
                f"Networks by suite and seed: {sizes}.",
                markdown(found),
                "Tau over the pairs of networks that agree in one hyper-parameter:",
                markdown(fixed),
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
        found = within(table[table["status"] == "ok"], measures, "gap", FACTORS, ["seed"])
        # Runs that differ in the seed alone are no intervention, so these are of one seed.
        first = Comparison.from_table(table[table["seed"] == 0], measures, hyperparameters=FACTORS)
        statistics = all_statistics(first)
        written |= {
            "full_grid": found,
            "full_grid_shown": shown(found),
            "full_grid_statistics": statistics,
            "full_grid_statistics_shown": shown(statistics),
        }
        sections += [
            f"## Full grid of perceptrons on digits: {comparison.statement}",
            ranking.statement + ".",
            markdown(found),
            f"Of the first seed: {first.statement}.",
            markdown(statistics),
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
