"""Every scorer in every kind of search, serial, in processes, on a cluster, routed and not."""

import pickle
import warnings

import joblib
import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_diabetes, make_moons
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    KFold,
    RandomizedSearchCV,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sharpfit import (
    GeneralisationBound,
    NetworkClassifier,
    NetworkRegressor,
    ResubstitutionSplit,
    bound_scorer,
    jacobian_scorer,
    make_bound_scorer,
    selection_scorer,
    sharpness_scorer,
)
from sharpfit.model_selection import training_rows

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, INDICES = make_moons(80, noise=0.2, random_state=0)
Y = np.array(["left", "right"])[INDICES]
GRID = {"networkclassifier__module__hidden": [(4,), (8, 8)]}
SCORERS = {
    "bound": bound_scorer,
    "selection": selection_scorer,
    "sharpness": sharpness_scorer,
    "jacobian": jacobian_scorer,
}


def pipeline():
    network = NetworkClassifier(max_epochs=20, lr=0.1, random_state=0)
    return make_pipeline(StandardScaler(), network)


@pytest.fixture(scope="module")
def fitted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return pipeline().fit(X, Y)


@pytest.fixture(scope="module")
def expected():
    """Scores of the two candidates, each fitted and scored by hand."""
    scores = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for hidden in GRID["networkclassifier__module__hidden"]:
            estimator = pipeline().set_params(networkclassifier__module__hidden=hidden).fit(X, Y)
            for name, scorer in SCORERS.items():
                scores.setdefault(name, []).append(scorer(estimator, X, Y))
    return scores


@pytest.mark.parametrize("name", SCORERS)
def test_scorer_is_a_finite_float_and_an_object(name, fitted):
    scorer = SCORERS[name]
    score = scorer(fitted, X, Y)
    assert isinstance(score, float)
    assert np.isfinite(score)
    assert scorer.__name__ == f"{name}_scorer"
    assert pickle.loads(pickle.dumps(scorer))(fitted, X, Y) == score
    assert repr(clone(GridSearchCV(fitted, {}, scoring=scorer)).scoring) == repr(scorer)


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("name", SCORERS)
def test_grid_search_fits_once_on_all_rows(name, routing, expected):
    with sklearn.config_context(enable_metadata_routing=routing):
        search = GridSearchCV(pipeline(), GRID, scoring=SCORERS[name], cv=ResubstitutionSplit())
        search.fit(X, Y)
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], expected[name], rtol=1e-12)
    assert search.n_splits_ == 1


@pytest.mark.parametrize("name", SCORERS)
def test_halving_search_draws_the_same_rows_twice(name):
    search = HalvingGridSearchCV(
        pipeline(),
        GRID,
        scoring=SCORERS[name],
        cv=ResubstitutionSplit(),
        min_resources=40,
        random_state=0,
    )
    search.fit(X, Y)  # a warning about other rows would fail the test
    assert np.isfinite(search.best_score_)


@pytest.mark.parametrize("name", SCORERS)
def test_randomised_search(name, expected):
    search = RandomizedSearchCV(
        pipeline(),
        GRID,
        n_iter=2,
        scoring=SCORERS[name],
        cv=ResubstitutionSplit(),
        random_state=0,
    ).fit(X, Y)
    assert sorted(search.cv_results_["mean_test_score"]) == pytest.approx(sorted(expected[name]))


@pytest.mark.parametrize("routing", [False, True])
def test_several_metrics_in_processes(routing, expected):
    with sklearn.config_context(enable_metadata_routing=routing):
        search = GridSearchCV(
            pipeline(),
            GRID,
            scoring={**SCORERS, "accuracy": "accuracy"},
            refit="bound",
            cv=ResubstitutionSplit(),
            n_jobs=2,
        ).fit(X, Y)
    for name in SCORERS:
        np.testing.assert_allclose(
            search.cv_results_[f"mean_test_{name}"], expected[name], rtol=1e-9
        )
    assert search.best_index_ == int(np.argmax(expected["bound"]))


def test_bound_of_the_search_is_minus_its_best_score():
    search = GridSearchCV(pipeline(), GRID, scoring=bound_scorer, cv=ResubstitutionSplit())
    search.fit(X, Y)
    analysis = GeneralisationBound(search).fit(X, Y)
    assert analysis.bound_ == -search.best_score_
    assert not analysis.refitted_
    scorer = make_bound_scorer(lipschitz="certified", confidence=0.9, random_state=3)
    settings = {"lipschitz": "certified", "confidence": 0.9, "random_state": 3}
    assert GeneralisationBound(search, **settings).fit(X, Y).bound_ == -scorer(search, X, Y)


def test_threads(expected):
    with joblib.parallel_config(backend="threading", n_jobs=2):
        search = GridSearchCV(
            pipeline(), GRID, scoring=selection_scorer, cv=ResubstitutionSplit()
        ).fit(X, Y)
    np.testing.assert_allclose(
        search.cv_results_["mean_test_score"], expected["selection"], rtol=1e-9
    )


@pytest.mark.filterwarnings("default")  # dask's own start-up and shut-down chatter
def test_dask_cluster_of_two_workers(expected):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        search = GridSearchCV(
            pipeline(),
            GRID,
            scoring=SCORERS,
            refit="bound",
            cv=ResubstitutionSplit(),
        ).fit(X, Y)
    for name in SCORERS:
        np.testing.assert_allclose(
            search.cv_results_[f"mean_test_{name}"], expected[name], rtol=1e-9
        )


def test_cross_validate_on_training_rows(expected):
    scores = cross_validate(
        pipeline().set_params(networkclassifier__module__hidden=(4,)),
        X,
        Y,
        scoring=SCORERS,
        cv=ResubstitutionSplit(),
    )
    for name in SCORERS:
        assert scores[f"test_{name}"] == pytest.approx([expected[name][0]])


@pytest.mark.parametrize("name", ["bound", "selection"])
def test_forgotten_splitter_warns_once_and_names_it(name, monkeypatch):
    monkeypatch.setattr(training_rows, "_WARNED", set())
    search = GridSearchCV(pipeline(), GRID, scoring=SCORERS[name], cv=KFold(2))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        search.fit(X, Y)
    messages = [str(w.message) for w in caught if "ResubstitutionSplit()" in str(w.message)]
    assert len(messages) == 1
    assert messages[0].startswith(f"{name}_scorer is given rows")


@pytest.mark.parametrize("cv", [KFold(2), ResubstitutionSplit()])
def test_rows_are_recognised_behind_a_target_transformation(cv, monkeypatch):
    monkeypatch.setattr(training_rows, "_WARNED", set())
    regressor = TransformedTargetRegressor(
        make_pipeline(StandardScaler(), NetworkRegressor(max_epochs=5, random_state=0)),
        transformer=StandardScaler(),
    )
    scorer = make_bound_scorer(loss_bound=2.0)
    search = GridSearchCV(regressor, {"regressor__networkregressor__lr": [0.02]}, scoring=scorer)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        search.set_params(cv=cv).fit(X, 3 + X[:, 0])
    warned = any("ResubstitutionSplit()" in str(w.message) for w in caught)
    assert warned == isinstance(cv, KFold)


def test_bounds_of_steep_regressors_are_finite_and_rank():
    features, target = load_diabetes(return_X_y=True)
    regressor = TransformedTargetRegressor(
        make_pipeline(StandardScaler(), NetworkRegressor(max_epochs=20, random_state=0)),
        transformer=StandardScaler(),
    )
    search = GridSearchCV(
        regressor,
        {"regressor__networkregressor__module__hidden": [(8,), (64, 64)]},
        scoring=make_bound_scorer(loss_bound=100.0),
        cv=ResubstitutionSplit(),
    ).fit(features, target)
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores).all()
    assert scores[0] != scores[1]
    analysis = GeneralisationBound(search, loss_bound=100.0).fit(features, target)
    assert analysis.bound_ == -search.best_score_
    assert "vacuous" in repr(analysis)


@pytest.mark.parametrize("name", SCORERS)
def test_scorers_leave_the_network_in_its_mode(name):
    network = NetworkClassifier(max_epochs=10, lr=0.1, random_state=0).fit(X, Y)
    network.module_.train()
    SCORERS[name](network, X, Y)
    assert network.module_.training


def test_other_rows_on_purpose(fitted):
    scorer = make_bound_scorer(rows="any")
    assert np.isfinite(scorer(fitted, X[:40], Y[:40]))
    with pytest.raises(ValueError, match="got 'all'"):
        make_bound_scorer(rows="all")


def test_sharpness_of_a_constant_network_is_pointed_out(fitted):
    constant = clone(fitted).set_params(networkclassifier__lr=1e-12).fit(X, Y)
    network = constant[-1].module_
    for parameter in network.parameters():
        parameter.data.zero_()
    with pytest.warns(UserWarning, match="the same class for every row"):
        sharpness_scorer(constant, X, Y)


def test_resubstitution_split_is_one_split():
    splitter = ResubstitutionSplit()
    assert splitter.get_n_splits(X, Y) == 1
    ((train, test),) = splitter.split(X, Y)
    np.testing.assert_array_equal(train, np.arange(80))
    np.testing.assert_array_equal(test, np.arange(80))
    with pytest.raises(ValueError, match="inconsistent"):
        list(splitter.split(X, Y[:3]))
