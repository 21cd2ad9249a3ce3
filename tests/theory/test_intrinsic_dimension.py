"""Intrinsic dimension of samples whose dimension is known."""

import sys

import numpy as np
import pytest

from sharpfit.theory.intrinsic_dimension import intrinsic_dimension


def _cube(dimension, seed=0, n=400):
    points = np.random.default_rng(seed).uniform(size=(n, dimension))
    return points @ np.linalg.qr(np.random.default_rng(1).normal(size=(12, 12)))[0][:dimension]


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_intervals_cover_the_dimension(dimension):
    pytest.importorskip("skdim")
    results = [
        intrinsic_dimension(_cube(dimension, seed), random_state=seed, n_subsamples=12)
        for seed in range(25)
    ]
    covered = np.mean([found.lower <= dimension <= found.upper for found in results])
    assert covered >= 0.8  # nominal 0.95, less the bias at the cube's faces
    spread = np.std([found.value for found in results])
    assert 0.6 < np.mean([found.std_error for found in results]) / spread < 2.0


def test_duplicates_count_once_and_seeds_repeat():
    pytest.importorskip("skdim")
    points = _cube(2)
    once, twice = intrinsic_dimension(points), intrinsic_dimension(np.vstack([points, points]))
    assert float(once) == float(twice) == once.value
    assert intrinsic_dimension(points) == once


def test_any_estimator_of_the_library_serves():
    skdim = pytest.importorskip("skdim")
    assert intrinsic_dimension(_cube(3), estimator=skdim.id.MLE()).value == pytest.approx(3, abs=1)


def test_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "skdim", None)
    with pytest.raises(ImportError, match="pip install scikit-dimension"):
        intrinsic_dimension(_cube(2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inputs": np.zeros((100, 3))}, "1 distinct rows"),
        ({"inputs": np.full((100, 3), np.inf)}, "NaN or infinity"),
        ({"confidence": 1.0}, "confidence"),
        ({"n_subsamples": 1}, "n_subsamples"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        intrinsic_dimension(**{"inputs": _cube(2), **arguments})
