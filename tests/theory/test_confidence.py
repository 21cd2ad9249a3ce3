import numpy as np
import pytest
from scipy.stats import binom

from sharpfit.theory import (
    binary_kl,
    clopper_pearson_lower,
    clopper_pearson_upper,
    dkw_deviation,
    hoeffding_deviation,
    kl_inverse,
)


def test_known_limits():
    assert float(clopper_pearson_upper(0, 50, 0.05)) == pytest.approx(0.0581551, abs=5e-8)
    assert float(kl_inverse(0.1, np.log(20) / 50)) == pytest.approx(0.2337837, abs=5e-8)
    assert hoeffding_deviation(50, 0.05) == pytest.approx(np.sqrt(np.log(20) / 100))


@pytest.mark.parametrize("count", [0, 1, 7, 29, 30])
def test_clopper_pearson_inverts_the_binomial_distribution(count):
    upper = float(clopper_pearson_upper(count, 30, 0.1))
    lower = float(clopper_pearson_lower(count, 30, 0.1))
    if count < 30:
        assert binom.cdf(count, 30, upper) == pytest.approx(0.1)
    else:
        assert upper == 1.0
    if count > 0:
        assert binom.sf(count - 1, 30, lower) == pytest.approx(0.1)
    else:
        assert lower == 0.0


@pytest.mark.parametrize("probability", [0.01, 0.2, 0.5, 0.97])
def test_exact_coverage_of_the_upper_limits(probability):
    # The chance that the limit fails is a finite sum over the counts: no simulation is needed.
    counts = np.arange(41)
    mass = binom.pmf(counts, 40, probability)
    exact = clopper_pearson_upper(counts, 40, 0.05) < probability
    chernoff = kl_inverse(counts / 40, np.log(20) / 40) < probability
    hoeffding = counts / 40 + hoeffding_deviation(40, 0.05) < probability
    for failed in (exact, chernoff, hoeffding):
        assert mass[failed].sum() <= 0.05
    # Chernoff's bound is never the sharper one; without any success the two agree.
    sharper = kl_inverse(counts / 40, np.log(20) / 40) - clopper_pearson_upper(counts, 40, 0.05)
    assert sharper.min() >= -1e-12


def test_kl_inverse_solves_its_equation_and_never_rounds_down():
    means, budgets = np.meshgrid([0.0, 1e-4, 0.3, 0.99], [1e-6, 1e-2, 1.0])
    limits = kl_inverse(means, budgets)
    inside = limits < 1
    np.testing.assert_allclose(
        binary_kl(means, limits)[inside], budgets[inside], rtol=1e-6, atol=1e-12
    )
    assert np.all(kl_inverse(means, 0.0) >= means)
    assert float(kl_inverse(1.7, 0.1)) == 1.0


def test_binary_kl_at_the_ends():
    assert float(binary_kl(0.0, 0.0)) == 0.0
    assert float(binary_kl(0.5, 0.0)) == np.inf
    assert float(binary_kl(0.0, 0.5)) == pytest.approx(np.log(2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: clopper_pearson_upper(5, 4, 0.05), "between 0 and trials=4"),
        (lambda: clopper_pearson_upper(0, 0, 0.05), "trials=0"),
        (lambda: clopper_pearson_upper(0, 4, 0.0), "delta=0.0"),
        (lambda: dkw_deviation(10, 0.6), r"\(0, 0.5\]"),
        (lambda: hoeffding_deviation(0, 0.5), "n_samples=0"),
        (lambda: kl_inverse(-0.1, 0.1), "negative"),
        (lambda: kl_inverse(0.1, np.nan), "negative"),
    ],
)
def test_arguments_out_of_range_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
