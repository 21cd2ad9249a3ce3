"""Parameters set on a trained network are those of its next training."""

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

from sharpfit.networks import NetworkClassifier


@pytest.mark.parametrize("also", [{}, {"module__hidden": (8,)}, {"lr": 0.05}])
def test_optimiser_parameters_survive_the_next_fit(also, iris):
    X, y = iris
    settings = {"module__hidden": (8,), "lr": 0.05, "max_epochs": 5, "random_state": 0}
    fresh = NetworkClassifier(optimizer__weight_decay=0.5, **settings).fit(X, y)
    changed = NetworkClassifier(optimizer__weight_decay=0.0, **settings).fit(X, y)
    changed.set_params(optimizer__weight_decay=0.5, **also)
    assert changed.get_params()["optimizer__weight_decay"] == 0.5
    np.testing.assert_array_equal(changed.fit(X, y).predict_proba(X), fresh.predict_proba(X))


def test_optimiser_parameters_take_effect_at_once(iris):
    X, y = iris
    network = NetworkClassifier(max_epochs=2, random_state=0).fit(X, y)
    network.set_params(optimizer__weight_decay=0.25)
    assert network.optimizer_.param_groups[0]["weight_decay"] == 0.25


def test_reprs_show_what_differs_from_the_defaults():
    network = NetworkClassifier(module__hidden=(3,), lr=0.1, callbacks=None)
    assert repr(network) == "NetworkClassifier(lr=0.1, module__hidden=(3,))"
    printed = "".join(repr(make_pipeline(network)).split())
    inside = "NetworkClassifier(lr=0.1,module__hidden=(3,))"
    assert printed == f"Pipeline(steps=[('networkclassifier',{inside})])"
