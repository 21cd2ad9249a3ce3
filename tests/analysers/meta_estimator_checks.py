"""What every analyser must do as a meta-estimator; subclass `MetaEstimatorChecks` in a test file.

scikit-learn's `check_estimator` knows nothing of estimators inside estimators. These checks cover
which estimators are taken, that the user's one is left alone, and that fitted analysers travel.
"""

import copy
import pickle

import joblib
import numpy as np
import pytest
import sklearn
import torch
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sharpfit import NetworkClassifier, NetworkRegressor

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
LABELS = np.array(["no", "yes"])[(X[:, 0] + X[:, 1] > 0).astype(int)]
CODES = (LABELS == "yes").astype(np.int64)
REAL = X @ np.array([1.0, -2.0, 0.5])


def classifier(**settings):
    return NetworkClassifier(
        module__hidden=(4,), **{"max_epochs": 2, "random_state": 0, **settings}
    )


def regressor(**settings):
    return NetworkRegressor(module__hidden=(4,), **{"max_epochs": 2, "random_state": 0, **settings})


def raw_net(kind, n_outputs, **settings):
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.1), nn.Linear(4, n_outputs)
    )
    return kind(module.double(), max_epochs=2, train_split=None, verbose=0, **settings)


def raw_classifier():
    return raw_net(NeuralNetClassifier, 2, criterion=nn.CrossEntropyLoss)


KINDS = {
    "network": (classifier, LABELS),
    "regressor": (regressor, REAL),
    "raw net": (raw_classifier, CODES),
    "raw regressor": (lambda: raw_net(NeuralNetRegressor, 1), REAL[:, None]),
    "pipeline": (lambda: make_pipeline(StandardScaler(), classifier()), LABELS),
    "one-step pipeline": (lambda: Pipeline([("network", classifier())]), LABELS),
    "search": (
        lambda: GridSearchCV(
            make_pipeline(StandardScaler(), classifier()),
            {"networkclassifier__lr": [0.01, 0.1]},
            cv=2,
        ),
        LABELS,
    ),
    "halving search": (
        lambda: HalvingGridSearchCV(classifier(), {"lr": [0.01, 0.1]}, cv=2, random_state=0),
        LABELS,
    ),
    "transformed target": (
        lambda: TransformedTargetRegressor(regressor(), transformer=StandardScaler()),
        REAL,
    ),
}


class MetaEstimatorChecks:
    """Checks of one analyser.

    Subclasses define `analyser(estimator, y)`, which returns a cheap analyser of `estimator` for
    targets like `y`, and `attribute`, the name of a fitted array or float to compare.
    """

    attribute: str

    def analyser(self, estimator, y):
        raise AssertionError("define it in a subclass")

    def value(self, analyser):
        return np.asarray(getattr(analyser, self.attribute))

    @pytest.fixture
    def fitted(self):
        return self.analyser(classifier().fit(X, LABELS), LABELS).fit(X, LABELS)

    @pytest.mark.parametrize("kind", KINDS)
    def test_trained_estimators_are_analysed_as_they_are(self, kind):
        build, y = KINDS[kind]
        estimator = build().fit(X, y)
        analyser = self.analyser(estimator, y)
        assert analyser.fit(X, y) is analyser
        assert analyser.estimator is analyser.estimator_ is estimator
        assert analyser.refitted_ is False
        assert getattr(analyser, "n_features_in_", 3) == 3  # raw nets do not count them
        assert np.isfinite(self.value(analyser)).all()
        assert isinstance(analyser.score(X, y), float)

    @pytest.mark.parametrize("kind", KINDS)
    def test_untrained_estimators_are_cloned_and_trained(self, kind):
        build, y = KINDS[kind]
        estimator = build()
        parameters = repr(estimator)
        analyser = self.analyser(estimator, y).fit(X, y)
        assert analyser.refitted_ is True
        assert analyser.estimator is estimator
        assert analyser.estimator_ is not estimator
        assert repr(estimator) == parameters
        assert not [name for name in vars(estimator) if name == "n_features_in_"]
        same = self.analyser(clone(estimator).fit(X, y), y).fit(X, y)
        if kind not in ("raw net", "raw regressor"):  # these have no seed
            np.testing.assert_allclose(self.value(analyser), self.value(same))

    def test_frozen_estimators_survive_cloning(self):
        frozen = FrozenEstimator(make_pipeline(StandardScaler(), classifier()).fit(X, LABELS))
        analyser = clone(self.analyser(frozen, LABELS)).fit(X, LABELS)
        assert analyser.refitted_ is False
        assert analyser.estimator_ is analyser.estimator

    def test_prefit(self):
        with pytest.raises(NotFittedError, match="prefit"):
            self.analyser(classifier(), LABELS).set_params(prefit=True).fit(X, LABELS)
        trained = classifier().fit(X, LABELS)
        again = self.analyser(trained, LABELS).set_params(prefit=False).fit(X, LABELS)
        assert again.refitted_ is True
        assert again.estimator_ is not trained
        with pytest.raises(ValueError, match="prefit must be"):
            self.analyser(trained, LABELS).set_params(prefit="maybe").fit(X, LABELS)

    @pytest.mark.parametrize(
        ("estimator", "name"),
        [
            (LogisticRegression(), "LogisticRegression"),
            (RandomForestClassifier(), "RandomForestClassifier"),
            (make_pipeline(StandardScaler(), LogisticRegression()), "LogisticRegression"),
            (nn.Linear(3, 2), "Linear"),
        ],
        ids=["linear", "forest", "pipeline", "module"],
    )
    def test_other_estimators_are_refused_by_name(self, estimator, name):
        with pytest.raises(TypeError, match=rf"(?s){name}.*NetworkClassifier"):
            self.analyser(estimator, LABELS).fit(X, LABELS)

    def test_users_estimator_is_untouched(self):
        estimator = make_pipeline(StandardScaler(), raw_classifier()).fit(X, CODES)
        module = estimator[-1].module_
        module.train()
        for parameter in module.parameters():
            parameter.grad = torch.full_like(parameter, 0.5)
        module[0].weight.requires_grad_(False)
        state = copy.deepcopy(module.state_dict())
        attributes = {name: id(value) for name, value in vars(estimator[-1]).items()}
        hooks = len(module._forward_hooks)
        rows, codes = X.copy(), CODES.copy()
        torch.manual_seed(5)
        np.random.seed(5)  # noqa: NPY002
        torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
        analyser = self.analyser(estimator, CODES).fit(X, CODES)
        analyser.score(X, CODES)
        assert torch.equal(torch.get_rng_state(), torch_state)
        np.testing.assert_equal(np.random.get_state(), numpy_state)  # noqa: NPY002
        assert all(child.training for child in module.modules())
        assert len(module._forward_hooks) == hooks
        assert [p.requires_grad for p in module.parameters()].count(False) == 1
        assert all(bool((p.grad == 0.5).all()) for p in module.parameters())
        for name, tensor in module.state_dict().items():
            assert torch.equal(tensor, state[name]), name
        assert {name: id(value) for name, value in vars(estimator[-1]).items()} == attributes
        np.testing.assert_array_equal(X, rows)
        np.testing.assert_array_equal(CODES, codes)

    def test_parameters_are_kept_as_given(self):
        estimator = classifier()
        analyser = self.analyser(estimator, LABELS)
        before = analyser.get_params(deep=False)
        assert before["estimator"] is estimator
        analyser.fit(X, LABELS)
        after = analyser.get_params(deep=False)
        assert all(after[name] is before[name] for name in before)
        copied = clone(analyser)
        assert not hasattr(copied, self.attribute)
        assert copied.estimator is not estimator
        assert set(copied.get_params()) == set(analyser.get_params())
        copied.set_params(estimator__lr=0.5, prefit=False)
        assert copied.estimator.lr == 0.5
        assert estimator.lr != 0.5

    def test_methods_before_fit_say_so(self):
        analyser = self.analyser(classifier(), LABELS)
        with pytest.raises(NotFittedError):
            analyser.score(X, LABELS)
        for name in ("predict", "predict_proba", "transform"):
            if hasattr(analyser, name):
                with pytest.raises(NotFittedError):
                    getattr(analyser, name)(X)
        fitted = [name for name in vars(analyser) if name.endswith("_")]
        assert not fitted

    @pytest.mark.parametrize("route", ["pickle", "joblib", "deepcopy"])
    def test_fitted_analysers_travel(self, fitted, route, tmp_path):
        if route == "pickle":
            other = pickle.loads(pickle.dumps(fitted))
        elif route == "joblib":
            joblib.dump(fitted, tmp_path / "analyser.joblib")
            other = joblib.load(tmp_path / "analyser.joblib")
        else:
            other = copy.deepcopy(fitted)
        np.testing.assert_array_equal(self.value(other), self.value(fitted))
        assert other.score(X, LABELS) == pytest.approx(fitted.score(X, LABELS))
        if hasattr(fitted, "predict"):
            np.testing.assert_array_equal(other.predict(X), fitted.predict(X))

    def test_representations_are_cheap(self, fitted):
        def refuse(module, inputs):
            raise AssertionError("a representation runs the network")

        # Representations evaluate every property that looks like a fitted attribute.
        hook = fitted.estimator_.module_.register_forward_pre_hook(refuse)
        text, bundle = repr(fitted), fitted._repr_mimebundle_()
        hook.remove()
        assert type(fitted).__name__ in text
        assert type(fitted).__name__ in bundle["text/html"]
        unfitted = clone(fitted)
        assert type(fitted).__name__ in repr(unfitted)
        assert unfitted._repr_mimebundle_()["text/html"]

    def test_fitted_attributes_are_plain(self, fitted):
        for name, value in vars(fitted).items():
            if name.endswith("_"):
                assert not isinstance(value, torch.Tensor), name

    def test_tags_follow_the_estimator(self):
        for estimator, y in ((classifier(), LABELS), (regressor(), REAL)):
            analyser = self.analyser(estimator, y)
            tags = get_tags(analyser)
            assert tags.input_tags == get_tags(estimator).input_tags
            if hasattr(analyser, "predict"):
                assert is_classifier(analyser) == is_classifier(estimator)
                assert is_regressor(analyser) == is_regressor(estimator)

    def test_data_frames_leave_their_names(self):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(X, columns=["a", "b", "c"])
        pipeline = make_pipeline(StandardScaler(), classifier()).fit(frame, LABELS)
        analyser = self.analyser(pipeline, LABELS).fit(frame, LABELS)
        assert list(analyser.feature_names_in_) == ["a", "b", "c"]
        assert np.isfinite(self.value(analyser)).all()

    def test_metadata_routing_can_be_on(self):
        with sklearn.config_context(enable_metadata_routing=True):
            trained = make_pipeline(StandardScaler(), classifier()).fit(X, LABELS)
            analyser = self.analyser(trained, LABELS)
            analyser.get_metadata_routing()
            value = self.value(analyser.fit(X, LABELS))
        np.testing.assert_allclose(value, self.value(self.analyser(trained, LABELS).fit(X, LABELS)))

    def test_searches_over_the_estimator_inside(self):
        analyser = self.analyser(classifier(), LABELS)
        search = GridSearchCV(analyser, {"estimator__lr": [0.01, 0.1]}, cv=2).fit(X, LABELS)
        scores = search.cv_results_["mean_test_score"]
        assert np.isfinite(scores).all()
        assert search.best_estimator_.refitted_ is True
