"""Resampled rank correlations against scipy, and who is said to rank best."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sharpfit.comparison import Common, Comparison, rank_measures, resampling


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("largest_table", [1000, 10])
@pytest.mark.parametrize("kind", ["kendall", "spearman"])
def test_resampled_correlations_are_scipys_on_the_rows(kind, largest_table, ties, monkeypatch):
    monkeypatch.setattr(resampling, "_LARGEST_PAIR_TABLE", largest_table)
    monkeypatch.setattr(resampling, "_ENTRIES_AT_ONCE", 100)
    x, y = np.random.default_rng(0).normal(size=(2, 40))
    y += x
    if ties:
        x, y = x.round(), (2 * y).round()
    counts = resampling.resample_counts(40, 25, 0)
    assert (counts.sum(axis=1) == 40).all()
    found = resampling.resampled_correlations(x, y, counts, kind)
    correlate = stats.kendalltau if kind == "kendall" else stats.spearmanr
    for value, count in zip(found, counts, strict=True):
        rows = np.repeat(np.arange(40), count)
        assert value == pytest.approx(correlate(x[rows], y[rows]).statistic, abs=1e-12)


def test_constant_resamples_have_no_correlation():
    counts = np.array([[3, 0, 0], [1, 1, 1]])
    x = y = np.array([1.0, 2.0, 3.0])
    for kind in ("kendall", "spearman"):
        values = resampling.resampled_correlations(x, y, counts, kind)
        assert np.isnan(values[0])
        assert values[1] == pytest.approx(1.0)


def test_the_better_measure_is_in_front():
    gap, *noise = np.random.default_rng(0).normal(size=(5, 100))
    scales = {"best": 0.2, "twin": 0.2, "worse": 3.0}
    measures = {
        name: gap + scale * column
        for (name, scale), column in zip(scales.items(), noise, strict=False)
    }
    ranking = rank_measures(measures | {"constant": np.ones(100)}, gap, random_state=0)
    assert set(ranking.not_told_apart) == {"best", "twin"}
    assert ranking.names[2:] == ("worse", "constant")
    assert np.isnan(ranking.values[-1])
    assert np.nansum(ranking.share_best) == pytest.approx(1.0)
    assert ranking.statement.startswith(f"{ranking.names[0]} ranks best of 3 measures over 100")
    assert "not told apart from it" in ranking.statement
    alone = rank_measures({k: measures[k] for k in ("best", "worse")}, gap, random_state=0)
    assert "all others are behind it" in alone.statement
    assert "no measure" in rank_measures({"constant": np.ones(9)}, np.arange(9.0)).statement


def test_a_long_list_of_equals_is_cut_short():
    rng = np.random.default_rng(3)
    gap = rng.normal(size=20)
    measures = {f"m{i}": gap + rng.normal(size=20) for i in range(12)}
    assert " and 6 others" in rank_measures(measures, gap, random_state=0).statement


def test_equal_measures_are_rarely_told_apart():
    """The statement is simultaneous: among ten equals, seldom is even one excluded."""
    rng = np.random.default_rng(1)
    excluded = 0
    for seed in range(60):
        gap = rng.normal(size=50)
        measures = {str(i): gap + rng.normal(size=50) for i in range(10)}
        ranking = rank_measures(measures, gap, n_bootstrap=200, confidence=0.9, random_state=seed)
        excluded += len(ranking.not_told_apart) < 10
    assert excluded <= 10  # 6 are expected at most


def test_ranking_of_a_table_leaves_out_what_some_runs_lack():
    rng = np.random.default_rng(2)
    table = pd.DataFrame(rng.normal(size=(30, 3)), columns=["a", "b", "gap"])
    table.loc[3, "b"] = np.nan
    assert Comparison.from_table(table, ["a", "b"]).ranking().names == ("a",)
    table.loc[3, "gap"] = np.nan
    assert set(Comparison.from_table(table, ["a", "b"]).ranking().names) == {"a", "b"}


def test_a_table_goes_round():
    table = {
        "run": ["x", "y", "z", "u"],
        "status": ["ok", "ok", "diverged: nan", "ok"],
        "n_updates": [5, 5, 3, 5],
        "training": [0.0, 0.1, np.nan, 0.2],
        "test": [0.2, 0.2, np.nan, 0.3],
        "gap": [0.2, 0.1, np.nan, 0.1],
        "gap_error": [0.01, 0.02, np.nan, 0.03],
        "sharpness": [3.0, 2.0, np.nan, 1.0],
        "lr": [1, 2, 3, 4],
    }
    settings = {
        "gap_kind": "loss", "common": Common("updates", 5), "hyperparameters": ["lr"],
    }  # fmt: skip
    comparison = Comparison.from_table(table, ["sharpness"], **settings)
    assert repr(comparison) == (
        "Comparison: 3 runs compared at equal updates (5); gap = test minus training loss; "
        "1 runs do not count, see status"
    )
    frame = comparison.frame()
    pd.testing.assert_frame_equal(frame[list(table)], pd.DataFrame(table))
    again = Comparison.from_table(frame, ["sharpness"], **settings)
    pd.testing.assert_frame_equal(again.frame(), frame)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"measures": {}}, "measures is empty"),
        ({"kind": "pearson"}, "'pearson'"),
        ({"n_bootstrap": 0}, "got 0"),
        ({"confidence": 2}, "got 2"),
        ({"measures": {"a": [1, 2, np.inf, 4]}}, "a is not finite in 1 of 4 runs"),
    ],
)
def test_bad_arguments_of_a_ranking(settings, message):
    settings = {"measures": {"a": [1, 2, 3, 4]}} | settings
    with pytest.raises(ValueError, match=message):
        rank_measures(settings.pop("measures"), [1, 2, 4, 3], **settings)
