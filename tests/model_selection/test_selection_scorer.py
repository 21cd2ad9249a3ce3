"""The selection scorer inside scikit-learn's searches, and its invariances on real networks."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import sklearn
import torch
from sklearn.datasets import make_classification, make_regression
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sharpfit.model_selection.selection import SelectionScorer, selection_scorer
from sharpfit.model_selection.splitters import ResubstitutionSplit
from sharpfit.networks import NetworkClassifier, NetworkRegressor
from sharpfit.theory.fresh_rows import shifted_rows, stand_in_rows
from sharpfit.theory.kernel_regression import fit_kernel_regression
from sharpfit.theory.patch_features import PatchFeatures

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

GRID = {"lr": [1e-4, 0.1]}


def classifier(**parameters):
    settings = {"max_epochs": 10, "lr": 0.1, "verbose": 0, "random_state": 0}
    return NetworkClassifier(**(settings | parameters))


def regressor(**parameters):
    settings = {"max_epochs": 20, "lr": 0.01, "verbose": 0, "random_state": 0}
    return NetworkRegressor(**(settings | parameters))


class CountsPulses(nn.Module):
    """Logits from the largest value of the second channel, wherever it is."""

    def __init__(self, layout):
        super().__init__()
        self.layout = layout
        self.head = nn.Linear(1, 2)

    def forward(self, x):
        assert x.shape[1:] == self.layout
        channel = x[:, 1] if self.layout[0] == 2 else x[:, :, 1]
        return self.head(channel.flatten(1).amax(1, keepdim=True))


class WithConvolution(CountsPulses):
    """The same; that it has a convolution tells which axis is the channels'."""

    def __init__(self, layout):
        super().__init__(layout)
        self.convolution = nn.Conv1d(1, 1, 1)


@pytest.fixture(scope="module")
def rows():
    X, y = make_classification(120, 6, n_informative=5, n_redundant=0, n_classes=3, random_state=0)
    return X.astype(np.float32), np.array(["a", "b", "c"])[y]


@pytest.fixture(scope="module")
def targets():
    X, y = make_regression(100, 4, noise=5.0, random_state=0)
    return X.astype(np.float32), (y / y.std()).astype(np.float32)


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_equals_errors_counted_point_by_point(rows, targets, kind):
    """A row counts twice, with and without its own target, and each of its stand-ins once."""
    X, y = rows if kind == "classification" else targets
    net = (classifier if kind == "classification" else regressor)().fit(X, y)
    values = np.unique(y, return_inverse=True)[1]
    truth = np.eye(3)[values] if kind == "classification" else y[:, None].astype(float)
    regression = fit_kernel_regression(X, truth)
    total = 0.0
    for i, moved in enumerate(stand_in_rows(X)):
        points = np.concatenate([X[[i, i]], moved])
        answers = np.concatenate([regression.leave_one_out[[i]], regression.predict(points[1:])])
        predictions = net.predict(points.astype(np.float32))
        for prediction, answer in zip(predictions, answers, strict=True):
            if kind == "classification":
                shares = np.maximum(answer, 0)
                total += 1 - shares["abc".index(prediction)] / shares.sum()
            else:
                total += (prediction - answer[0]) ** 2
    assert selection_scorer(net, X, y) == pytest.approx(-total / (6 * len(X)), rel=1e-5)


def test_a_trained_network_scores_above_an_untrained_one(rows, targets):
    X, y = rows
    assert selection_scorer(classifier().fit(X, y), X, y) > selection_scorer(
        classifier(lr=1e-5, max_epochs=1).fit(X, y), X, y
    )
    X, y = targets
    assert selection_scorer(regressor().fit(X, y), X, y) > selection_scorer(
        regressor(lr=1e-6, max_epochs=1).fit(X, y), X, y
    )


@pytest.mark.parametrize("scale", [1e-3, 7.0, 1e4])
def test_scale_of_the_logits_does_not_matter(rows, scale):
    X, y = rows
    net = classifier().fit(X, y)
    scaled = copy.deepcopy(net)
    with torch.no_grad():
        scaled.module_[-1].weight *= scale
        scaled.module_[-1].bias *= scale
    assert selection_scorer(scaled, X, y) == pytest.approx(selection_scorer(net, X, y), rel=1e-4)


@pytest.mark.parametrize("scale", [2.0**-6, 2.0**5])
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_scale_of_the_inputs_does_not_matter(rows, targets, kind, scale):
    X, y = rows if kind == "classification" else targets
    net = (classifier if kind == "classification" else regressor)().fit(X, y)
    scaled = copy.deepcopy(net)
    with torch.no_grad():
        scaled.module_[0].weight /= scale
    scorer = SelectionScorer(rows="any")
    assert scorer(scaled, scale * X, y) == pytest.approx(scorer(net, X, y), rel=1e-5)


def test_shifts_of_all_logits_do_not_matter(rows):
    X, y = rows
    net = classifier().fit(X, y)
    shifted = copy.deepcopy(net)
    with torch.no_grad():
        shifted.module_[-1].bias += 10.0
    assert selection_scorer(shifted, X, y) == pytest.approx(selection_scorer(net, X, y), rel=1e-4)


@pytest.fixture(scope="module")
def pulses():
    """Two channels of 24 steps; whether the pulse in the second, anywhere, is narrow or wide."""
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=160)
    at = rng.integers(19, size=160)[:, None] + np.arange(5)
    X = 0.2 * rng.normal(size=(160, 2, 24))
    X[np.arange(160)[:, None], 1, at] += np.where(y[:, None], [0, 0, 2, 0, 0], [1, 1, 1, 1, 1])
    return X.astype(np.float32), y


@pytest.mark.parametrize("layout", ["channels first", "image", "steps first"])
def test_signals_are_judged_where_they_are_shifted(pulses, layout):
    """Point by point, and alike whichever way the axes lie."""
    X, y = pulses
    regression = fit_kernel_regression(X.reshape(160, -1), np.eye(2)[y], shape=(2, 24))
    assert isinstance(regression.features, PatchFeatures)
    flat = X.reshape(160, -1)
    moved = shifted_rows(flat, (2, 24))
    points = np.concatenate([flat, moved.reshape(-1, 48)])
    answers = np.concatenate([regression.leave_one_out, regression.predict(points)])
    shares = np.maximum(answers, 0) / np.maximum(answers, 0).sum(axis=1, keepdims=True)

    shape = {"channels first": (2, 24), "image": (2, 1, 24), "steps first": (24, 2)}[layout]
    kind = WithConvolution if layout == "channels first" else CountsPulses
    inputs = X.transpose(0, 2, 1) if layout == "steps first" else X.reshape(160, *shape)
    net = classifier(module=kind(shape), lr=0.5).fit(inputs, y)
    predicted = net.predict(
        np.float32(
            points.reshape(-1, 2, 24).transpose(0, 2, 1)
            if layout == "steps first"
            else points.reshape(-1, *shape)
        )
    )
    predicted = np.concatenate([predicted[:160], predicted])
    expected = 1 - shares[np.arange(len(shares)), predicted].mean()
    assert len(shares) == 160 * (2 + 2)
    assert selection_scorer(net, inputs, y) == pytest.approx(-expected, rel=1e-6)


def test_order_of_the_rows_does_not_matter(rows):
    X, y = rows
    net = classifier().fit(X, y)
    order = np.random.default_rng(0).permutation(len(X))
    scorer = SelectionScorer(rows="any")
    assert scorer(net, X[order], y[order]) == pytest.approx(scorer(net, X, y), rel=1e-5)


def test_one_logit_equals_two(rows):
    X, y = rows
    X, y = X[y != "c"], y[y != "c"]
    one = classifier(module__n_outputs=1, criterion=nn.BCEWithLogitsLoss).fit(X, y)
    two = classifier().fit(X, y)
    with torch.no_grad():
        for ours, theirs in zip(
            two.module_[:-1].parameters(), one.module_[:-1].parameters(), strict=True
        ):
            ours.copy_(theirs)
        two.module_[-1].weight.copy_(torch.cat([0 * one.module_[-1].weight] * 2))
        two.module_[-1].weight[1] = one.module_[-1].weight[0]
        two.module_[-1].bias.copy_(torch.tensor([0.0, float(one.module_[-1].bias)]))
    assert selection_scorer(one, X, y) == pytest.approx(selection_scorer(two, X, y), rel=1e-5)


def test_a_plain_skorch_net_on_probabilities_is_read_as_logits(rows):
    X, y = rows
    y = np.unique(y, return_inverse=True)[1].astype(np.int64)
    layers = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    net = NeuralNetClassifier(
        nn.Sequential(layers, nn.Softmax(dim=1)), train_split=None, verbose=0, max_epochs=5
    ).fit(X, y)
    logits = classifier(module=layers).fit(X, y)
    logits.module_.load_state_dict(net.module_[0].state_dict())
    assert selection_scorer(net, X, y) == pytest.approx(selection_scorer(logits, X, y), rel=1e-3)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_grid_search_refits_the_candidate_with_the_highest_score(rows, n_jobs):
    X, y = rows
    search = GridSearchCV(
        classifier(), GRID, scoring=selection_scorer, cv=ResubstitutionSplit(), n_jobs=n_jobs
    ).fit(X, y)
    assert search.best_params_ == {"lr": 0.1}
    assert search.best_score_ == pytest.approx(selection_scorer(search.best_estimator_, X, y))


@pytest.mark.parametrize("routing", [False, True])
def test_other_searches_with_and_without_metadata_routing(rows, targets, routing):
    X, y = rows
    split = ResubstitutionSplit()
    pipe = make_pipeline(StandardScaler(), classifier())
    grid = {"networkclassifier__lr": [1e-4, 0.1]}
    with sklearn.config_context(enable_metadata_routing=routing):
        random = RandomizedSearchCV(
            pipe, grid, n_iter=2, scoring=selection_scorer, cv=split, random_state=0
        ).fit(X, y)
        assert random.best_params_ == {"networkclassifier__lr": 0.1}
        several = GridSearchCV(
            regressor(),
            {"lr": [1e-6, 0.01]},
            scoring={"selection": selection_scorer, "r2": "r2"},
            refit="selection",
            cv=split,
        ).fit(*targets)
        assert several.best_params_ == {"lr": 0.01}
        assert np.isfinite(several.cv_results_["mean_test_selection"]).all()


def test_halving_search_scores_the_last_rung_on_all_rows(rows):
    X, y = rows
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
        search = HalvingGridSearchCV(
            classifier(),
            GRID,
            scoring=selection_scorer,
            cv=ResubstitutionSplit(),
            factor=2,
            min_resources=60,
            random_state=0,
        ).fit(X, y)
    assert search.best_params_ == {"lr": 0.1}
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_a_forgotten_splitter_is_named(rows):
    X, y = rows
    with pytest.warns(UserWarning, match="ResubstitutionSplit"):
        cross_validate(classifier(), X, y, cv=2, scoring=selection_scorer)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
        scores = cross_validate(classifier(), X, y, cv=2, scoring=SelectionScorer(rows="any"))
    assert np.isfinite(scores["test_score"]).all()


def test_the_scorer_is_a_picklable_object_with_a_name():
    again = pickle.loads(pickle.dumps(selection_scorer))
    assert again.__name__ == selection_scorer.__name__ == "selection_scorer"
    assert again.rows == "training"


def test_network_and_global_random_state_stay_as_they_are(rows):
    X, y = rows
    net = classifier().fit(X, y)
    net.module_.train()
    weights = copy.deepcopy(net.module_.state_dict())
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    selection_scorer(net, X, y)
    assert net.module_.training
    for name, value in net.module_.state_dict().items():
        assert torch.equal(value, weights[name])
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_outputs_that_are_not_finite_are_refused(rows):
    X, y = rows
    net = classifier().fit(X, y)
    with torch.no_grad():
        net.module_[-1].bias[0] = torch.inf
    with pytest.raises(ValueError, match="not finite"):
        selection_scorer(net, X, y)


def test_rows_and_targets_that_are_not_finite_are_named(targets):
    """A plain skorch net lets them through."""
    X, y = targets
    net = NeuralNetRegressor(nn.Linear(4, 1), train_split=None, verbose=0, max_epochs=1)
    net.fit(X, y[:, None])
    for name, spoilt in {"X": (X * np.nan, y), "y": (X, y * np.nan)}.items():
        with pytest.raises(ValueError, match=f"{name} has values that are not finite"):
            SelectionScorer(rows="any")(net, spoilt[0], spoilt[1][:, None])


def test_a_constant_network_does_not_win_where_classes_come_in_turn():
    labels = np.tile([0, 1], 1500)
    X = (np.random.default_rng(0).normal(size=(3000, 2)) + 4 * labels[:, None]).astype(np.float32)
    net = classifier(module=nn.Linear(2, 2), max_epochs=5).fit(X, labels)
    constant = copy.deepcopy(net)
    with torch.no_grad():
        constant.module_.weight.zero_()
    assert selection_scorer(net, X, labels) > selection_scorer(constant, X, labels) + 0.4


def test_targets_are_needed(rows):
    X, y = rows
    with pytest.raises(ValueError, match="y is None"):
        SelectionScorer(rows="any")(classifier().fit(X, y), X)
