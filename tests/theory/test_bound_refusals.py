import numpy as np
import pytest

from sharpfit.theory import fit_geometry, generalisation_bound


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scales": [0.0, 1.0]}, "scales"),
        ({"scales": []}, "scales"),
        ({"scales": [np.nan]}, "scales"),
        ({"scales": "auto"}, "scales='auto'"),
        ({"capacities": [0.5]}, "capacities"),
        ({"radii": [-1.0]}, "radii"),
        ({"n_splits": 0}, "n_splits=0"),
        ({"chunk_size": 0}, "chunk_size=0"),
        ({"chunk_size": "all"}, "chunk_size='all'"),
        ({"targets": np.zeros(4)}, "not both"),
        ({"reference": np.ones(4, dtype=bool)}, "both sides"),
        ({"reference": np.ones(3, dtype=bool)}, "boolean mask of shape"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        fit_geometry(np.zeros((4, 1)), np.zeros(4), **settings)


def test_data_out_of_range_are_named():
    with pytest.raises(ValueError, match="NaN or infinity"):
        fit_geometry([[0.0], [np.nan]], [0, 1])
    with pytest.raises(ValueError, match="labels contain NaN"):
        fit_geometry([[0.0], [1.0]], [0.0, np.nan])
    with pytest.raises(ValueError, match="at least 2 rows"):
        fit_geometry([[0.0]], [0])
    with pytest.raises(ValueError, match="loss_bound=None"):
        fit_geometry([[0.0], [1.0]], targets=[0.0, 1.0])
    with pytest.raises(TypeError, match="random_state=None"):
        fit_geometry([[0.0], [1.0]], [0, 1], random_state=None)
    geometry = fit_geometry([[0.0], [1.0]], [0, 1])
    with pytest.raises(ValueError, match="not finite in 1 of 2 rows"):
        generalisation_bound(geometry, 1.0, margins=[np.inf, 1.0])
    with pytest.raises(ValueError, match="lipschitz_constant=nan"):
        generalisation_bound(geometry, np.nan, margins=[1.0, 1.0])
    with pytest.raises(ValueError, match=r"confidence=1\.0"):
        generalisation_bound(geometry, 1.0, margins=[1.0, 1.0], confidence=1.0)
    with pytest.raises(ValueError, match="margins of shape"):
        generalisation_bound(geometry, 1.0, margins=[1.0])
    with pytest.raises(ValueError, match="needs margins"):
        generalisation_bound(geometry, 1.0, losses=[1.0, 0.0])


@pytest.mark.parametrize(
    ("method", "task", "half", "reason"),
    [
        ("one_sided", "classification", False, "fitted on one half"),
        ("transport", "classification", True, "one-sided forms"),
        ("covering", "regression", False, "stated for classifiers"),
        ("chaining", "classification", False, "no form of the bound"),
    ],
)
def test_forms_that_are_not_available_say_why(method, task, half, reason):
    rows, outcomes = np.arange(6.0)[:, None], np.arange(6) % 2
    given = {"labels": outcomes} if task == "classification" else {"targets": outcomes}
    geometry = fit_geometry(
        rows,
        **given,
        loss_bound=1.0 if task == "regression" else None,
        reference=outcomes == 0 if half else None,
    )
    values = {"margins" if task == "classification" else "losses": np.zeros(6)}
    with pytest.raises(ValueError, match=reason):
        generalisation_bound(geometry, 1.0, **values, method=method)
    classes = fit_geometry(rows, outcomes)
    ones = np.ones(6)
    with pytest.raises(ValueError, match="through the covering forms"):
        generalisation_bound(classes, None, margins=ones, radii=ones, method="variance")
