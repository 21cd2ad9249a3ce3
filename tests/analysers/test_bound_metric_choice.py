"""Metrics that were chosen, or fitted elsewhere, are not certified as if they were fixed."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler

from sharpfit import (
    GeneralisationBound,
    HalfFeatures,
    NetworkClassifier,
    NetworkRegressor,
    ResubstitutionSplit,
    make_bound_scorer,
)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(60, 4))
Y = (X[:, 0] > 0).astype(int)


def network(**settings):
    defaults = {"module__hidden": (4,), "max_epochs": 2, "random_state": 0}
    return NetworkClassifier(**{**defaults, **settings})


def search(estimator, grid, fit=True, X=X, Y=Y):
    scorer = make_bound_scorer(lipschitz="certified")
    found = GridSearchCV(estimator, grid, scoring=scorer, cv=ResubstitutionSplit())
    return found.fit(X, Y) if fit else found


def metric_of(estimator, X=X, Y=Y, **settings):
    bound = GeneralisationBound(estimator, lipschitz="certified", **settings).fit(X, Y)
    found = bound.assumptions_["fixed_metric"]
    assert bound.certified_ == (found.status != "violated")
    return found


def halves():
    return make_pipeline(HalfFeatures(StandardScaler()), network())


SEEDS = {"halffeatures__random_state": [0, 1, 2]}


def nested():
    pipeline = Pipeline([("outer", halves())])
    return search(pipeline, {"outer__halffeatures__random_state": [0, 1, 2]})


def whole_steps():
    candidates = [make_pipeline(HalfFeatures(StandardScaler(), random_state=s)) for s in range(3)]
    steps = [[*pipeline.steps, ("network", network())] for pipeline in candidates]
    return search(Pipeline(steps[0]), {"steps": steps})


SEARCHES = {
    "bare": lambda: search(halves(), SEEDS),
    "frozen": lambda: FrozenEstimator(search(halves(), SEEDS)),
    "in a pipeline": lambda: Pipeline([("search", search(halves(), SEEDS))]),
    "nested pipelines": nested,
    "whole steps": whole_steps,
    "search in a search": lambda: search(
        search(halves(), SEEDS, fit=False), {"estimator__networkclassifier__lr": [0.1, 0.2]}
    ),
}


@pytest.mark.parametrize("build", SEARCHES.values(), ids=SEARCHES)
def test_a_search_over_halves_is_counted_through_whatever_wraps_it(build):
    found = metric_of(build())
    assert found.status == "violated"
    assert "tried 3 settings" in found.reason


def test_a_search_inside_transformed_targets_is_counted():
    regressor = NetworkRegressor(module__hidden=(4,), max_epochs=2, random_state=0)
    grid = GridSearchCV(
        make_pipeline(HalfFeatures(StandardScaler()), regressor),
        SEEDS,
        scoring=make_bound_scorer(lipschitz="certified", loss_bound=5.0),
        cv=ResubstitutionSplit(),
    )
    model = TransformedTargetRegressor(grid, transformer=StandardScaler())
    assert "tried 3 settings" in metric_of(model.fit(X, X[:, 0]), Y=X[:, 0], loss_bound=5.0).reason


def test_raw_rows_that_won_against_features_were_chosen():
    constant = HalfFeatures(FunctionTransformer(np.zeros_like))
    pipeline = Pipeline([("half", constant), ("network", network(max_epochs=30))])
    labels = np.arange(400) % 2
    rows = np.random.default_rng(0).normal(size=(400, 2)) + 20 * labels[:, None]
    found = search(pipeline, {"half": ["passthrough", constant]}, X=rows, Y=labels)
    assert found.best_params_["half"] == "passthrough"
    assert metric_of(found, rows, labels).status == "violated"


def test_what_leaves_the_metric_alone_is_not_counted():
    plain = Pipeline([("scale", StandardScaler()), ("network", network())])
    grid = {"scale": [StandardScaler(), MinMaxScaler()], "network__lr": [0.1, 0.2]}
    assert metric_of(search(plain, grid)).status == "holds"
    behind = make_pipeline(HalfFeatures(StandardScaler()), StandardScaler(), network())
    grid = {"standardscaler__with_mean": [True, False], "networkclassifier__lr": [0.1, 0.2]}
    assert metric_of(search(behind, grid)).status == "holds"


def test_settings_that_print_alike_are_told_apart():
    wide = np.random.default_rng(0).normal(size=(60, 60))
    labels = (wide[:, 0] > 0).astype(int)

    def columns(last):
        return ColumnTransformer([("kept", StandardScaler(), [*range(35), last])])

    assert repr(columns(40)) == repr(columns(41))
    pipeline = Pipeline([("half", HalfFeatures(columns(40))), ("network", network())])
    grid = {"half__estimator": [columns(40), columns(41), columns(40)]}
    found = search(pipeline, grid, X=wide, Y=labels)
    assert "tried 2 settings" in metric_of(found, wide, labels).reason


def test_what_was_fitted_before_stays_an_assumption():
    noise = np.random.default_rng(1).integers(0, 2, 60)
    neighbours = FrozenEstimator(KNeighborsClassifier(1).fit(X, noise))
    module = torch.nn.Sequential(torch.nn.Linear(4, 2))
    for inside in (
        neighbours,
        make_pipeline(FrozenEstimator(StandardScaler().fit(X)), StandardScaler()),
        NetworkClassifier(module=module, max_epochs=1),
    ):
        found = metric_of(make_pipeline(HalfFeatures(inside), network()))
        assert found.status == "assumed"
        assert "independent of these rows" in found.reason
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.1)  # a module that holds no weights
    inside = network(criterion=criterion)
    assert metric_of(make_pipeline(HalfFeatures(inside), network())).status == "holds"


def test_frozen_pipelines_are_searched_for_half_features():
    inner = Pipeline([("half", HalfFeatures(KNeighborsClassifier(1)))]).fit(X, Y)
    assert metric_of(make_pipeline(FrozenEstimator(inner), network())).status == "violated"


def test_targets_must_not_be_transformed_by_all_of_them_before_half_of_them_are_fitted():
    def regressor():
        return NetworkRegressor(module__hidden=(4,), max_epochs=2, random_state=0)

    def model(features, **targets):
        return TransformedTargetRegressor(make_pipeline(features, regressor()), **targets)

    settings = {"Y": X[:, 0], "loss_bound": 5.0}
    scaled = {"transformer": StandardScaler()}
    found = metric_of(model(HalfFeatures(regressor()), **scaled), **settings)
    assert found.status == "violated"
    # Features that are not fitted to targets tell nothing.
    assert metric_of(model(HalfFeatures(StandardScaler()), **scaled), **settings).status == "holds"
    inside = HalfFeatures(TransformedTargetRegressor(regressor(), **scaled))
    assert metric_of(make_pipeline(inside, regressor()), **settings).status == "holds"


def test_features_must_be_those_of_one_row():
    centred = FunctionTransformer(lambda rows: rows - rows.mean(axis=0))
    found = metric_of(make_pipeline(HalfFeatures(centred), network()))
    assert found.status == "violated"
    assert "depend on the rows" in found.reason
    squared = FunctionTransformer(np.square)
    assert metric_of(make_pipeline(HalfFeatures(squared), network())).status == "holds"


def test_networks_that_were_frozen_after_training_on_these_rows_are_recognised():
    scaled = make_pipeline(StandardScaler(), network())
    for kind in (network(), scaled):
        trained = FrozenEstimator(kind.fit(X, Y))
        assert metric_of(make_pipeline(HalfFeatures(trained), network())).status == "violated"
        behind = make_pipeline(StandardScaler().fit(X), HalfFeatures(trained), network())
        assert metric_of(behind).status == "violated"
        deeper = HalfFeatures(make_pipeline(PCA(4), trained))
        assert metric_of(make_pipeline(deeper, network())).status != "holds"
        fewer = FrozenEstimator(clone(kind).fit(X[:, :2], Y))
        deeper = HalfFeatures(make_pipeline(PCA(2), fewer))
        assert metric_of(make_pipeline(deeper, network())).status == "assumed"
        other = FrozenEstimator(kind.fit(X + 1, Y))
        assert metric_of(make_pipeline(HalfFeatures(other), network())).status == "assumed"


def test_what_is_frozen_in_front_of_half_features_stays_an_assumption():
    before = FrozenEstimator(StandardScaler().fit(X))
    found = metric_of(make_pipeline(before, HalfFeatures(StandardScaler()), network()))
    assert found.status == "assumed"
