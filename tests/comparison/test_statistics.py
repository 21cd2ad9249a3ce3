"""Correlations against simulations and tables worked by hand."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from sharpfit.comparison import (
    conditional_mutual_information,
    granulated_kendall,
    partial_rank_correlation,
    rank_correlation,
    robust_sign_error,
)


def full_grid(n_values=(3, 3, 2)):
    rows = list(itertools.product(*(range(n) for n in n_values)))
    return {name: [row[k] for row in rows] for k, name in enumerate("abc"[: len(n_values)])}


def test_rank_correlations_are_scipys():
    x, y = np.random.default_rng(0).normal(size=(2, 50))
    y += x
    kendall = rank_correlation(x, y, random_state=0)
    assert kendall.value == pytest.approx(stats.kendalltau(x, y).statistic)
    assert kendall.low < kendall.value < kendall.high
    spearman = rank_correlation(x, y, kind="spearman", random_state=0)
    assert spearman.value == pytest.approx(stats.spearmanr(x, y).statistic)
    assert kendall == rank_correlation(x, y, random_state=0)


def test_bootstrap_interval_covers_the_known_correlation():
    correlation = 0.5
    truth = 2 / math.pi * math.asin(correlation)  # Kendall's tau of a normal pair
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(100):
        x = rng.normal(size=60)
        y = correlation * x + math.sqrt(1 - correlation**2) * rng.normal(size=60)
        result = rank_correlation(x, y, n_bootstrap=200, confidence=0.9, random_state=seed)
        covered += result.low <= truth <= result.high
    assert 80 <= covered <= 98


def test_constant_columns_have_no_correlation():
    result = rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], n_bootstrap=5, random_state=0)
    assert math.isnan(result.value)
    assert math.isnan(result.low)


def test_granulated_against_every_group_by_hand():
    settings = full_grid()
    measure, gap = np.random.default_rng(2).normal(size=(2, 18))
    result = granulated_kendall(measure, gap, settings)
    index = {(a, b, c): i for i, (a, b, c) in enumerate(zip(*settings.values(), strict=True))}
    taus = []
    for b, c in itertools.product(range(3), range(2)):
        rows = [index[a, b, c] for a in range(3)]
        taus.append(stats.kendalltau(measure[rows], gap[rows]).statistic)
    assert result.by_hyperparameter["a"] == pytest.approx(np.mean(taus))
    assert result.n_groups == {"a": 6, "b": 6, "c": 9}
    assert result.value == pytest.approx(np.mean(list(result.by_hyperparameter.values())))


def test_granulated_intervals_cover_the_mean_over_many_groups():
    rng = np.random.default_rng(9)
    settings = {"a": [0, 1, 2] * 40, "b": [i for i in range(40) for _ in range(3)]}
    # Within a group of three, tau of x with x + noise has one mean over all groups.
    gap = rng.normal(size=(20_000, 3))
    noisy = gap + rng.normal(size=gap.shape)
    pairs = [(0, 1), (0, 2), (1, 2)]
    truth = np.mean(
        [np.sign((gap[:, i] - gap[:, j]) * (noisy[:, i] - noisy[:, j])).mean() for i, j in pairs]
    )
    covered = 0
    for seed in range(60):
        x = rng.normal(size=120)
        y = x + rng.normal(size=120)
        result = granulated_kendall(y, x, settings, confidence=0.9, random_state=seed)
        low, high = result.intervals["a"]
        covered += low <= truth <= high
    assert 47 <= covered <= 60
    assert result == granulated_kendall(y, x, settings, confidence=0.9, random_state=59)


def test_a_single_group_has_no_interval():
    result = granulated_kendall([1, 2, 3], [1, 2, 3], {"a": [1, 2, 3]}, random_state=0)
    assert result.value == 1.0
    assert np.isnan(result.intervals["a"]).all()
    assert np.isnan(result.interval).all()


def test_granulated_sees_through_a_measure_that_tracks_one_hyperparameter():
    settings = full_grid((4, 4))
    gap = np.array(settings["a"]) + 0.1 * np.array(settings["b"])
    measure = np.array(settings["a"], dtype=float)
    assert rank_correlation(measure, gap, random_state=0).value > 0.8
    result = granulated_kendall(measure, gap, settings)
    assert result.by_hyperparameter == {"a": 1.0, "b": 0.0}


def competition_score(measure, gap, settings):
    """The competition's score written out pair by pair, from its definition."""
    n = len(gap)
    scores = []
    for first, second in itertools.permutations(settings, 2):
        cells = {}
        for i, j in itertools.product(range(n), repeat=2):
            key = (settings[first][i], settings[first][j], settings[second][i], settings[second][j])
            cells.setdefault(key, []).append((gap[i] > gap[j], measure[i] > measure[j]))
        information = entropy = 0.0
        for pairs in cells.values():
            frequency = {
                (g, m): sum(p == (g, m) for p in pairs) / len(pairs)
                for g, m in itertools.product((False, True), repeat=2)
            }
            of_gap = {g: frequency[g, False] + frequency[g, True] for g in (False, True)}
            of_measure = {m: frequency[False, m] + frequency[True, m] for m in (False, True)}
            entropy -= sum(p * math.log2(p) for p in of_gap.values() if p)
            information += sum(
                p * math.log2(p / (of_gap[g] * of_measure[m]))
                for (g, m), p in frequency.items()
                if p
            )
        scores.append(information / entropy)
    return min(scores)


@pytest.mark.parametrize("ties", [False, True])
def test_competition_score_pair_by_pair(ties):
    rng = np.random.default_rng(3)
    settings = full_grid((2, 3, 3))
    gap = rng.normal(size=18)
    measure = gap + rng.normal(size=18)
    if ties:
        gap, measure = gap.round(), measure.round()
    result = conditional_mutual_information(measure, gap, settings)
    assert result.value == pytest.approx(competition_score(measure, gap, settings), abs=1e-12)
    assert result.n_empty_cells == 0


def test_competition_score_of_a_table_worked_by_hand():
    # Two runs a setting, a perfect measure in the cells of one setting and a useless one in
    # cells of two: H of a self cell (4 pairs, 1 greater) is h(1/4), of a cross cell 0, 1 or h.
    settings = {"lr": [1, 1], "width": [8, 8]}
    with pytest.raises(ValueError, match="at least three"):
        conditional_mutual_information([1, 2], [1, 2], settings)
    settings = {"lr": [1, 1, 1, 1], "width": [8, 8, 8, 8]}
    # One cell of 16 pairs: the gap is greater in 6; the measure is greater in 4 (two levels),
    # all 4 of them among the 6.
    gap, measure = [1, 2, 3, 4], [0, 0, 1, 1]

    def entropy(*p):
        return -sum(q * math.log2(q) for q in p if q)

    expected = (
        entropy(6 / 16, 10 / 16) + entropy(4 / 16, 12 / 16) - entropy(4 / 16, 2 / 16, 10 / 16)
    ) / entropy(6 / 16, 10 / 16)
    assert conditional_mutual_information(measure, gap, settings).value == pytest.approx(expected)


def test_incomplete_designs_count_their_empty_cells():
    settings = {"a": [0, 0, 1, 1], "b": [0, 1, 0, 0]}
    result = conditional_mutual_information([1, 2, 3, 4], [1, 2, 3, 4], settings)
    assert result.n_empty_cells == 16 - 9


def test_measure_known_from_the_hyperparameters_scores_nothing():
    settings = full_grid((3, 3))
    settings = {name: values * 4 for name, values in settings.items()}
    rng = np.random.default_rng(4)
    base = np.array(settings["a"]) * 3.0 + np.array(settings["b"])
    result = conditional_mutual_information(base, base + 0.1 * rng.normal(size=36), settings)
    assert result.value == pytest.approx(0.0, abs=1e-12)


def test_sign_error_by_hand():
    settings = {"lr": [1, 2, 1, 2], "width": [8, 8, 16, 16]}
    result = robust_sign_error([1, 2, 4, 3], [1, 2, 3, 3], settings)
    assert result.by_environment == {("lr", "1", "2"): 0.25, ("width", "16", "8"): 0.0}
    assert result.value == 0.25
    assert result.mean == 0.125


def test_sign_error_weighs_pairs_by_what_the_test_rows_settle():
    settings = {"lr": [1, 2, 1, 2], "width": [8, 8, 16, 16]}
    gap = [0.0, 0.5, 0.0, 0.1]
    measure = [0, 1, 1, 0]
    n_test = 200
    weights = [max(0, 1 - 2 * math.exp(-2 * n_test * (d / 2) ** 2)) ** 2 for d in (0.5, 0.1)]
    result = robust_sign_error(measure, gap, settings, n_test=n_test, minimum_weight=0.5)
    assert result.by_environment[("lr", "1", "2")] == pytest.approx(weights[1] / sum(weights))
    excluded = robust_sign_error(measure, gap, settings, n_test=20, minimum_weight=1.0)
    assert excluded.n_excluded > 0


def test_partial_correlation_of_a_chain_vanishes():
    rng = np.random.default_rng(5)
    cause = rng.normal(size=4000)
    flatness = cause + rng.normal(size=4000)
    gap = cause + rng.normal(size=4000)
    assert rank_correlation(flatness, gap, kind="spearman", n_bootstrap=2).value > 0.4
    result = partial_rank_correlation(flatness, gap, cause, n_bootstrap=50, random_state=0)
    # Spearman's rho of normals is not exactly their correlation: a bias of a few hundredths stays.
    assert abs(result.value) < 0.06
    assert result.low < result.value < result.high


def test_partial_correlation_is_the_formula():
    columns = np.random.default_rng(6).normal(size=(3, 40))
    x, y, z = columns
    a, b, c = (stats.kendalltau(*pair).statistic for pair in ((x, y), (x, z), (y, z)))
    expected = (a - b * c) / math.sqrt((1 - b * b) * (1 - c * c))
    result = partial_rank_correlation(x, y, z, kind="kendall", n_bootstrap=5, random_state=0)
    assert result.value == pytest.approx(expected)


@pytest.mark.parametrize(("kind", "n_bootstrap"), [("spearman", 1), ("kendall", 100)])
def test_partial_p_values_are_uniform_without_association(kind, n_bootstrap):
    rng = np.random.default_rng(7)
    p_values = [
        partial_rank_correlation(
            *rng.normal(size=(3, 40)), kind=kind, n_bootstrap=n_bootstrap, random_state=0
        ).p_value
        for _ in range(300)
    ]
    assert stats.kstest(p_values, "uniform").pvalue > 0.01


def test_partial_kendall_has_a_small_p_value_where_there_is_something():
    rng = np.random.default_rng(9)
    x, y, z = rng.normal(size=(3, 60))
    found = partial_rank_correlation(x, x + y, z, kind="kendall", random_state=0)
    assert found.p_value < 1e-4


def test_ten_thousand_runs():
    rng = np.random.default_rng(8)
    settings = {name: rng.integers(10, size=10_000).tolist() for name in "abc"}
    measure, gap = rng.normal(size=(2, 10_000))
    assert abs(granulated_kendall(measure, gap, settings).value) < 0.1
    assert conditional_mutual_information(measure, gap, settings).value < 0.01
    assert 0.4 < robust_sign_error(measure, gap, settings).mean < 0.6
    single = {"a": settings["a"]}
    assert abs(granulated_kendall(measure, gap, single).value) < 0.03


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rank_correlation([1, 2, np.nan], [1, 2, 3]), "not finite in 1 of 3 runs"),
        (lambda: rank_correlation([1, 2, 3], [1, 2]), "gap has 2 runs but measure has 3"),
        (lambda: rank_correlation([1, 2, 3], [1, 2, 3], kind="pearson"), "'pearson'"),
        (lambda: rank_correlation([1, 2, 3], [1, 2, 3], confidence=95), "got 95"),
        (lambda: granulated_kendall([1, 2, 3], [1, 2, 3], {}), "empty"),
        (lambda: granulated_kendall([1, 2, 3], [1, 2, 3], {"a": [1]}), "1 values for 3 runs"),
        (
            lambda: conditional_mutual_information([1, 2, 3], [1, 2, 3], {"a": [1, 2, 3]}),
            "at least two columns",
        ),
        (lambda: robust_sign_error([1, 2, 3], [1, 2, 3], {"a": [1, 2, 3]}, n_test=0), "got 0"),
        (lambda: rank_correlation([[1, 2, 3]], [[1, 2, 3]]), "one value a run"),
    ],
)
def test_bad_tables_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
