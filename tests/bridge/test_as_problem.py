"""Every kind of estimator and criterion becomes the same problem: module, loss and data."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sharpfit import NetworkClassifier, NetworkRegressor
from sharpfit.bridge import as_problem, unwrap

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype(np.float32)
LABELS = (X[:, 0] + X[:, 1] > 0).astype(np.int64)
REAL = (X @ np.array([1.0, -2.0, 0.5], dtype=np.float32))[:, None]


def classifier(module=None, criterion=nn.CrossEntropyLoss, kind=NeuralNetClassifier, **settings):
    module = (
        nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)) if module is None else module
    )
    torch.manual_seed(0)
    return kind(module, criterion=criterion, train_split=None, verbose=0, max_epochs=2, **settings)


def regressor(**settings):
    torch.manual_seed(0)
    return NeuralNetRegressor(
        nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)),
        train_split=None,
        verbose=0,
        max_epochs=2,
        **settings,
    )


def mean_loss(problem):
    weights = problem.loss.row_weights(problem.targets, problem.sample_weight)
    values = problem.loss.values(problem.module(problem.inputs), problem.targets)
    return float((weights * values.double()).sum().detach())


CLASSIFIERS = {
    "net": lambda: classifier().fit(X, LABELS),
    "pipeline": lambda: make_pipeline(StandardScaler(), classifier()).fit(X, LABELS),
    "one-step pipeline": lambda: make_pipeline(classifier()).fit(X, LABELS),
    "passthrough": lambda: Pipeline([("no", "passthrough"), ("net", classifier())]).fit(X, LABELS),
    "search": lambda: GridSearchCV(
        make_pipeline(MinMaxScaler(), classifier()), {"neuralnetclassifier__lr": [0.1, 0.2]}, cv=2
    ).fit(X, LABELS),
    "halving search": lambda: HalvingGridSearchCV(
        classifier(), {"lr": [0.1, 0.2]}, cv=2, random_state=0
    ).fit(X, LABELS),
    "frozen": lambda: FrozenEstimator(
        make_pipeline(StandardScaler(), FrozenEstimator(classifier().fit(X, LABELS))).fit(X, LABELS)
    ),
}


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_module_reproduces_the_fitted_classifier(kind):
    estimator = CLASSIFIERS[kind]()
    problem = as_problem(estimator, X, LABELS)
    assert problem.estimator is estimator
    assert not problem.refitted
    probabilities = problem.module(problem.inputs).softmax(dim=1).detach().numpy()
    np.testing.assert_allclose(probabilities, estimator.predict_proba(X), atol=1e-6)
    np.testing.assert_array_equal(problem.labels, LABELS)
    assert problem.task == "classification"


# Older scikit-learn hands the plain skorch regressor targets without their column; torch warns.
@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("frozen", [False, True])
def test_target_transformation_is_in_network_units(frozen):
    estimator = TransformedTargetRegressor(
        make_pipeline(StandardScaler(), regressor()), transformer=StandardScaler()
    ).fit(X, REAL)
    problem = as_problem(FrozenEstimator(estimator) if frozen else estimator, X, REAL)
    predictions = problem.module(problem.inputs).detach().numpy()
    back = estimator.transformer_.inverse_transform(predictions)
    np.testing.assert_allclose(back, estimator.predict(X), rtol=1e-4)
    assert problem.targets.mean().item() == pytest.approx(0, abs=1e-6)
    assert problem.task == "regression"
    assert problem.classes is None


def softmax_net(**settings):
    module = nn.Sequential(nn.Linear(3, 2), nn.Softmax(dim=1))
    return classifier(module, nn.NLLLoss, **settings)


NETS = {
    "cross-entropy": (lambda: classifier(), LABELS),
    "weighted": (lambda: classifier(criterion__weight=torch.tensor([1.0, 5.0])), LABELS),
    "probabilities": (softmax_net, LABELS),
    "weighted probabilities": (
        lambda: softmax_net(criterion__weight=torch.tensor([1.0, 5.0])),
        LABELS,
    ),
    "log-probabilities": (
        lambda: classifier(
            nn.Sequential(nn.Linear(3, 2), nn.LogSoftmax(dim=1)), nn.NLLLoss, kind=NeuralNet
        ),
        LABELS,
    ),
    "one logit": (
        lambda: classifier(
            nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)),
            nn.BCEWithLogitsLoss,
            kind=NeuralNetBinaryClassifier,
        ),
        LABELS.astype(np.float32),
    ),
    "squared error": (lambda: regressor(), REAL),
    "summed": (lambda: regressor(criterion__reduction="sum", lr=1e-4), REAL),
    "huber": (lambda: regressor(criterion=nn.HuberLoss), REAL),
}


@pytest.mark.parametrize("kind", NETS)
def test_loss_is_the_loss_the_net_trains(kind):
    build, y = NETS[kind]
    net = build().fit(X, y)
    problem = as_problem(net, X, y)
    with torch.no_grad():
        outputs = net.infer(torch.as_tensor(X))
        expected = net.get_loss(outputs, torch.as_tensor(y), training=False).item()
    assert mean_loss(problem) == pytest.approx(expected, rel=1e-5)


NAMES = np.array(["no", "yes"])[LABELS]
NETWORKS = {
    "reference": (NetworkClassifier(), NAMES),
    "balanced": (NetworkClassifier(class_weight="balanced"), NAMES),
    "probabilities": (
        NetworkClassifier(nn.Sequential(nn.Linear(3, 2), nn.Softmax(dim=1)), criterion=nn.NLLLoss),
        NAMES,
    ),
    "one logit": (
        NetworkClassifier(nn.Linear(3, 1), criterion=nn.BCEWithLogitsLoss, class_weight={"no": 3}),
        NAMES,
    ),
    "regression": (NetworkRegressor(), REAL[:, 0]),
    "many targets": (NetworkRegressor(), np.hstack([REAL, -REAL])),
    "summed": (NetworkRegressor(criterion__reduction="sum", lr=1e-4), REAL),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", NETWORKS)
def test_loss_is_the_loss_our_networks_train(kind):
    network, y = NETWORKS[kind]
    network = clone(network).set_params(max_epochs=2, random_state=0).fit(X.astype(np.float64), y)
    problem = as_problem(network, X.astype(np.float64), y)
    with torch.no_grad():
        outputs = network.infer(network.input_tensor(X.astype(np.float64)))
        expected = network.get_loss(outputs, network.target_tensor(y)).item()
    assert mean_loss(problem) == pytest.approx(expected, rel=1e-5)
    if problem.classes is not None:
        np.testing.assert_array_equal(problem.classes[problem.labels], y)
        assert problem.sample_weight is None or kind in ("balanced", "one logit")


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_loaded_weights_are_trained_weights(tmp_path):
    trained = NetworkClassifier(max_epochs=1, random_state=0).fit(X, LABELS)
    trained.save_params(f_params=tmp_path / "weights.pt")
    loaded = NetworkClassifier(module=trained.module_, classes=[0, 1]).initialize()
    loaded.load_params(f_params=tmp_path / "weights.pt")
    problem = as_problem(loaded, X, LABELS, prefit=True)
    assert not problem.refitted


def test_sample_weights_enter_the_mean():
    net = classifier().fit(X, LABELS)
    weights = np.arange(40) % 3
    problem = as_problem(net, X, LABELS, sample_weight=weights)
    rows = np.repeat(np.arange(40), weights)
    assert mean_loss(problem) == pytest.approx(
        mean_loss(as_problem(net, X[rows], LABELS[rows])), rel=1e-6
    )


class PenalisedClassifier(NeuralNetClassifier):
    def get_loss(self, y_pred, y_true, *args, **kwargs):
        loss = super().get_loss(y_pred, y_true, *args, **kwargs)
        return loss + sum(p.square().sum() for p in self.module_.parameters())


def test_overridden_loss_becomes_an_objective_of_the_snapshot():
    net = classifier(kind=PenalisedClassifier).fit(X, LABELS)
    problem = as_problem(net, X, LABELS)
    assert problem.loss is None
    with pytest.raises(ValueError, match="PenalisedClassifier overrides get_loss"):
        problem.sample_loss()
    value = problem.objective(problem.module, problem.inputs, problem.targets)
    expected = net.get_loss(net.infer(torch.as_tensor(X)), torch.as_tensor(LABELS))
    torch.testing.assert_close(value, expected)
    gradient = torch.autograd.grad(value, problem.module[2].bias)[0]
    assert gradient.abs().sum() > 0


def test_estimator_data_and_random_state_are_untouched():
    net = classifier(
        nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
    )
    net.fit(X, LABELS)
    net.module_.train()
    net.module_[0].weight.grad = torch.ones(4, 3)
    state = copy.deepcopy(net.module_.state_dict())
    rows = X.copy()
    random_state = torch.get_rng_state()
    problem = as_problem(net, X, LABELS)
    with torch.no_grad():
        for parameter in problem.module.parameters():
            parameter.zero_()
    problem.inputs.zero_()
    assert net.module_.training
    assert bool((net.module_[0].weight.grad == 1).all())
    torch.testing.assert_close(net.module_.state_dict(), state)
    np.testing.assert_array_equal(X, rows)
    torch.testing.assert_close(torch.get_rng_state(), random_state)
    assert not problem.module.training


@pytest.mark.parametrize("prefit", ["auto", False])
def test_unfitted_estimators_are_cloned_and_fitted(prefit):
    estimator = make_pipeline(StandardScaler(), classifier())
    problem = as_problem(estimator, X, LABELS, prefit=prefit)
    assert problem.refitted
    assert problem.estimator is not estimator
    assert not estimator[-1].initialized_
    assert not hasattr(estimator[0], "mean_")


def test_prefit_false_refits_a_trained_estimator():
    estimator = classifier().fit(X, LABELS)
    problem = as_problem(estimator, X, LABELS, prefit=False)
    assert problem.refitted
    assert len(estimator.history) == 2


def test_initialised_net_is_not_trained():
    net = classifier().initialize()
    with pytest.warns(UserWarning, match="no training history"):
        assert as_problem(net, X, LABELS).refitted


def test_hidden_validation_rows_are_pointed_out():
    net = NeuralNetClassifier(
        nn.Linear(3, 2), criterion=nn.CrossEntropyLoss, verbose=0, max_epochs=1
    )
    net.fit(X, LABELS)
    with pytest.warns(UserWarning, match="train_split=None"):
        as_problem(net, X, LABELS)


def test_analysis_dtype():
    problem = as_problem(classifier().fit(X, LABELS), X, LABELS, dtype=torch.float64)
    assert problem.module(problem.inputs).dtype == torch.float64


def test_data_frames_between_pipeline_steps():
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    pipe = make_pipeline(StandardScaler(), classifier().fit(X, LABELS))
    pipe[0].fit(frame)
    pipe[0].set_output(transform="pandas")
    assert as_problem(pipe, frame, LABELS).inputs.shape == (40, 3)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (LogisticRegression(), "LogisticRegression has no neural network"),
        (make_pipeline(LogisticRegression()), "Pipeline ends in LogisticRegression"),
        (nn.Linear(2, 2), "no neural network"),
    ],
)
def test_other_estimators_are_refused_by_name(estimator, message):
    with pytest.raises(TypeError, match=message):
        as_problem(estimator, X, LABELS)


WEIGHTS = np.arange(40) % 3
WEIGHTED = {
    "network": lambda: NetworkClassifier(max_epochs=2, random_state=0),
    "pipeline": lambda: make_pipeline(StandardScaler(), WEIGHTED["network"]()),
    "nested": lambda: make_pipeline(StandardScaler(), WEIGHTED["pipeline"]()),
    "search": lambda: GridSearchCV(WEIGHTED["pipeline"](), {"networkclassifier__lr": [0.1]}, cv=2),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore:The scoring None does not support sample_weight")
@pytest.mark.parametrize("kind", WEIGHTED)
def test_sample_weights_reach_the_network_of_a_clone(kind):
    problem = as_problem(WEIGHTED[kind](), X, LABELS, sample_weight=WEIGHTS)
    plain = as_problem(WEIGHTED[kind](), X, LABELS)
    weighted, unweighted = (p.module[-1].bias.detach() for p in (problem, plain))
    assert not torch.equal(weighted, unweighted)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_sample_weights_are_routed():
    with config_context(enable_metadata_routing=True):
        pipe = make_pipeline(
            StandardScaler().set_fit_request(sample_weight=False),
            NetworkClassifier(max_epochs=2, random_state=0).set_fit_request(sample_weight=True),
        )
        routed = as_problem(pipe, X, LABELS, sample_weight=WEIGHTS)
    direct = as_problem(WEIGHTED["pipeline"](), X, LABELS, sample_weight=WEIGHTS)
    # With routing off the scaler gets no weights either, so both trainings are the same.
    torch.testing.assert_close(routed.module[-1].bias, direct.module[-1].bias)


def test_plain_nets_that_cannot_be_trained_name_the_remedy():
    with pytest.raises(TypeError, match="cannot train with it; use NetworkClassifier"):
        as_problem(classifier(), X, LABELS, sample_weight=WEIGHTS)
    with pytest.raises(TypeError, match=r"astype\('float32'\), or use NetworkClassifier"):
        as_problem(classifier(), X.astype(np.float64), LABELS)


def test_search_without_a_winner_names_the_remedy():
    search = GridSearchCV(classifier(), {"lr": [0.1, 0.2]}, cv=2, refit=False).fit(X, LABELS)
    with pytest.raises(ValueError, match="refit=False and keeps no winner"):
        as_problem(search, X, LABELS)


def test_bad_arguments():
    net = classifier()
    with pytest.raises(ValueError, match="prefit must be"):
        as_problem(net, X, LABELS, prefit="yes")
    with pytest.raises(ValueError, match="pass y"):
        as_problem(net, X)
    with pytest.raises(ValueError, match="inconsistent numbers"):
        as_problem(net, X, LABELS[:-1])
    with pytest.raises(Exception, match="prefit=True does not train"):
        as_problem(net, X, LABELS, prefit=True)
    net.fit(X, LABELS)
    with pytest.raises(ValueError, match="label 7"):
        as_problem(net, X, LABELS + 7)
    with pytest.raises(TypeError, match=r"astype\('float32'\)"):
        as_problem(net, X.astype(np.float64), LABELS)
    with pytest.raises(TypeError, match="several inputs"):
        as_problem(net, X.tolist(), LABELS)
    with pytest.raises(ValueError, match="pass y"):
        as_problem(net, X).sample_loss()


def test_unwrap_lists_the_steps_in_their_order():
    scaler, ranger = StandardScaler(), MinMaxScaler()
    parts = unwrap(
        TransformedTargetRegressor(
            make_pipeline(scaler, make_pipeline(ranger, regressor())), transformer=MinMaxScaler()
        )
    )
    assert parts.preprocessing == (scaler, ranger)
    assert isinstance(parts.target_transformer, MinMaxScaler)
