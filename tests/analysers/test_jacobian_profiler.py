"""JacobianProfiler: its numbers, its spaces, and its life among scikit-learn's tools."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import make_classification
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    PowerTransformer,
    RobustScaler,
    StandardScaler,
)
from skorch import NeuralNetClassifier
from torch import nn

from sharpfit import JacobianProfiler, NetworkClassifier, NetworkRegressor
from sharpfit.bridge import as_problem
from sharpfit.jacobian import empirical_margin_constant, jacobian_norms, slopes

# The networks are trained briefly on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:The training loss")

COLUMNS = ["spectral_norm", "frobenius_norm", "margin_gradient_norm", "normalised_margin"]


@pytest.fixture(scope="module")
def data():
    X, y = make_classification(
        120, n_features=5, n_informative=4, n_redundant=0, n_classes=3, random_state=0
    )
    return 3 * X + 10, np.array(["a", "b", "c"])[y]


@pytest.fixture(scope="module")
def pipeline(data):
    X, y = data
    net = NetworkClassifier(module__hidden=(8,), max_epochs=20, random_state=0)
    return make_pipeline(StandardScaler(), net).fit(X, y)


def _dense(function, rows):
    jacobians = [torch.autograd.functional.jacobian(function, row[None])[0, :, 0] for row in rows]
    return torch.stack(jacobians).numpy()


def test_summary_matches_the_functions_underneath(pipeline, data):
    X, y = data
    profiler = JacobianProfiler(pipeline).fit(X, y)
    problem = as_problem(pipeline, X, y)
    dense = _dense(problem.module, problem.inputs)
    norms = np.linalg.norm(dense, 2, axis=(1, 2))
    np.testing.assert_allclose(profiler.norms_, norms, rtol=1e-4)
    assert profiler.max_norm_ == pytest.approx(norms.max(), rel=1e-4)
    assert profiler.mean_norm_ == pytest.approx(norms.mean(), rel=1e-4)
    assert profiler.quantiles_[2] == pytest.approx(np.median(norms), rel=1e-4)
    assert profiler.norm_error_ == 0.0
    logits = problem.module(problem.inputs).detach().numpy()
    inputs = problem.inputs.numpy()
    assert profiler.slope_bound_ == pytest.approx(slopes(logits, inputs).largest)
    margins = jacobian_norms(
        problem.module, problem.inputs, targets=torch.as_tensor(problem.labels), margins=True
    )
    right = problem.labels == logits.argmax(axis=1)
    assert 0 < right.sum() < len(right)
    gradients = np.where(right, margins.largest_margin_gradient, margins.margin_gradient)
    constant = empirical_margin_constant(margins.margin, problem.labels, inputs, gradients)
    assert profiler.margin_constant_ == pytest.approx(float(constant))
    assert profiler.margin_contradicted_ == constant.contradicts_gradients
    weights = [p for p in problem.module.parameters() if p.ndim == 2]
    for name, weight in zip(("0", "2"), weights, strict=True):
        norm = torch.linalg.matrix_norm(weight, 2).item()
        assert profiler.layer_norms_[name] == pytest.approx(norm, rel=1e-5)
    assert 0 < profiler.alignment_ <= 1
    assert profiler.local_variation_ >= 1
    assert 0 <= profiler.loss_slope_bound_ <= profiler.slope_bound_
    assert profiler.score(X) == -profiler.max_norm_
    assert not profiler.refitted_
    assert "analysed as given" in repr(profiler)


def test_columns_of_transform(pipeline, data):
    X, y = data
    features = JacobianProfiler(pipeline).fit(X, y).transform(X)
    problem = as_problem(pipeline, X)
    dense = _dense(problem.module, problem.inputs)
    logits = problem.module(problem.inputs).detach().numpy()
    order = np.argsort(logits, axis=1)
    rows = np.arange(len(X))
    gradient = np.linalg.norm(dense[rows, order[:, -1]] - dense[rows, order[:, -2]], axis=1)
    margin = logits[rows, order[:, -1]] - logits[rows, order[:, -2]]
    np.testing.assert_allclose(features[:, 0], np.linalg.norm(dense, 2, axis=(1, 2)), rtol=1e-4)
    np.testing.assert_allclose(features[:, 1], np.linalg.norm(dense, axis=(1, 2)), rtol=1e-4)
    np.testing.assert_allclose(features[:, 2], gradient, rtol=1e-4)
    alive = gradient > 1e-3 * gradient.max()
    assert alive.sum() > 100
    np.testing.assert_allclose((margin / features[:, 3])[alive], gradient[alive], rtol=1e-3)
    assert np.isfinite(features).all()


def test_columns_do_not_depend_on_output_nor_on_targets(pipeline, data):
    X, y = data
    reference = JacobianProfiler(pipeline).fit(X).transform(X)
    for output in ("probabilities", "margin", "loss"):
        profiler = JacobianProfiler(pipeline, output=output).fit(X, y)
        np.testing.assert_array_equal(profiler.transform(X), reference)
        assert list(profiler.get_feature_names_out()) == COLUMNS


@pytest.mark.parametrize("output", ["probabilities", "margin", "loss"])
def test_score_is_minus_the_largest_norm_of_output(pipeline, data, output):
    X, y = data
    profiler = JacobianProfiler(pipeline, output=output).fit(X, y)
    problem = as_problem(pipeline, X, y)
    settings = {"loss": problem.loss, "targets": problem.targets} if output == "loss" else {}
    norms = jacobian_norms(problem.module, problem.inputs, output=output, **settings)
    assert profiler.score(X, y) == -norms.spectral.max() == -profiler.max_norm_


def test_slopes_are_those_of_output(pipeline, data):
    X, y = data
    problem = as_problem(pipeline, X)
    logits, inputs = problem.module(problem.inputs).detach(), problem.inputs.numpy()
    top = logits.sort(dim=1).values
    values = {
        "probabilities": logits.softmax(dim=1),
        "margin": top[:, -1] - top[:, -2],
        "loss": logits,
    }
    for output, function in values.items():
        profiler = JacobianProfiler(pipeline, output=output).fit(X, y)
        assert profiler.slope_bound_ == pytest.approx(slopes(function, inputs).largest, rel=1e-5)


def test_a_single_row_is_not_a_table(pipeline, data):
    profiler = JacobianProfiler(pipeline).fit(*data)
    with pytest.raises(ValueError, match=r"got shape \(5,\); make an array of one row"):
        profiler.transform(data[0][0])


def test_what_needs_targets_exists_only_with_them(pipeline, data):
    X, y = data
    needs_y = (
        "margin_constant_",
        "margin_contradicted_",
        "n_conflicting_pairs_",
        "loss_slope_bound_",
    )
    profiler = JacobianProfiler(pipeline).fit(X, y)
    assert all(hasattr(profiler, name) for name in needs_y)
    profiler.fit(X)
    assert not any(hasattr(profiler, name) for name in needs_y)


@pytest.mark.parametrize(
    "steps",
    [
        (StandardScaler(),),
        (MinMaxScaler(), PCA(4, whiten=True)),
        (RobustScaler(), MaxAbsScaler()),
    ],
    ids=str,
)
def test_input_space_is_that_of_the_raw_rows(data, steps):
    X, y = data
    net = NetworkClassifier(module__hidden=(8,), max_epochs=5, random_state=0)
    pipe = make_pipeline(*steps, net).fit(X, y)
    profiler = JacobianProfiler(pipe, space="input", dtype=torch.float64).fit(X, y)
    module = as_problem(pipe, X, dtype=torch.float64).module
    step = 1e-5 * np.eye(5)

    def logits(rows):
        return module(torch.as_tensor(pipe[:-1].transform(rows))).detach().numpy()

    for row in range(0, 100, 20):
        # Central differences through the real preprocessing, in float64.
        difference = logits(X[row] + step) - logits(X[row] - step)
        norm = np.linalg.norm(difference / 2e-5, 2)
        assert profiler.norms_[row] == pytest.approx(norm, rel=1e-4)
    raw = pd.DataFrame(X).to_numpy()
    assert profiler.slope_bound_ == pytest.approx(slopes(logits(X), raw).largest, rel=1e-4)


def test_other_preprocessing_is_refused_by_name(data):
    X, y = data
    pipe = make_pipeline(PowerTransformer(), NetworkClassifier(max_epochs=1, random_state=0))
    pipe.fit(X, y)
    with pytest.raises(ValueError, match="PowerTransformer is not known to be affine"):
        JacobianProfiler(pipe, space="input").fit(X)
    JacobianProfiler(pipe).fit(X)


def test_untrained_estimators_are_cloned_and_fitted(data):
    X, y = data
    net = NetworkClassifier(max_epochs=2, random_state=0)
    profiler = JacobianProfiler(net).fit(X, y)
    assert profiler.refitted_
    assert profiler.estimator_ is not net
    assert not hasattr(net, "module_")
    assert "trained a clone" in repr(profiler)
    with pytest.raises(NotFittedError):
        JacobianProfiler(net, prefit=True).fit(X, y)
    with pytest.raises(ValueError, match="y is None"):
        JacobianProfiler(net).fit(X)


def test_trained_network_is_untouched(pipeline, data):
    X, y = data
    network = pipeline[-1]
    before = {name: value.clone() for name, value in network.module_.state_dict().items()}
    gradients = [p.grad.clone() for p in network.module_.parameters()]
    mode, numpy_state, torch_state = (
        network.module_.training,
        np.random.mtrand._rand.get_state()[1].copy(),
        torch.get_rng_state(),
    )
    kept = X.copy()
    profiler = JacobianProfiler(pipeline).fit(X, y)
    profiler.transform(X)
    profiler.attribution(X)
    assert network.module_.training == mode
    for name, value in network.module_.state_dict().items():
        assert torch.equal(value, before[name])
    for parameter, gradient in zip(network.module_.parameters(), gradients, strict=True):
        assert torch.equal(parameter.grad, gradient)
    np.testing.assert_array_equal(np.random.mtrand._rand.get_state()[1], numpy_state)
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(X, kept)


def test_feature_step_before_another_estimator(pipeline, data):
    X, y = data
    wrong = pipeline.predict(X) != y
    step = JacobianProfiler(FrozenEstimator(pipeline), use_targets=False)
    detector = make_pipeline(step, StandardScaler(), LogisticRegression()).fit(X, wrong)
    assert detector.predict_proba(X).shape == (120, 2)
    assert not detector[0].refitted_
    scores = cross_val_score(detector, X, wrong, cv=2, scoring="neg_log_loss")
    assert np.isfinite(scores).all()
    assert not hasattr(clone(step), "estimator_")
    assert not hasattr(detector[0], "margin_constant_")
    with pytest.raises(ValueError, match="y contains"):
        JacobianProfiler(FrozenEstimator(pipeline)).fit(X, wrong)


def test_set_output_names_the_columns(pipeline, data):
    X, _ = data
    profiler = JacobianProfiler(pipeline).set_output(transform="pandas").fit(X)
    frame = profiler.transform(pd.DataFrame(X, index=np.arange(7, 127)))
    assert list(frame.columns) == COLUMNS
    assert frame.index[0] == 7
    polars = pytest.importorskip("polars")
    frame = profiler.set_output(transform="polars").transform(X)
    assert isinstance(frame, polars.DataFrame)
    assert frame.columns == COLUMNS


def test_feature_names_are_remembered_and_checked(data):
    X, y = data
    frame = pd.DataFrame(X, columns=list("abcde"))
    profiler = JacobianProfiler(NetworkClassifier(max_epochs=1, random_state=0)).fit(frame, y)
    assert list(profiler.feature_names_in_) == list("abcde")
    with pytest.raises(ValueError, match="feature names"):
        profiler.transform(frame[list("edcba")])
    with pytest.raises(ValueError, match="feature names"):
        profiler.transform(frame[list("abcd")])
    unnamed = JacobianProfiler(profiler.estimator_, prefit=True)
    with pytest.warns(UserWarning, match="valid feature names"):
        unnamed.fit(X)
    with pytest.raises(ValueError, match="4 features"):
        unnamed.transform(X[:, :4])


def test_regressors_have_two_columns_and_an_attribution(data):
    X, _ = data
    target = X[:, 0] * X[:, 1]
    net = NetworkRegressor(module__hidden=(8,), max_epochs=5, random_state=0)
    model = TransformedTargetRegressor(
        make_pipeline(StandardScaler(), net), transformer=StandardScaler()
    ).fit(X, target)
    profiler = JacobianProfiler(model).fit(X, target)
    assert list(profiler.get_feature_names_out()) == COLUMNS[:2]
    features = profiler.transform(X)
    assert features.shape == (120, 2)
    np.testing.assert_allclose(features[:, 0], features[:, 1], rtol=1e-6)
    attribution = profiler.attribution(X)
    np.testing.assert_allclose(np.linalg.norm(attribution, axis=1), features[:, 0], rtol=1e-5)
    assert not hasattr(profiler, "margin_constant_")
    assert profiler.loss_slope_bound_ <= profiler.slope_bound_ * (1 + 1e-6)
    for output in ("probabilities", "margin"):
        with pytest.raises(ValueError, match="is for classifiers"):
            JacobianProfiler(model, output=output).fit(X)


def test_attribution_predicts_small_changes_of_the_margin(pipeline, data):
    X, y = data
    profiler = JacobianProfiler(pipeline, space="input").fit(X, y)
    gradients = profiler.attribution(X)
    assert gradients.shape == X.shape
    module = as_problem(pipeline, X).module
    logits = module(as_problem(pipeline, X).inputs).detach().numpy()
    order = np.argsort(logits, axis=1)
    step = 1e-2 * np.eye(5)[2]
    moved = module(as_problem(pipeline, X + step).inputs).detach().numpy()
    rows = np.arange(len(X))
    margin = [z[rows, order[:, -1]] - z[rows, order[:, -2]] for z in (logits, moved)]
    change = (margin[1] - margin[0]) / 1e-2
    assert np.median(np.abs(change - gradients[:, 2])) < 1e-3 * np.abs(gradients).max()


def test_images_and_plain_skorch_nets():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 1, 6, 6)).astype(np.float32)
    y = rng.integers(2, size=30)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 2))
    net = NeuralNetClassifier(
        module, criterion=nn.CrossEntropyLoss, max_epochs=1, train_split=None, verbose=0
    ).fit(X, y)
    profiler = JacobianProfiler(net).fit(X, y)
    assert profiler.n_features_in_ == 36
    assert profiler.transform(X).shape == (30, 4)
    assert profiler.attribution(X).shape == X.shape
    with pytest.raises(ValueError, match="16 features a row"):
        profiler.transform(X[:, :, :4, :4])


def test_methods_for_expensive_quantities(pipeline, data):
    X, y = data
    profiler = JacobianProfiler(pipeline).fit(X, y)
    covered = profiler.coverage(X)
    assert len(covered.distances) == 60
    assert np.diff(covered.curve()[1]).min() >= 0
    with pytest.raises(ValueError, match="3 features"):
        profiler.coverage(X[:, :3])
    variation = profiler.variation(X, n_neighbours=2)
    assert variation.excess >= profiler.local_variation_ * 0.5
    np.testing.assert_allclose(variation.at_samples, profiler.norms_, rtol=1e-6)
    pytest.importorskip("skdim")
    assert 1 < float(profiler.intrinsic_dimension(X, n_subsamples=5)) < 8


def test_duplicates_with_different_labels_are_counted(pipeline, data):
    X, y = data
    twice = np.vstack([X, X[:3]])
    labels = np.append(y, ["a", "b", "c"])
    profiler = JacobianProfiler(pipeline).fit(twice, labels)
    assert profiler.n_duplicate_pairs_ == 3
    assert profiler.n_conflicting_pairs_ == int((y[:3] != ["a", "b", "c"]).sum())


def test_constant_network_gives_finite_features(data):
    X, y = data
    net = NetworkClassifier(max_epochs=1, random_state=0).fit(X, y)
    with torch.no_grad():
        for parameter in net.module_.parameters():
            parameter.zero_()
    profiler = JacobianProfiler(net).fit(X, y)
    assert np.isfinite(profiler.transform(X)).all()
    assert profiler.local_variation_ == 1.0
    identical = JacobianProfiler(net).fit(np.ones((4, 5)), y[:4])
    assert identical.slope_bound_ == 0.0


def test_round_trips_and_repeatability(pipeline, data):
    X, y = data
    profiler = JacobianProfiler(pipeline, random_state=3).fit(X, y)
    again = pickle.loads(pickle.dumps(profiler))
    np.testing.assert_array_equal(again.transform(X), profiler.transform(X))
    copied = clone(profiler)
    assert copied.get_params()["random_state"] == 3
    repeated = JacobianProfiler(pipeline, random_state=3).fit(X, y)
    assert repeated.local_variation_ == profiler.local_variation_


def test_fitted_attributes_are_plain_numbers(pipeline, data):
    X, y = data
    profiler = JacobianProfiler(pipeline).fit(X, y)
    allowed = (float, int, bool, str, dict, np.ndarray, type(None), type(pipeline))
    for name, value in vars(profiler).items():
        if name.endswith("_"):
            assert isinstance(value, allowed), name
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "largest norm" in repr(profiler)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output": "logit"}, "output must be one of"),
        ({"space": "raw"}, "space must be"),
        ({"output": "loss"}, "pass y"),
        ({"output": "loss", "use_targets": False}, "use_targets=True"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"tol": 0.0}, "tol must be"),
    ],
)
def test_bad_parameters_are_named(pipeline, data, arguments, message):
    X, _ = data
    with pytest.raises(ValueError, match=message):
        JacobianProfiler(pipeline, **arguments).fit(X)


def test_use_before_fit_is_refused(pipeline, data):
    X, _ = data
    profiler = JacobianProfiler(pipeline)
    for method in (profiler.transform, profiler.score, profiler.attribution, profiler.coverage):
        with pytest.raises(NotFittedError):
            method(X)
