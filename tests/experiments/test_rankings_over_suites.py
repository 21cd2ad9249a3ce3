"""Rankings over suites of networks, against SciPy on small tables."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

pytest.importorskip("mlxtend", reason="the suites need the extra bench")
pytest.importorskip("river", reason="the suites need the extra bench")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "ranking"))


@pytest.fixture(scope="module")
def over_suites():
    return importlib.import_module("over_suites")


def networks(n_networks, seed, offset=0.0):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"network": range(n_networks), "seed": seed})
    table["gap"] = rng.normal(size=n_networks)
    table["sharpness"] = table["gap"] + 0.1 * rng.normal(size=n_networks)
    table["squared_norm"] = offset + rng.normal(size=n_networks)
    table["hp_width"] = ["8", "16"] * (n_networks // 2)
    table["hp_depth"] = "1"
    return table


def test_tau_is_the_mean_over_seeds_and_suites(over_suites):
    tables = {
        "one": [networks(12, 0), networks(12, 1, offset=50.0).drop(index=[3, 7])],
        "two": [networks(8, 2)],
    }
    found = over_suites.over_suites(tables, "gap").set_index("measure")
    for name in ("sharpness", "squared_norm"):
        by_seed = [
            [stats.kendalltau(rows[name], rows["gap"]).statistic for rows in suite]
            for suite in tables.values()
        ]
        expected = np.mean([np.mean(taus) for taus in by_seed])
        assert found.loc[name, "tau"] == pytest.approx(expected)
        assert found.loc[name, "low"] < expected < found.loc[name, "high"]
    assert found.index[0] == "sharpness"


def test_a_measure_that_only_tracks_a_setting_says_nothing_where_it_is_held_fixed(over_suites):
    table = networks(40, 3)
    wide = (table["hp_width"] == "16").to_numpy()
    table["gap"] = 10.0 * wide + np.random.default_rng(0).normal(size=40)
    table["sharpness"] = 10.0 * wide + np.random.default_rng(1).normal(size=40)
    found = over_suites.held_fixed({key: [table] for key in "abc"}, "gap").set_index("measure")
    assert list(found.columns) == ["nothing (3 suites)", "width (3 suites)"]  # depth never varies
    overall, fixed = (float(cell.split()[0]) for cell in found.loc["sharpness"])
    upper = np.triu(np.ones((40, 40), dtype=bool), 1)
    agree = [np.sign(np.subtract.outer(*[table[c].to_numpy()] * 2)) for c in ("sharpness", "gap")]
    same = upper & (wide[:, None] == wide)
    assert overall == pytest.approx((agree[0] * agree[1])[upper].mean(), abs=0.006)
    assert fixed == pytest.approx((agree[0] * agree[1])[same].mean(), abs=0.006)
    assert overall > 0.4 > 0.25 > abs(fixed)
