"""Inside scikit-learn: pipelines, searches, cross-validation."""

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import TransformedTargetRegressor
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    KFold,
    RandomizedSearchCV,
    cross_val_predict,
)
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sharpfit.networks import NetworkClassifier, NetworkRegressor


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_grid_over_a_pipeline(n_jobs, iris):
    X, y = iris
    frame = pd.DataFrame(X, columns=list("abcd"))
    names = np.array(["x", "a", "m"])[y]
    pipe = make_pipeline(
        StandardScaler(), NetworkClassifier(batch_size=16, max_epochs=9, random_state=0)
    )
    pipe.set_output(transform="pandas")
    grid = {
        "networkclassifier__module__hidden": [(4,), (16, 16)],
        "networkclassifier__optimizer__weight_decay": [0, 10.0],
    }
    search = GridSearchCV(pipe, grid, cv=3, n_jobs=n_jobs).fit(frame, names)
    assert search.best_score_ > 0.8
    assert search.best_params_["networkclassifier__optimizer__weight_decay"] == 0
    best = search.best_estimator_[-1]
    assert best.module_[0].out_features in (4, 16)
    np.testing.assert_array_equal(best.feature_names_in_, list("abcd"))
    np.testing.assert_array_equal(search.classes_, ["a", "m", "x"])
    assert set(search.predict(frame)) == {"a", "m", "x"}


def test_parameters_are_used(iris):
    X, y = iris
    grid = {"module__hidden": [(3,), (5,)], "optimizer__weight_decay": [0, 1e-2]}
    search = GridSearchCV(NetworkClassifier(max_epochs=2), grid, cv=2, refit=False).fit(X, y)
    for parameters in search.cv_results_["params"]:
        network = NetworkClassifier(max_epochs=1).set_params(**parameters).fit(X, y)
        assert network.module_[0].out_features == parameters["module__hidden"][0]
        group = network.optimizer_.param_groups[0]
        assert group["weight_decay"] == parameters["optimizer__weight_decay"]


def test_other_searches(iris):
    X, y = iris
    network = NetworkClassifier(max_epochs=3, random_state=0)
    RandomizedSearchCV(network, {"lr": [0.01, 0.1]}, n_iter=2, cv=2).fit(X, y)
    halving = HalvingGridSearchCV(
        network, {"lr": [0.01, 0.1]}, resource="max_epochs", max_resources=8, cv=2, random_state=0
    )
    assert halving.fit(X, y).best_estimator_.max_epochs == 8


def test_target_transformations_and_several_targets(plane):
    X, y = plane
    network = NetworkRegressor(random_state=0)
    scaled = TransformedTargetRegressor(network, transformer=StandardScaler())
    assert scaled.fit(X, y * 1e4 + 7).score(X, y * 1e4 + 7) > 0.9
    assert MultiOutputRegressor(network).fit(X, y).score(X, y) > 0.9


def test_cross_val_predict_with_a_class_missing_in_a_fold(iris):
    X, y = iris
    network = NetworkClassifier(max_epochs=2, classes=[0, 1, 2])
    # Unshuffled folds of sorted labels: every fold lacks its own class.
    p = cross_val_predict(network, X, y, cv=KFold(3), method="predict_proba")
    assert p.shape == (150, 3)
