"""Where a bound takes distances, and what it says of that choice."""

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris, make_moons
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler

from sharpfit import (
    GeneralisationBound,
    HalfFeatures,
    NetworkClassifier,
    ResubstitutionSplit,
    make_bound_scorer,
)
from sharpfit.theory import bound_floor, fit_geometry

# The networks are trained for a few epochs only.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_iris(return_X_y=True)


def network(**settings):
    defaults = {"module__hidden": (8,), "max_epochs": 5, "random_state": 0}
    return NetworkClassifier(**{**defaults, **settings})


def certified(estimator, **settings):
    return GeneralisationBound(estimator, lipschitz="certified", **settings).fit(X, Y)


def test_scaled_columns_count_as_network():
    scaled = [0, 2]
    columns = ColumnTransformer([("scaled", StandardScaler(), scaled)], remainder="passthrough")
    analysis = certified(make_pipeline(columns, network()))
    stretch = max(1.0, (1.0 / X[:, scaled].std(axis=0)).max())
    inner = certified(make_pipeline(columns, network()), metric="preprocessed")
    assert analysis.assumptions_["fixed_metric"].status == "holds"
    assert analysis.lipschitz_constant_ == pytest.approx(stretch * inner.lipschitz_constant_)


def test_a_step_that_is_not_affine_belongs_into_half_features():
    with pytest.raises(ValueError, match=r"Normalizer is not known .* into HalfFeatures"):
        certified(make_pipeline(Normalizer(), network()))
    assert certified(make_pipeline(HalfFeatures(Normalizer()), network())).certified_


def test_frozen_half_features_are_no_independent_features():
    fitted = HalfFeatures(PCA(2)).fit(X, Y)
    frozen = FrozenEstimator(fitted)
    analysis = certified(make_pipeline(frozen, network()))
    again = certified(make_pipeline(HalfFeatures(PCA(2)), network()))
    assert analysis.assumptions_["fixed_metric"] == again.assumptions_["fixed_metric"]
    assert analysis.bound_ == again.bound_
    assert set(analysis.curve()["form"]) == {"one_sided", "variance", "covering", "exceptions"}
    assert certified(make_pipeline(frozen, network()), metric=frozen).bound_ == again.bound_
    behind = certified(make_pipeline(frozen, network()), metric="preprocessed")
    assert behind.assumptions_["fixed_metric"].status == "violated"
    with pytest.raises(ValueError, match="fitted on other rows"):
        GeneralisationBound(make_pipeline(frozen, network())).fit(X[::-1], Y[::-1])


@pytest.mark.parametrize(("seed", "status"), [(0, "holds"), (1, "violated")])
def test_half_features_in_a_row_need_the_same_half(seed, status):
    pipe = make_pipeline(HalfFeatures(PCA(3), n_metrics=2, random_state=seed), "passthrough")
    pipe = make_pipeline(*pipe, HalfFeatures(StandardScaler(), n_metrics=3), network())
    analysis = certified(pipe)
    fixed = analysis.assumptions_["fixed_metric"]
    assert fixed.status == status
    assert analysis.certified_ == (status == "holds")
    reason = "counts 6 metric(s)" if status == "holds" else "HalfFeatures in front of HalfFeatures"
    assert reason in fixed.reason


def test_frozen_steps_alone_are_assumed_to_be_independent():
    frozen = FrozenEstimator(PCA(2).fit(np.random.default_rng(0).normal(size=(50, 4))))
    pipe = make_pipeline(frozen, network())
    by_default, by_name = certified(pipe), certified(pipe, metric="preprocessed")
    assert by_default.assumptions_["fixed_metric"].status == "assumed"
    assert by_name.assumptions_ == by_default.assumptions_
    assert by_name.bound_ == by_default.bound_


def test_frozen_features_chosen_by_a_search_have_to_be_paid_for():
    rng = np.random.default_rng(0)
    # They print alike, and are different features.
    candidates = [FrozenEstimator(PCA(2).fit(rng.normal(size=(50, 4)))) for _ in range(3)]
    pipe = Pipeline([("features", "passthrough"), ("network", network())])
    search = GridSearchCV(
        pipe,
        {"features": candidates, "network__lr": [0.1, 0.2]},
        scoring=make_bound_scorer(lipschitz="certified"),
        cv=ResubstitutionSplit(),
    ).fit(X, Y)
    fixed = certified(search).assumptions_["fixed_metric"]
    assert fixed.status == "violated"
    assert "among 3 frozen features" in fixed.reason
    paid = certified(search.best_estimator_, confidence=1 - 0.05 / 3)
    assert paid.certified_
    assert paid.bound_ > -search.best_score_
    learning_rates = GridSearchCV(
        make_pipeline(candidates[0], network()),
        {"networkclassifier__lr": [0.1, 0.2]},
        scoring=make_bound_scorer(lipschitz="certified"),
        cv=ResubstitutionSplit(),
    ).fit(X, Y)
    assert certified(learning_rates).certified_


def test_floor_before_training_is_taken_where_the_bound_takes_distances():
    other, labels = make_moons(50, random_state=0)
    features = NetworkClassifier(module__hidden=(8,), max_epochs=5, random_state=0)
    frozen = FrozenEstimator(FunctionTransformer(features.fit(other, labels).predict_proba))
    rows, classes = make_moons(80, noise=0.1, random_state=1)
    analysis = GeneralisationBound(make_pipeline(frozen, network()))
    space = features.predict_proba(rows).astype(float)
    expected = bound_floor(fit_geometry(space, classes), space, classes)
    assert analysis.floor(X=rows, y=classes) == pytest.approx(expected)
    assert analysis.fit(rows, classes).floor() == pytest.approx(expected)

    untrained = make_pipeline(HalfFeatures(StandardScaler()), network())
    with pytest.raises(ValueError, match="behind HalfFeatures, which has to be fitted"):
        GeneralisationBound(untrained).floor(X=rows, y=classes)
    raw = bound_floor(fit_geometry(rows, classes), rows, classes)
    euclidean = GeneralisationBound(untrained, metric="euclidean")
    assert euclidean.floor(X=rows, y=classes) == pytest.approx(raw)


def test_metrics_of_a_floor_are_checked():
    analysis = GeneralisationBound(network())
    for metrics, error, message in (
        ([X], TypeError, "metrics of type list must be a dict"),
        ({"current": X}, ValueError, "'current'"),
        ({"short": X[:20]}, ValueError, r"metrics\['short'\] of shape \(20, 4\) .* 150 rows"),
    ):
        with pytest.raises(error, match=message):
            analysis.floor(metrics, X=X, y=Y)
    with pytest.raises(ValueError, match="labels contain NaN"):
        analysis.floor(X=X, y=np.where(Y == 1, np.nan, Y))
    with pytest.raises(ValueError, match="y is given without X"):
        analysis.fit(X, Y).floor(y=Y)
