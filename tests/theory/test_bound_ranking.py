"""Where nothing is below 1 the bound still tells networks apart."""

import numpy as np

from sharpfit.theory import fit_geometry, generalisation_bound


def test_vacuous_bounds_of_perfect_networks_are_not_tied():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 30))
    geometry = fit_geometry(features, rng.integers(2, size=200), random_state=0)
    margins = rng.uniform(0.5, 1.0, size=200)
    flat, steep = (
        generalisation_bound(geometry, margins=margins, lipschitz_constant=constant)
        for constant in (0.5, 5.0)
    )
    assert flat.vacuous
    assert steep.vacuous
    assert flat.value < steep.value


def test_points_that_say_nothing_are_passed_over():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(400, 1))
    labels = (features[:, 0] > 0).astype(int)
    geometry = fit_geometry(features, labels, random_state=0)
    bound = generalisation_bound(geometry, margins=np.full(400, 0.2), lipschitz_constant=3.0)
    for curve in bound.curves:
        telling = curve.geometry + curve.deviations < 1
        assert curve.best_value == curve.values[telling].min()
        # A bound below 1 is found among these points, so passing over the others costs nothing.
        assert min(1.0, curve.best_value) == min(1.0, curve.values.min())
