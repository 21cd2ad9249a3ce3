"""What makes a bound certified: constants, radii, rounding and the decision it is about."""

import copy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import make_moons
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier

from sharpfit import GeneralisationBound, NetworkClassifier, NetworkRegressor, make_bound_scorer
from sharpfit.analysers.bound.constants import exact_outputs, lipschitz_result
from sharpfit.analysers.bound.memory import check_memory
from sharpfit.analysers.bound.metric import metric_space
from sharpfit.bridge import as_problem
from sharpfit.jacobian import certified_radii, lipschitz_certificate
from sharpfit.theory import logit_margins

# The networks are trained for a few epochs only.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = make_moons(100, noise=0.1, random_state=0)


@pytest.fixture(scope="module")
def trained():
    return NetworkClassifier(module__hidden=(16,), max_epochs=20, random_state=0).fit(X, Y)


def in_double_precision(step):
    step = copy.deepcopy(step)
    for name, value in vars(step).items():
        if isinstance(value, np.ndarray):
            setattr(step, name, value.astype(np.float64))
    return step


@pytest.mark.parametrize("scaler", [StandardScaler(), MinMaxScaler(), PCA(2, whiten=True)])
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
def test_slack_covers_what_single_precision_did_to_the_rows(scaler, offset):
    # Far from the origin a scaler that computes in single precision moves rows a lot.
    rows = (100.0 * X + offset).astype(np.float32)
    pipe = make_pipeline(scaler, NetworkClassifier(max_epochs=3, random_state=0)).fit(rows, Y)
    problem = as_problem(pipe, rows, Y)
    space = metric_space(problem, None)
    margins = logit_margins(exact_outputs(problem), problem.labels)
    module = copy.deepcopy(problem.module).double()
    exact = torch.as_tensor(in_double_precision(pipe[0]).transform(rows.astype(np.float64)))
    with torch.no_grad():
        true_margins = logit_margins(module(exact).numpy(), problem.labels)
    change = np.abs(margins - true_margins)
    slack = lipschitz_result(problem, space, "certified", margins, 1.0).slack
    assert (change <= slack).all()
    assert (slack <= 1e3 * change.max() + 1e-5).all()
    # Balls around rows lie in balls around the rows the network saw.
    seen = certified_radii(problem.module, problem.inputs, torch.as_tensor(problem.labels)).numpy()
    radii = lipschitz_result(problem, space, certified_radii, margins, 1.0).radii
    moved = np.linalg.norm(exact.numpy() - problem.inputs.double().numpy(), axis=1)
    assert (radii * space.affine.norm <= np.maximum(seen - moved, 0.0) + 1e-12).all()
    assert np.count_nonzero(radii) > 20


def test_a_certificate_gives_the_constant_of_the_margin():
    trained = NetworkClassifier(module__hidden=(4,), max_epochs=5, random_state=0).fit(X, Y)

    def semidefinite(module, inputs, targets):
        return lipschitz_certificate(module, tuple(inputs.shape[1:]), method="semidefinite")

    def margin(module, inputs, targets):
        return semidefinite(module, inputs, targets).margin_constant

    whole = GeneralisationBound(trained, lipschitz=semidefinite).fit(X, Y)
    part = GeneralisationBound(trained, lipschitz=margin).fit(X, Y)
    assert whole.lipschitz_constant_ == part.lipschitz_constant_
    assert whole.bound_ == part.bound_

    target = X[:, 0]
    regressor = NetworkRegressor(module__hidden=(4,), max_epochs=5, random_state=0)
    regressor.fit(X, target)
    settings = {"lipschitz": semidefinite, "loss_bound": 1.0}
    analysis = GeneralisationBound(regressor, **settings).fit(X, target)
    certificate = lipschitz_certificate(regressor.module_, (2,), method="semidefinite")
    assert analysis.lipschitz_constant_ == pytest.approx(certificate.constant)


def test_what_callables_return_is_checked(trained):
    for value, error, message in (
        (-1.0, ValueError, "returned -1.0; a constant must be finite and not negative"),
        (np.nan, ValueError, "returned nan"),
        (np.inf, ValueError, "returned inf"),
        (None, ValueError, "returned None"),
        ("large", TypeError, "returned a str"),
        (np.ones((100, 1)), ValueError, r"returned shape \(100, 1\)"),
    ):
        with pytest.raises(error, match=message):
            GeneralisationBound(trained, lipschitz=lambda *_, value=value: value).fit(X, Y)
    regressor = NetworkRegressor(max_epochs=2, random_state=0).fit(X, X[:, 0])
    with pytest.raises(ValueError, match="bound a classifier only"):
        GeneralisationBound(regressor, lipschitz=lambda *_: np.ones(100), loss_bound=1.0).fit(
            X, X[:, 0]
        )


def test_only_what_the_library_proves_holds(trained):
    def status(function):
        analysis = GeneralisationBound(trained, lipschitz=function).fit(X, Y)
        return analysis.assumptions_["lipschitz_constant"]

    assert status(certified_radii).status == "holds"
    assert status(partial(certified_radii)).status == "holds"
    mine = status(lambda *_: 50.0)
    assert (mine.status, mine.reason) == ("assumed", "<lambda> certifies what it returns")


class TwoLayers(torch.nn.Module):
    def __init__(self, n_outputs=1):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, n_outputs)
        )

    def forward(self, inputs):
        return self.layers(inputs)


def test_a_moved_threshold_is_another_decision():
    rows, classes = X.astype(np.float32), Y.astype(np.float32)
    torch.manual_seed(0)
    settings = {"train_split": None, "verbose": 0, "max_epochs": 20, "lr": 0.3}
    binary = NeuralNetBinaryClassifier(TwoLayers, **settings).fit(rows, classes)
    scorer = make_bound_scorer(lipschitz="certified")
    analysis = GeneralisationBound(binary, lipschitz="certified").fit(rows, classes)
    assert scorer(binary, rows, classes) == -analysis.bound_
    binary.set_params(threshold=0.95)
    assert (binary.predict(rows) != classes).mean() > 0.3
    for compute in (GeneralisationBound(binary).fit, partial(scorer, binary)):
        with pytest.raises(ValueError, match=r"threshold=0\.95"):
            compute(rows, classes)
    search = GridSearchCV(binary.set_params(threshold=0.5), {"threshold": [0.95]}, cv=2)
    with pytest.raises(ValueError, match=r"threshold=0\.95"):
        GeneralisationBound(search).fit(rows, classes)


def test_several_labels_a_row_are_refused_before_training():
    net = NeuralNetClassifier(
        TwoLayers, module__n_outputs=2, criterion=torch.nn.BCEWithLogitsLoss, max_epochs=10**6
    )
    with pytest.raises(ValueError, match=r"y of shape \(100, 2\) has several labels a row"):
        GeneralisationBound(net).fit(X.astype(np.float32), np.stack([Y, 1 - Y], axis=1))


@pytest.mark.parametrize(
    ("confidence", "percent"),
    [(0.95, "95"), (0.999, "99.9"), (1 - 1e-9, "99.9999999"), (np.float32(0.9), "90")],
)
def test_confidence_is_never_rounded_to_certainty(trained, confidence, percent):
    analysis = GeneralisationBound(trained, confidence=confidence).fit(X, Y)
    assert analysis.bound_ < 1
    assert analysis.statement().endswith(f"with confidence {percent} %")


@pytest.mark.parametrize("memory", ["processed", Path("process"), Path("proces")])
def test_folders_of_similar_names_are_taken(memory):
    check_memory(memory)


def test_values_of_the_wrong_kind_are_named_before_training():
    untrained = NetworkClassifier(max_epochs=10**6)
    for settings, error, message in (
        ({"confidence": "0.95"}, ValueError, "confidence='0.95'"),
        ({"lipschitz": np.ones(3)}, ValueError, r"lipschitz=array\(\[1., 1., 1.\]\)"),
        ({"metric": X[:1]}, ValueError, "metric=array"),
        ({"scales": "auto"}, ValueError, "scales='auto'"),
        ({"random_state": -1}, TypeError, "random_state=-1"),
        ({"memory": 5}, TypeError, "memory=5"),
        ({"memory": "proces"}, ValueError, "memory='proces' is next to 'process'"),
        ({"memory": __file__}, ValueError, "is a file; give a folder"),
        ({"n_jobs": 0}, ValueError, "n_jobs=0 must be None or an integer other than 0"),
        ({"n_jobs": "all"}, ValueError, "n_jobs='all' must be"),
        ({"verbose": "yes"}, ValueError, "verbose='yes' must be an integer"),
    ):
        with pytest.raises(error, match=message):
            GeneralisationBound(untrained, **settings).fit(X, Y)
    with pytest.raises(ValueError, match="loss_bound='1'"):
        GeneralisationBound(NetworkRegressor(max_epochs=10**6), loss_bound="1").fit(X, Y)
    with pytest.raises(ValueError, match=r"loss_bound=1.0 is for regressors"):
        make_bound_scorer(loss_bound=1.0)(NetworkClassifier(max_epochs=1).fit(X, Y), X, Y)
