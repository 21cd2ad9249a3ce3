import numpy as np
import pytest

from sharpfit.theory import fit_geometry, generalisation_bound


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scales": [0.0, 1.0]}, "scales"),
        ({"scales": []}, "scales"),
        ({"scales": [np.nan]}, "scales"),
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
