"""Rank correlations within seeds against scipy and simulations."""

import numpy as np
import pandas
import pytest
from scipy import stats

associations = pytest.importorskip("benchmarks.experiments.associations")


def table_of(n_seeds, n_settings, strength, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_seeds, n_settings))
    noise = rng.normal(size=(n_seeds, n_settings))
    offsets = 100 * np.arange(n_seeds)[:, None]  # seeds differ; that must not count
    y = strength * x + np.sqrt(1 - strength**2) * noise
    return pandas.DataFrame(
        {
            "network": "mlp",
            "seed": np.repeat(np.arange(n_seeds), n_settings),
            "x": (x - offsets).ravel(),
            "y": (y + offsets).ravel(),
            "noise": rng.normal(size=n_seeds * n_settings),
        }
    )


def test_is_the_mean_of_tau_over_seeds_ties_included():
    table = table_of(3, 9, 0.5).round({"x": 0})
    expected = [
        stats.kendalltau(rows["x"], rows["y"]).statistic for _, rows in table.groupby("seed")
    ]
    assert associations.within_seeds(table, "x", "y").value == pytest.approx(np.mean(expected))


def test_difference_is_of_the_same_runs():
    table = table_of(2, 12, 0.9)
    parts = [associations.within_seeds(table, column, "y").value for column in ("x", "noise")]
    difference = associations.within_seeds(table, "x", "y", minus="noise")
    assert difference.value == pytest.approx(parts[0] - parts[1])
    same = associations.within_seeds(table, "x", "y", minus="x")
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    strength = 0.6
    truth = 2 / np.pi * np.arcsin(strength)  # of jointly normal columns
    inside = []
    for seed in range(40):
        found = associations.within_seeds(table_of(4, 25, strength, seed), "x", "y")
        inside.append(found.low <= truth <= found.high)
    assert np.mean(inside) > 0.8


def test_a_constant_column_has_no_correlation():
    table = table_of(2, 5, 0.5).assign(x=1.0)
    found = associations.within_seeds(table, "x", "y")
    assert np.isnan([found.value, found.low, found.high]).all()


def test_fixed_levels_resample_seeds_only():
    table = table_of(2, 4, 0.9)
    taus = [stats.kendalltau(r["x"], r["y"]).statistic for _, r in table.groupby("seed")]
    found = associations.within_seeds(table, "x", "y", fixed_levels=True)
    assert (found.low, found.high) == pytest.approx((min(taus), max(taus)))
    assert (found.n_runs, found.n_groups) == (8, 2)


def test_networks_are_not_compared_with_each_other():
    first, second = table_of(1, 9, 0.5, 0), table_of(1, 9, 0.5, 1).assign(network="cnn")
    second["x"] += 50
    both = associations.within_seeds(pandas.concat([first, second]), "x", "y").value
    alone = [associations.within_seeds(table, "x", "y").value for table in (first, second)]
    assert both == pytest.approx(np.mean(alone))
