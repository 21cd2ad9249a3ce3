"""The spectrum of every loss against finite differences of its gradient in float64."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn
from torch.nn import functional

from sharpfit import HessianSpectrum, NetworkClassifier, NetworkRegressor

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 4))
LABELS = np.array(["a", "b", "c"])[(X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5)]
CODES = np.unique(LABELS, return_inverse=True)[1]
BINARY = (X[:, 0] + X[:, 2] > 0).astype(float)
REAL = np.stack([X[:, 0] * X[:, 1], np.sin(X[:, 2])], axis=1)
IMAGES = RNG.normal(size=(20, 1, 6, 6))
CLASS_WEIGHT = {"a": 1.0, "b": 3.0, "c": 0.5}


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(48, 3)
        )

    def forward(self, images):
        return self.layers(images)


class Probabilities(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3), nn.Softmax(dim=1))

    def forward(self, rows):
        return self.layers(rows)


def skorch_net(kind, module, dtype=torch.float64, **settings):
    torch.manual_seed(0)
    defaults = {"train_split": None, "verbose": 0, "max_epochs": 3, "lr": 0.1}
    return kind(module.to(dtype), **(defaults | settings))


def network(kind=NetworkClassifier, **settings):
    return kind(
        **{
            "module__hidden": (5,),
            "module__activation": "tanh",
            "max_epochs": 3,
            "random_state": 0,
            **settings,
        }
    )


def weights_of(labels):
    return torch.as_tensor([CLASS_WEIGHT[label] for label in labels])


def weighted_mean(values, weights):
    return (values * weights).sum() / weights.sum()


def cross_entropy(outputs, codes):
    return -functional.log_softmax(outputs, dim=1)[range(len(codes)), codes]


# Name: fitted estimator, rows, targets, and the trained loss written out on the raw outputs.
CASES = {
    "cross-entropy": (
        lambda: network(),
        X,
        LABELS,
        lambda outputs: cross_entropy(outputs, CODES).mean(),
    ),
    "cross-entropy, sum": (
        lambda: network(criterion__reduction="sum", lr=1e-3),
        X,
        LABELS,
        lambda outputs: cross_entropy(outputs, CODES).sum(),
    ),
    "class weights": (
        lambda: network(class_weight=CLASS_WEIGHT),
        X,
        LABELS,
        lambda outputs: weighted_mean(cross_entropy(outputs, CODES), weights_of(LABELS)),
    ),
    "class weights of the criterion": (
        lambda: skorch_net(
            NeuralNetClassifier,
            nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)),
            criterion=nn.CrossEntropyLoss,
            criterion__weight=torch.tensor([1.0, 3.0, 0.5], dtype=torch.float64),
        ),
        X,
        CODES,
        lambda outputs: weighted_mean(cross_entropy(outputs, CODES), weights_of(LABELS)),
    ),
    "mean squared error": (
        lambda: network(NetworkRegressor),
        X,
        REAL,
        lambda outputs: ((outputs - torch.as_tensor(REAL)) ** 2).mean(),
    ),
    "squared error, sum": (
        lambda: network(NetworkRegressor, criterion__reduction="sum", lr=1e-3),
        X,
        REAL,
        lambda outputs: ((outputs - torch.as_tensor(REAL)) ** 2).sum(),
    ),
    "raw net, squared error": (
        lambda: skorch_net(
            NeuralNetRegressor, nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
        ),
        X,
        REAL,
        lambda outputs: ((outputs - torch.as_tensor(REAL)) ** 2).mean(),
    ),
    "one logit": (
        lambda: skorch_net(
            NeuralNetBinaryClassifier, nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))
        ),
        X,
        BINARY,
        lambda outputs: functional.softplus(
            (1 - 2 * torch.as_tensor(BINARY)) * outputs.ravel()
        ).mean(),
    ),
    "probabilities and NLLLoss": (
        lambda: skorch_net(NeuralNetClassifier, Probabilities()),
        X,
        CODES,
        lambda outputs: -torch.log(outputs[range(len(CODES)), CODES]).mean(),
    ),
    "convolutions and batch norm": (
        lambda: skorch_net(NeuralNetClassifier, Convolutional(), criterion=nn.CrossEntropyLoss),
        IMAGES,
        CODES[:20],
        lambda outputs: cross_entropy(outputs, CODES[:20]).mean(),
    ),
    "pipeline": (
        lambda: make_pipeline(StandardScaler(), network()),
        X,
        LABELS,
        lambda outputs: cross_entropy(outputs, CODES).mean(),
    ),
}


def inner_network(estimator):
    return estimator[-1] if hasattr(estimator, "steps") else estimator


def rows_of(estimator, rows):
    return estimator[:-1].transform(rows) if hasattr(estimator, "steps") else rows


def gradient_at(module, vector, rows, loss):
    torch.nn.utils.vector_to_parameters(vector, module.parameters())
    module.zero_grad()
    loss(module(rows)).backward()
    return torch.cat([parameter.grad.ravel() for parameter in module.parameters()])


def dense_hessian(module, rows, loss, step=1e-5):
    """Central differences of first derivatives, with no second derivative of autograd."""
    module = copy.deepcopy(module).double().eval()
    centre = torch.nn.utils.parameters_to_vector(module.parameters()).detach()
    columns = []
    for unit in torch.eye(len(centre), dtype=torch.float64) * step:
        above = gradient_at(module, centre + unit, rows, loss)
        below = gradient_at(module, centre - unit, rows, loss)
        columns.append((above - below) / (2 * step))
    matrix = torch.stack(columns)
    return ((matrix + matrix.T) / 2).numpy()


def dense_gauss_newton(module, rows, loss, step=1e-5):
    """Curvature of the loss in the outputs between finite-difference Jacobians."""
    module = copy.deepcopy(module).double().eval()
    centre = torch.nn.utils.parameters_to_vector(module.parameters()).detach()

    def outputs_at(vector):
        torch.nn.utils.vector_to_parameters(vector, module.parameters())
        with torch.no_grad():
            return module(rows)

    jacobian = torch.stack(
        [
            ((outputs_at(centre + unit) - outputs_at(centre - unit)) / (2 * step)).ravel()
            for unit in torch.eye(len(centre), dtype=torch.float64) * step
        ],
        dim=1,
    )
    outputs = outputs_at(centre)
    middle = torch.autograd.functional.hessian(
        lambda flat: loss(flat.reshape(outputs.shape)), outputs.ravel()
    )
    return (jacobian.T @ middle @ jacobian).numpy()


@pytest.fixture(scope="module", params=CASES)
def case(request):
    build, rows, targets, loss = CASES[request.param]
    estimator = build().fit(rows, targets)
    tensor = torch.as_tensor(rows_of(estimator, rows))
    return estimator, rows, targets, tensor, loss


@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
def test_hessian_of_every_loss(case, which):
    estimator, rows, targets, tensor, loss = case
    truth = np.linalg.eigvalsh(dense_hessian(inner_network(estimator).module_, tensor, loss))
    spectrum = HessianSpectrum(
        estimator, which=which, n_eigenvalues=4, tol=1e-6, dtype="float64", random_state=0
    ).fit(rows, targets)
    order = {"largest": -truth, "smallest": truth, "magnitude": -np.abs(truth)}[which]
    expected, scale = truth[np.argsort(order)][:4], np.abs(truth).max()
    np.testing.assert_allclose(spectrum.eigenvalues_, expected, rtol=1e-5, atol=1e-6 * scale)
    assert spectrum.sharpness_ == pytest.approx(truth.max(), rel=1e-5)
    assert spectrum.converged_.all()
    assert (spectrum.error_bounds_ <= spectrum.residual_norms_ + 1e-12 * scale).all()
    assert not spectrum.refitted_


def test_eigenvectors_and_residuals(case):
    estimator, rows, targets, tensor, loss = case
    matrix = dense_hessian(inner_network(estimator).module_, tensor, loss)
    spectrum = HessianSpectrum(
        estimator, n_eigenvalues=3, dtype=torch.float64, tol=1e-2, random_state=0
    ).fit(rows, targets)
    vectors, values = spectrum.eigenvectors_, spectrum.eigenvalues_
    assert vectors.shape == (len(matrix), 3)
    residuals = np.linalg.norm(matrix @ vectors - vectors * values, axis=0)
    scale = np.abs(matrix).max()
    np.testing.assert_allclose(spectrum.residual_norms_, residuals, atol=1e-6 * scale)
    names = [name for name, _ in inner_network(estimator).module_.named_parameters()]
    assert [name.split(".")[-1] for name in spectrum.parameter_names_] == [
        name.split(".")[-1] for name in names
    ]


def test_gauss_newton_and_share():
    build, rows, targets, loss = CASES["cross-entropy"]
    estimator = build().fit(rows, targets)
    module, tensor = estimator.module_, torch.as_tensor(rows)
    gauss_newton = dense_gauss_newton(module, tensor, loss)
    truth = np.linalg.eigvalsh(gauss_newton)[::-1]
    spectrum = HessianSpectrum(
        estimator, matrix="gauss_newton", n_eigenvalues=5, tol=1e-6, dtype="float64"
    ).fit(rows, targets)
    np.testing.assert_allclose(spectrum.eigenvalues_, truth[:5], rtol=1e-5)
    assert spectrum.gauss_newton_share_ == 1.0
    hessian = dense_hessian(module, tensor, loss)
    values, vectors = np.linalg.eigh(hessian)
    share = vectors[:, -1] @ gauss_newton @ vectors[:, -1] / values[-1]
    found = HessianSpectrum(estimator, n_eigenvalues=1, tol=1e-8, dtype="float64")
    assert found.fit(rows, targets).gauss_newton_share_ == pytest.approx(share, rel=1e-4)


def test_trace_and_density():
    build, rows, targets, loss = CASES["cross-entropy"]
    estimator = build().fit(rows, targets)
    truth = np.linalg.eigvalsh(dense_hessian(estimator.module_, torch.as_tensor(rows), loss))
    spectrum = HessianSpectrum(
        estimator, n_eigenvalues=2, trace=True, density=True, dtype="float64", random_state=0
    ).fit(rows, targets)
    assert abs(spectrum.trace_ - truth.sum()) <= 4 * spectrum.trace_std_error_ + 1e-5
    below = np.sum(truth < 0.01)
    count, error = spectrum.density_.count_below(0.01)
    assert abs(count - below) <= 4 * error + 0.5
    plain = HessianSpectrum(estimator, n_eigenvalues=2).fit(rows, targets)
    assert plain.trace_ is plain.trace_std_error_ is plain.density_ is None


def test_selected_parameters():
    build, rows, targets, loss = CASES["cross-entropy"]
    estimator = build().fit(rows, targets)
    matrix = dense_hessian(estimator.module_, torch.as_tensor(rows), loss)
    last = matrix[25:, 25:]  # behind the first layer's 20 weights and 5 biases
    truth = np.linalg.eigvalsh(last)[::-1]
    for parameters in (
        r"^2\.",
        ["2.weight", "2.bias"],
        lambda name, parameter: name.startswith("2."),
    ):
        spectrum = HessianSpectrum(
            estimator, n_eigenvalues=3, parameters=parameters, tol=1e-6, dtype="float64"
        ).fit(rows, targets)
        np.testing.assert_allclose(spectrum.eigenvalues_, truth[:3], rtol=1e-5)
        assert spectrum.parameter_names_ == ["2.weight", "2.bias"]


def test_linear_regression_has_a_closed_form():
    estimator = NetworkRegressor(module__hidden=(), max_epochs=2, random_state=0, lr=0.01)
    estimator.fit(X, REAL[:, 0])
    design = np.column_stack([X, np.ones(len(X))])
    truth = np.linalg.eigvalsh(2 * design.T @ design / len(X))[::-1]
    spectrum = HessianSpectrum(estimator, n_eigenvalues=10, tol=1e-8).fit(X, REAL[:, 0])
    np.testing.assert_allclose(spectrum.eigenvalues_, truth, rtol=1e-7)
    assert spectrum.gauss_newton_share_ == pytest.approx(1.0)


def test_score_is_minus_the_largest_eigenvalue_on_other_rows():
    build, rows, targets, _ = CASES["cross-entropy"]
    estimator = build().fit(rows, targets)
    spectrum = HessianSpectrum(estimator, which="smallest", tol=1e-6, dtype="float64")
    spectrum.fit(rows, targets)
    some = slice(0, 12)
    codes = CODES[some]
    matrix = dense_hessian(
        estimator.module_,
        torch.as_tensor(rows[some]),
        lambda outputs: cross_entropy(outputs, codes).mean(),
    )
    expected = -np.linalg.eigvalsh(matrix).max()
    assert spectrum.score(rows[some], targets[some]) == pytest.approx(expected, rel=1e-5)
    assert spectrum.score(rows, targets) == pytest.approx(-spectrum.sharpness_, rel=1e-6)


def test_sample_weight_repeats_rows():
    build, rows, targets, _ = CASES["cross-entropy"]
    estimator = build().fit(rows, targets)
    repeats = RNG.integers(1, 4, size=len(rows))
    settings = {"n_eigenvalues": 3, "tol": 1e-8, "dtype": "float64", "random_state": 0}
    weighted = HessianSpectrum(estimator, **settings).fit(rows, targets, sample_weight=repeats)
    repeated = HessianSpectrum(estimator, **settings).fit(
        np.repeat(rows, repeats, axis=0), np.repeat(targets, repeats)
    )
    np.testing.assert_allclose(weighted.eigenvalues_, repeated.eigenvalues_, rtol=1e-7)
    assert weighted.score(rows, targets, sample_weight=repeats) == pytest.approx(
        -weighted.sharpness_
    )


def test_batches_and_row_order_do_not_matter():
    build, rows, targets, _ = CASES["class weights"]
    estimator = build().fit(rows, targets)
    settings = {"n_eigenvalues": 3, "tol": 1e-8, "dtype": "float64", "random_state": 0}
    whole = HessianSpectrum(estimator, **settings).fit(rows, targets)
    order = RNG.permutation(len(rows))
    parts = HessianSpectrum(estimator, batch_size=7, **settings).fit(rows[order], targets[order])
    np.testing.assert_allclose(parts.eigenvalues_, whole.eigenvalues_, rtol=1e-8)


def test_same_seed_same_result_and_random_states():
    build, rows, targets, _ = CASES["cross-entropy"]
    estimator = build().fit(rows, targets)
    first = HessianSpectrum(estimator, random_state=1).fit(rows, targets)
    second = HessianSpectrum(estimator, random_state=1).fit(rows, targets)
    np.testing.assert_array_equal(first.eigenvectors_, second.eigenvectors_)
    state = np.random.RandomState(0)
    HessianSpectrum(estimator, random_state=state).fit(rows, targets)
    assert state.randint(10**6) != np.random.RandomState(0).randint(10**6)


def test_results_that_miss_the_tolerance_are_reported():
    build, rows, targets, _ = CASES["cross-entropy"]
    estimator = build().fit(rows, targets)
    spectrum = HessianSpectrum(estimator, n_eigenvalues=5, max_products=5, random_state=0)
    with pytest.warns(ConvergenceWarning, match="are not accurate to tol=0.001 after 5 products"):
        spectrum.fit(rows, targets)
    assert spectrum.n_products_ == 5
    assert not spectrum.converged_.all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"matrix": "fisher"}, "matrix='fisher' must be one of"),
        ({"which": "top"}, "which='top' must be one of"),
        ({"n_eigenvalues": 0}, "n_eigenvalues=0 must be a positive int"),
        ({"n_eigenvalues": 1.5}, "n_eigenvalues=1.5 must be a positive int"),
        ({"tol": 2.0}, "tol=2.0 must be a number from 0 to below 1"),
        ({"max_products": 3}, "max_products=3 must be an int of at least n_eigenvalues=10"),
        ({"tol": "a"}, "tol='a' must be a number"),
        ({"max_products": 20.5}, "max_products=20.5 must be an int"),
        ({"trace": "yes"}, "trace='yes' must be True or False"),
        ({"batch_size": "full"}, "batch_size='full' must be a positive int or"),
        ({"memory_budget": "2GB"}, r"memory_budget='2GB' must be .* such as 2\*\*31"),
        ({"dtype": "float16"}, "dtype='float16' is too coarse for curvature"),
        ({"parameters": "(0"}, r"parameters='\(0' is no regular expression"),
        ({"dtype": "int64"}, "dtype='int64' must be a floating torch dtype"),
        ({"dtype": "double precision"}, "dtype='double precision' must be"),
        ({"prefit": "yes"}, "prefit must be"),
        ({"parameters": "no such layer"}, "no such layer"),
    ],
)
def test_bad_settings_are_named_before_any_training(settings, message):
    untrained = (
        network() if settings == {"parameters": "no such layer"} else network(max_epochs=10**9)
    )
    with pytest.raises(ValueError, match=message):
        HessianSpectrum(untrained, **settings).fit(X, LABELS)


def test_missing_targets_are_named():
    trained = network().fit(X, LABELS)
    with pytest.raises(ValueError, match="y is None"):
        HessianSpectrum(trained).fit(X, None)


class PenalisedClassifier(NeuralNetClassifier):
    def get_loss(self, y_pred, y_true, *args, **kwargs):
        loss = super().get_loss(y_pred, y_true, *args, **kwargs)
        return loss + 0.5 * sum(p.square().sum() for p in self.module_.parameters())


def test_overridden_loss_counts_its_penalty():
    def build(kind):
        layers = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
        return skorch_net(kind, layers, criterion=nn.CrossEntropyLoss).fit(X, CODES)

    net = build(PenalisedClassifier)
    matrix = dense_hessian(
        net.module_, torch.as_tensor(X), lambda outputs: cross_entropy(outputs, CODES).mean()
    )
    truth = np.linalg.eigvalsh(matrix)[::-1] + 1.0
    spectrum = HessianSpectrum(net, n_eigenvalues=4, tol=1e-6, trace=True, random_state=0)
    spectrum.fit(X, CODES)
    np.testing.assert_allclose(spectrum.eigenvalues_, truth[:4], rtol=1e-5)
    assert abs(spectrum.trace_ - truth.sum()) <= 4 * spectrum.trace_std_error_ + 1e-5
    assert np.isnan(spectrum.gauss_newton_share_)
    assert spectrum.score(X, CODES) == pytest.approx(-truth[0], rel=1e-5)
    with pytest.raises(ValueError, match="PenalisedClassifier overrides get_loss"):
        HessianSpectrum(net, matrix="gauss_newton").fit(X, CODES)
    with pytest.raises(ValueError, match="sample_weight has no place"):
        HessianSpectrum(net).fit(X, CODES, sample_weight=np.ones(len(X)))


@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
def test_attribution_over_tensors_is_the_split_of_the_quadratic_form(matrix):
    build, rows, targets, loss = CASES["cross-entropy"]
    estimator = build().fit(rows, targets)
    dense = {"hessian": dense_hessian, "gauss_newton": dense_gauss_newton}[matrix]
    truth = dense(estimator.module_, torch.as_tensor(rows), loss)
    values, vectors = np.linalg.eigh(truth)
    spectrum = HessianSpectrum(
        estimator, matrix=matrix, n_eigenvalues=3, tol=1e-2, dtype="float64", random_state=0
    ).fit(rows, targets)
    table = spectrum.attribution(1)
    assert list(table["parameter"]) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert table["share"].sum() == pytest.approx(1.0)
    assert table["contribution"].sum() == pytest.approx(spectrum.eigenvalues_[1])
    # v . (A v) tensor by tensor, from the exact eigenvector and from the numerical one.
    bounds = np.cumsum([20, 5, 15])
    exact = [part.sum() for part in np.split(values[-2] * vectors[:, -2] ** 2, bounds)]
    np.testing.assert_allclose(table["contribution"], exact, rtol=0.05, atol=1e-3)
    vector = spectrum.eigenvectors_[:, 1]
    form = [part.sum() for part in np.split(vector * (truth @ vector), bounds)]
    assert (np.abs(table["contribution"] - form) <= table["error"] + 1e-7).all()
    pair = spectrum.attribution([0, 1])
    np.testing.assert_allclose(
        pair["share"], (table["share"] + spectrum.attribution()["share"]) / 2
    )
    for index in (3, -1, 0.5, "first", []):
        with pytest.raises(ValueError, match=r"index=.* must lie between 0 and 2"):
            spectrum.attribution(index)


def test_attribution_over_layers_samples_and_outputs_sums_to_the_eigenvalue():
    build, rows, targets, loss = CASES["cross-entropy"]
    estimator = build().fit(rows, targets)
    spectrum = HessianSpectrum(
        estimator, n_eigenvalues=2, tol=1e-6, dtype="float64", random_state=0
    ).fit(rows, targets)
    top = spectrum.eigenvalues_[0]
    layers = spectrum.attribution(by="layer")
    assert list(layers["layer"]) == ["0", "2"]
    assert layers["contribution"].sum() == pytest.approx(top)
    samples = spectrum.attribution(by="sample")
    assert samples["contribution"].sum() == pytest.approx(top, rel=1e-5)
    # One sample's part is the curvature of its own loss along the eigenvector.
    vector, codes = spectrum.eigenvectors_[:, 0], CODES[3:4]
    own = dense_hessian(
        estimator.module_,
        torch.as_tensor(rows[3:4]),
        lambda outputs: cross_entropy(outputs, codes).sum() / len(rows),
    )
    assert samples["contribution"][3] == pytest.approx(vector @ own @ vector, abs=1e-6)
    outputs = spectrum.attribution(by="output")
    assert list(outputs["output"]) == ["a", "b", "c"]
    assert outputs["gauss_newton"].sum() == pytest.approx(
        top * spectrum.gauss_newton_share_, rel=1e-5
    )
    assert (outputs["gauss_newton"] >= 0).all()
    factors = spectrum.attribution(by="factor")
    assert list(factors["layer"]) == ["0", "2"]
    gauss_newton = dense_gauss_newton(estimator.module_, torch.as_tensor(rows), loss)
    traces = [np.trace(gauss_newton[:25, :25]), np.trace(gauss_newton[25:, 25:])]
    np.testing.assert_allclose(factors["trace"], traces, rtol=1e-5)
    assert factors["applies"][0]
    assert factors["largest_ratio"][0] <= 1 + 1e-6


def test_attribution_of_a_loaded_analysis_asks_for_the_rows():
    build, rows, targets, _ = CASES["cross-entropy"]
    spectrum = HessianSpectrum(build().fit(rows, targets), n_eigenvalues=1).fit(rows, targets)
    loaded = pickle.loads(pickle.dumps(spectrum))
    assert loaded.attribution()["share"].sum() == pytest.approx(1.0)
    with pytest.raises(ValueError, match="pass X and y"):
        loaded.attribution(by="sample")
    table = loaded.attribution(by="sample", X=rows, y=targets)
    np.testing.assert_allclose(
        table["contribution"], spectrum.attribution(by="sample")["contribution"]
    )
    with pytest.raises(ValueError, match="by='neuron' must be one of"):
        spectrum.attribution(by="neuron")
