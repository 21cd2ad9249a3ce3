import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpfit.theory import METHODS, fit_geometry, generalisation_bound, logit_margins


def bound_value(features, labels, margins, constant, method, **settings):
    geometry = fit_geometry(features, labels, **settings)
    return generalisation_bound(geometry, constant, margins=margins, method=method)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    factor=st.sampled_from([0.25, 2.0, 32.0]),
    method=st.sampled_from([m for m in METHODS if m != "one_sided"]),
)
def test_rescaled_logits_relabelled_classes_and_permuted_columns(seed, factor, method):
    rng = np.random.default_rng(seed)
    features, labels = rng.normal(size=(24, 3)), rng.integers(0, 3, 24)
    logits = rng.normal(size=(24, 3)) + 2 * np.eye(3)[labels]
    names = rng.permutation(3)
    columns = rng.permutation(3)
    bound = bound_value(features, labels, logit_margins(logits, labels), 0.8, method)
    renamed = np.empty_like(logits)
    renamed[:, names] = logits
    same = bound_value(
        features[:, columns],
        names[labels],
        logit_margins(factor * renamed + rng.normal(size=(24, 1)), names[labels]),
        0.8 * factor,
        method,
    )
    assert same.value == pytest.approx(bound.value, abs=1e-9)
    assert same.form == bound.form


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_permuted_rows_permute_the_halves(seed):
    # Given the halves, nothing depends on the order of the rows.
    rng = np.random.default_rng(seed)
    features, labels = rng.normal(size=(20, 2)), rng.integers(0, 2, 20)
    half = rng.permutation(20) < 9
    order = rng.permutation(20)
    first = fit_geometry(features, labels, reference=half, scales=[0.5, 2.0], radii=[0.5])
    second = fit_geometry(
        features[order], labels[order], reference=half[order], scales=[0.5, 2.0], radii=[0.5]
    )
    np.testing.assert_allclose(first.one_sided_costs, second.one_sided_costs, atol=1e-9)
    np.testing.assert_allclose(first.nearest_distances, second.nearest_distances)
    np.testing.assert_array_equal(first.exceptions[0], second.exceptions[0])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_rescaled_inputs_and_grid(seed):
    rng = np.random.default_rng(seed)
    features, labels = rng.normal(size=(20, 2)), rng.integers(0, 2, 20)
    margins = rng.normal(size=20) + 1
    scales = 2.0 ** np.arange(-4, 5)
    first = bound_value(features, labels, margins, 1.0, "transport", scales=scales)
    second = bound_value(4.0 * features, labels, margins, 0.25, "transport", scales=scales / 4.0)
    assert second.value == pytest.approx(first.value)
    assert second.scale == pytest.approx(first.scale / 4.0)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_a_duplicate_of_a_reference_row_never_uncovers_points(seed):
    rng = np.random.default_rng(seed)
    features, labels = rng.normal(size=(20, 2)), rng.integers(0, 2, 20)
    half = rng.permutation(20) < 9
    kept = np.append(np.arange(20), np.flatnonzero(half)[0])
    first = fit_geometry(features, labels, reference=half, scales=[0.7], radii=[0.5])
    second = fit_geometry(
        features[kept], labels[kept], reference=half[kept], scales=[0.7], radii=[0.5]
    )
    assert second.n_repeated == first.n_repeated + 1
    np.testing.assert_allclose(first.nearest_distances, second.nearest_distances)
    assert first.exceptions[0][0] == second.exceptions[0][0]
    # The nearest reference point stays where it is: unlimited capacity gives the same cost.
    assert second.one_sided_costs[0, -1] == pytest.approx(first.one_sided_costs[0, -1])
