"""How measures go with the gap over suites of networks, overall and with one setting held fixed."""

from pathlib import Path

import numpy as np
import pandas as pd
from plain_networks import SUITES

from sharpfit.comparison.ranking import compare_with_best
from sharpfit.comparison.resampling import resample_counts, resampled_correlations
from sharpfit.measures import MEASURES

CACHE = Path(__file__).parent / "cache"
N_BOOTSTRAP = 1000
CONFIDENCE = 0.95
FEWEST_NETWORKS = 5
FEWEST_PAIRS = 10
FEWEST_SUITES = 3  # for an interval


def suite_tables(task):
    """Measured networks of the suites of a task, by suite and seed; diverged ones left out."""
    tables = {}
    for name, suite in SUITES.items():
        path = CACHE / f"{name}.csv"
        if suite.task != task or not path.exists():
            continue
        table = pd.read_csv(path)
        table = table[table["status"] == "ok"]
        by_seed = [rows for _, rows in table.groupby("seed") if len(rows) >= FEWEST_NETWORKS]
        if by_seed:
            tables[name] = by_seed
    return tables


def measures_of(tables):
    """Measures that all networks have."""
    return [
        name
        for name in MEASURES
        if all(
            name in rows and rows[name].notna().all()
            for by_seed in tables.values()
            for rows in by_seed
        )
    ]


def over_suites(tables, target):
    """Mean tau of every measure over suites and seeds, with intervals that resample all of them.

    A suite's networks are resampled together for all seeds.
    """
    names = measures_of(tables)
    once, resampled = [], []
    for number, by_seed in enumerate(tables.values()):
        networks = np.unique(np.concatenate([rows["network"] for rows in by_seed]))
        counts = resample_counts(len(networks), N_BOOTSTRAP, number)
        seeds = resample_counts(len(by_seed), N_BOOTSTRAP, 1000 + number) / len(by_seed)
        taus, draws = [], []
        for rows in by_seed:
            truth, places = rows[target].to_numpy(), np.searchsorted(networks, rows["network"])
            unit = np.ones((1, len(rows)), dtype=np.int64)
            columns = [rows[name].to_numpy() for name in names]
            taus.append([resampled_correlations(x, truth, unit, "kendall")[0] for x in columns])
            draws.append(
                [resampled_correlations(x, truth, counts[:, places], "kendall") for x in columns]
            )
        # A measure that is constant over a suite does not rank it.
        once.append(np.nan_to_num(taus).mean(axis=0))
        resampled.append(np.einsum("smb,bs->mb", np.nan_to_num(draws), seeds))
    values, resampled = np.mean(once, axis=0), np.stack(resampled)
    picks = np.random.default_rng(0).integers(len(tables), size=(N_BOOTSTRAP, len(tables)))
    draws = np.stack([resampled[pick, :, i].mean(axis=0) for i, pick in enumerate(picks)], axis=1)
    order = np.argsort(-values)
    behind, share = compare_with_best(values[order], draws[order], CONFIDENCE)
    low, high = np.quantile(draws[order], [0.025, 0.975], axis=1)
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


def held_fixed(tables, target):
    """Mean tau over suites of the pairs of networks that agree in one hyper-parameter.

    A measure that only tracks a hyper-parameter loses what it says where this one is held fixed.
    """
    names = measures_of(tables)
    found: dict[str, list[np.ndarray]] = {}
    for by_seed in tables.values():
        in_suite: dict[str, list[np.ndarray]] = {}
        for rows in by_seed:
            truth = _signs(rows[target])
            agreement = np.stack([_signs(rows[name]) * truth for name in names])
            upper = np.triu(np.ones_like(truth, dtype=bool), 1)
            in_suite.setdefault("nothing", []).append(agreement[:, upper].mean(axis=1))
            for column in rows.columns[rows.columns.str.startswith("hp_")]:
                values = rows[column].astype(str).to_numpy()
                pairs = upper & (values[:, None] == values)
                if len(set(values)) > 1 and pairs.sum() >= FEWEST_PAIRS:
                    key = column.removeprefix("hp_")
                    in_suite.setdefault(key, []).append(agreement[:, pairs].mean(axis=1))
        for key, taus in in_suite.items():
            found.setdefault(key, []).append(np.mean(taus, axis=0))
    table = pd.DataFrame({"measure": names})
    for key, taus in found.items():
        if len(taus) < FEWEST_SUITES and key != "nothing":
            continue
        suites = np.stack(taus)
        picks = np.random.default_rng(0).integers(len(suites), size=(N_BOOTSTRAP, len(suites)))
        low, high = np.quantile(suites[picks].mean(axis=1), [0.025, 0.975], axis=0)
        middle = suites.mean(axis=0)
        cells = [interval(*cell) for cell in zip(middle, low, high, strict=True)]
        table[f"{key.replace('_', ' ')} ({len(suites)} suites)"] = cells
        if key == "nothing":
            order = np.argsort(-middle)
    return table.iloc[order]


def _signs(column):
    values = column.to_numpy()
    return np.sign(values[:, None] - values)


def interval(value, low, high):
    return f"{value:.2f} ({low:.2f} to {high:.2f})"
