"""Counts of patterns against a plain loop over places, and what moving and scaling do to them."""

import itertools

import numpy as np
import pytest

from sharpfit.theory.patch_features import fit_patch_features


@pytest.mark.parametrize("shape", [(2, 9), (1, 6, 8), (3, 1, 7), (1, 3, 4, 5), (1, 2, 1)])
@pytest.mark.parametrize("n_parts", [1, 2])
def test_equals_a_loop_over_places(shape, n_parts):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(30, int(np.prod(shape))))
    features = fit_patch_features(rows, shape, n_parts=n_parts)
    sizes = features.patch_shape
    assert sizes == tuple(min(5, length) for length in shape[1:])
    margins = [(0, 0), *((size // 2, (size - 1) // 2) for size in sizes)]
    image = np.pad(rows[4].reshape(shape), margins, mode="reflect")
    matches = np.empty((*shape[1:], features.patterns.shape[1]))
    for place in itertools.product(*map(range, shape[1:])):
        window = tuple(slice(p, p + size) for p, size in zip(place, sizes, strict=True))
        patch = image[(slice(None), *window)].ravel()
        matches[place] = np.maximum(patch @ features.patterns - features.thresholds, 0)
    parts = [np.array_split(np.arange(length), min(n_parts, length)) for length in shape[1:]]
    expected = [
        matches[np.ix_(*part)].mean(axis=tuple(range(len(shape) - 1)))
        for part in itertools.product(*parts)
    ]
    assert features(rows)[4] == pytest.approx(np.concatenate(expected), abs=1e-5)


def test_matches_have_unit_variance_in_the_directions_that_vary():
    """Of white noise; a tenth is added to the variance, and edges vary more as they repeat."""
    rows = np.random.default_rng(0).normal(size=(200, 100))
    features = fit_patch_features(rows, (1, 10, 10), n_parts=1)
    windows = np.lib.stride_tricks.sliding_window_view(rows.reshape(-1, 10, 10), (5, 5), (1, 2))
    matches = windows.reshape(-1, 25) @ features.patterns - features.thresholds + 1
    assert matches.mean() == pytest.approx(0, abs=0.02)
    assert matches.std() == pytest.approx(1.1**-0.5, abs=0.04)


def test_scale_and_offset_of_the_inputs_do_not_matter():
    rows = np.random.default_rng(0).normal(size=(40, 64))
    plain = fit_patch_features(rows, (1, 8, 8), n_parts=2)(rows)
    changed = fit_patch_features(100 * rows + 7, (1, 8, 8), n_parts=2)(100 * rows + 7)
    assert changed == pytest.approx(plain, abs=1e-4)


def test_many_points_are_done_in_chunks():
    rows = np.random.default_rng(0).normal(size=(700, 400))
    features = fit_patch_features(rows[:50], (1, 20, 20), n_parts=1)
    assert features(rows)[650:] == pytest.approx(features(rows[650:]))


def test_constant_signals_have_no_patterns():
    rows = np.full((10, 12), 3.0)
    assert not fit_patch_features(rows, (1, 12), n_parts=1)(rows).any()
