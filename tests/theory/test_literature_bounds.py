import numpy as np
import pytest
from scipy.stats import binom

from sharpfit.theory import (
    binary_kl,
    held_out_bound,
    pac_bayes_bound,
    spectral_margin_bound,
)


def test_held_out_bound_pays_for_candidates():
    bound = float(held_out_bound(3, 200, n_candidates=10))
    assert binom.cdf(3, 200, bound) == pytest.approx(0.005)
    assert bound > float(held_out_bound(3, 200))


def test_pac_bayes_bound_solves_its_equation():
    bound = float(pac_bayes_bound(0.05, 30.0, 500, delta=0.1))
    price = (30.0 + np.log(2 * np.sqrt(500) / 0.1)) / 500
    assert float(binary_kl(0.05, bound)) == pytest.approx(price, rel=1e-6)
    with pytest.raises(ValueError, match="n_samples=3"):
        pac_bayes_bound(0.05, 30.0, 3)


def test_spectral_margin_bound_by_hand():
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(5, 3)), rng.normal(size=(2, 5))]
    inputs, margins = rng.normal(size=(50, 3)), np.full(50, 2.0)
    spectral = [np.linalg.svd(w, compute_uv=False)[0] for w in weights]
    rows = [sum(np.sqrt((row**2).sum()) for row in w) for w in weights]
    ratios = sum((b / s) ** (2 / 3) for b, s in zip(rows, spectral, strict=True)) ** 1.5
    complexity = (
        4 / 50**1.5
        + 36
        * np.sqrt((inputs**2).sum())
        * np.sqrt(np.log(2 * 25))
        * np.log(50)
        / (2.0 * 50)
        * spectral[0]
        * spectral[1]
        * ratios
    )
    expected = 2 * complexity + 3 * np.sqrt(np.log(2 / 0.05) / 100)
    assert spectral_margin_bound(margins, weights, inputs) == pytest.approx(expected)


def test_spectral_margin_bound_does_not_depend_on_the_scale_of_the_logits():
    rng = np.random.default_rng(1)
    weights, inputs = [rng.normal(size=(4, 3)), rng.normal(size=(2, 4))], rng.normal(size=(30, 3))
    margins = rng.normal(size=30) + 1
    first = spectral_margin_bound(margins, weights, inputs)
    second = spectral_margin_bound(6 * margins, [2 * weights[0], 3 * weights[1]], inputs)
    assert second == pytest.approx(first)
