"""Permutation tests against enumeration, and their family-wise error in simulations."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sharpfit.comparison import (
    Comparison,
    conditional_mutual_information,
    granulated_kendall,
    permutation_tests,
    robust_sign_error,
)
from sharpfit.comparison.permutation import permuted_rows, simultaneous_p_values
from sharpfit.comparison.rank_correlation import adjusted_p_values

GRID = list(itertools.product([1, 2, 3], [8, 16], ["a", "b", "c"]))
SETTINGS = {name: [row[i] for row in GRID] for i, name in enumerate(("lr", "width", "kind"))}
SINGLE = {
    "granulated": lambda *columns, **n: granulated_kendall(*columns),
    "sign_error": robust_sign_error,
    "conditional_information": lambda *columns, **n: conditional_mutual_information(*columns),
}


def by_place(tests):
    return {(test.measure, test.hyperparameter): test for test in tests}


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("n_test", [None, 60])
@pytest.mark.parametrize("statistic", list(SINGLE))
def test_values_are_those_of_the_single_measures(statistic, n_test, holes):
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(GRID))[: 13 if holes else None]
    settings = {name: [column[i] for i in rows] for name, column in SETTINGS.items()}
    gap = rng.normal(size=len(rows)).round(1)
    measures = {
        name: (weight * gap + rng.normal(size=len(rows))).round(0 if name == "ties" else 9)
        for name, weight in (("ties", 1.0), ("noise", 0.0), ("opposite", -1.0))
    }
    tests = by_place(
        permutation_tests(
            measures, gap, settings, statistic=statistic, n_test=n_test, n_permutations=3
        )
    )
    for name, column in measures.items():
        expected = SINGLE[statistic](column, gap, settings, n_test=n_test)
        assert tests[name, "all"].value == pytest.approx(expected.value, abs=1e-6)
        if statistic == "conditional_information":
            for pair, value in expected.by_pair.items():
                assert tests[name, ", ".join(pair)].value == pytest.approx(value, abs=1e-6)
        elif statistic == "granulated":
            for key, value in expected.by_hyperparameter.items():
                assert tests[name, key].value == pytest.approx(value)


@pytest.mark.parametrize("statistic", list(SINGLE))
def test_p_values_are_those_of_all_permutations(statistic):
    """Three runs in each of two groups have 36 permutations, each as likely as the other."""
    settings = {"lr": [1, 2, 3, 1, 2, 3], "width": [8, 8, 8, 16, 16, 16]}
    if statistic == "conditional_information":
        settings = {"width": settings["width"], "constant": ["x"] * 6}
    varied = next(iter(settings))
    gap = np.array([0.1, 0.4, 0.3, 0.2, 0.9, 0.5])
    measures = {"m": np.array([1.0, 2, 3, 1, 3, 2]), "n": np.array([3.0, 1, 2, 2, 1, 3])}
    values = {name: [] for name in measures}
    for first, second in itertools.product(itertools.permutations(range(3)), repeat=2):
        permuted = gap[[*first, *(3 + i for i in second)]]
        for name, column in measures.items():
            found = SINGLE[statistic](column, permuted, settings)
            values[name].append(
                found.by_hyperparameter[varied]
                if statistic == "granulated"
                else max(v for k, v in found.by_environment.items() if k[0] == varied)
                if statistic == "sign_error"
                else found.value
            )
    tests = by_place(
        permutation_tests(
            measures, gap, settings, statistic=statistic, n_permutations=4000, random_state=0
        )
    )
    place = varied if statistic != "conditional_information" else "width, constant"
    for name in measures:
        drawn = np.array(values[name])
        sign = {"granulated": 0, "sign_error": -1, "conditional_information": 1}[statistic]
        extreme = np.abs(drawn - drawn.mean()) if sign == 0 else sign * drawn
        observed = SINGLE[statistic](measures[name], gap, settings)
        expected = (extreme >= extreme[0] - 1e-9).mean()
        assert tests[name, place].p_value == pytest.approx(expected, abs=0.035), observed


def simulated(rng, statistic, associated=False):
    """Measures that go with one hyper-parameter and a gap that goes with another."""
    lr, width = np.array(list(itertools.product(range(5), range(6)))).T
    replicate = np.zeros_like(lr)
    if statistic == "conditional_information":  # needs several runs in a cell
        lr, width, replicate = np.array(list(itertools.product(range(2), range(2), range(6)))).T
    gap = 3.0 * rng.normal(size=6)[width] + rng.normal(size=len(lr))
    shared = rng.normal(size=len(lr))  # measures are alike
    measures = {
        f"m{i}": 3.0 * rng.normal(size=5)[lr] + shared + rng.normal(size=len(lr)) for i in range(8)
    }
    if associated:
        measures["good"] = gap + 0.2 * rng.normal(size=len(lr))
    settings = {"lr": lr, "width": width}
    if statistic == "conditional_information":
        settings["replicate"] = replicate
    return measures, gap, {name: column.tolist() for name, column in settings.items()}


@pytest.mark.parametrize("statistic", list(SINGLE))
def test_the_family_wise_error_is_as_said(statistic):
    rng, level, n_simulations = np.random.default_rng(1), 0.1, 200
    any_at_all = any_within = 0
    place = "lr, width" if statistic == "conditional_information" else "lr"
    for seed in range(n_simulations):
        measures, gap, settings = simulated(rng, statistic)
        tests = permutation_tests(
            measures, gap, settings, statistic=statistic, n_permutations=39, random_state=seed
        )
        n_keys = len({test.hyperparameter for test in tests}) - 1
        any_at_all += any(test.adjusted_p_value <= level for test in tests)
        # Within one hyper-parameter the adjustment over the measures is exact.
        within = [t.adjusted_p_value / n_keys for t in tests if t.hyperparameter == place]
        any_within += min(within) <= level / n_keys
    low, high = stats.binom.interval(0.998, n_simulations, level)
    assert any_at_all <= high
    low, high = stats.binom.interval(0.998, n_simulations, level / n_keys)
    assert low <= any_within <= high


@pytest.mark.parametrize("statistic", list(SINGLE))
def test_a_measure_that_goes_with_the_gap_is_found(statistic):
    measures, gap, settings = simulated(np.random.default_rng(2), statistic, associated=True)
    tests = by_place(
        permutation_tests(measures, gap, settings, statistic=statistic, random_state=0)
    )
    place = "lr, width" if statistic == "conditional_information" else "lr"
    assert tests["good", place].adjusted_p_value < 0.02
    assert tests["m0", place].adjusted_p_value > 0.05
    if statistic != "conditional_information":
        assert tests["good", "all"].adjusted_p_value < 0.05


def test_false_discoveries_of_rank_correlations_are_rare():
    rng, level = np.random.default_rng(3), 0.1
    found = 0
    for _ in range(300):
        gap, *measures = rng.normal(size=(13, 30))
        p_values = [stats.kendalltau(measure, gap).pvalue for measure in measures]
        found += min(adjusted_p_values(p_values)) <= level
    assert found <= stats.binom.interval(0.998, 300, level)[1]


def test_one_statistic_needs_no_adjustment_and_a_constant_one_says_nothing():
    rng = np.random.default_rng(4)
    drawn = np.stack([rng.normal(size=50), np.full(50, 0.1)], axis=1)
    for tail in ("two-sided", "greater", "less"):
        p_values, adjusted = simultaneous_p_values(drawn, tail)
        assert p_values[0] == adjusted[0]
        assert p_values[1] == adjusted[1] == 1.0
    assert simultaneous_p_values(drawn, "greater")[0][0] == np.mean(drawn[:, 0] >= drawn[0, 0])


def test_permutations_keep_runs_in_their_groups():
    groups = [np.array([0, 3, 4]), np.array([1]), np.array([2, 5])]
    permuted = permuted_rows(groups, 6, 600, 0)
    assert permuted[0].tolist() == list(range(6))
    assert (np.sort(permuted, axis=1) == np.arange(6)).all()
    for rows in groups:
        assert set(np.unique(permuted[:, rows])) == set(rows)
    assert np.unique(permuted[1:], axis=0, return_counts=True)[1].min() > 25  # 12, about 50 each


def test_the_table_of_a_comparison():
    rng = np.random.default_rng(5)
    table = pd.DataFrame(SETTINGS)
    table["gap"] = rng.normal(size=len(table))
    table["noise"] = rng.normal(size=len(table))
    table["good"] = table["gap"] + 0.1 * rng.normal(size=len(table))
    table["partly"] = table["noise"].where(table["lr"] > 1)
    comparison = Comparison.from_table(
        table, ["noise", "partly", "good"], hyperparameters=list(SETTINGS)
    )
    found = comparison.tests()
    assert found["measure"].iloc[0] == "good"
    assert found["hyperparameter"].tolist()[:4] == ["all", "lr", "width", "kind"]
    assert found["measure"].iloc[-1] == "partly"
    assert found["adjusted_p_value"].isna().tolist() == [False] * 8 + [True]
    assert (found["adjusted_p_value"].iloc[:8] >= found["p_value"].iloc[:8]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"statistic": "granulted"}, "got 'granulted'"),
        ({"n_permutations": 0}, "n_permutations must be at least 1, got 0"),
        ({"measures": {}}, "measures is empty"),
        ({"n_test": 0}, "n_test must be a positive number of test rows, got 0"),
        ({"hyperparameters": {"a": [1, 2, 3], "b": [1, 2, 3]}}, "no two runs differ in a single"),
        (
            {"hyperparameters": {"a": [1, 2, 3]}, "statistic": "conditional_information"},
            "pass at least two",
        ),
        ({"gap": [1.0, 2.0]}, "m has 3 runs but gap has 2"),
    ],
)
def test_bad_arguments_of_permutation_tests(change, message):
    arguments = {"measures": {"m": [1.0, 2, 3]}, "gap": [1.0, 2, 3]}
    arguments |= {"hyperparameters": {"a": [1, 2, 3]}} | change
    with pytest.raises(ValueError, match=message):
        permutation_tests(**arguments)
