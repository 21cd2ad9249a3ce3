"""The spectrum of every loss against finite differences of its gradient in float64."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from skorch import NeuralNetClassifier
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sharpfit import HessianSpectrum, NetworkRegressor
from tests.analysers.spectrum_cases import (
    CASES,
    CODES,
    LABELS,
    REAL,
    RNG,
    X,
    cross_entropy,
    dense_gauss_newton,
    dense_hessian,
    inner_network,
    network,
    rows_of,
    skorch_net,
)


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
    assert 0 <= spectrum.miss_probability_ <= 0.05
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
        ({"n_jobs": 0}, "n_jobs=0 must be an int other than 0"),
        ({"n_jobs": "all"}, "n_jobs='all' must be an int"),
        ({"verbose": "yes"}, "verbose='yes' must be an int"),
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


def test_streams_are_sent_to_the_function_that_takes_them():
    trained = network().fit(X, LABELS)
    dataset = TensorDataset(torch.as_tensor(X), torch.as_tensor(CODES))
    for source in (dataset, DataLoader(dataset)):
        with pytest.raises(TypeError, match=r"sharpfit\.curvature\.hessian_spectrum"):
            HessianSpectrum(trained).fit(source, None)


class Tokens(nn.Module):
    """Attention over embedded tokens, which has no closed forms and no real inputs."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.encoder = nn.TransformerEncoderLayer(4, 2, 3, dropout=0.1, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, tokens):
        return self.head(self.encoder(self.embedding(tokens)).mean(dim=1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.LSTM(2, 3, batch_first=True)
        self.head = nn.Linear(3, 3)

    def forward(self, rows):
        return self.head(self.layer(rows)[0][:, -1])


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.second.weight = self.first.weight

    def forward(self, rows):
        return self.head(torch.tanh(self.second(torch.tanh(self.first(rows)))))


@pytest.mark.parametrize(
    ("build", "rows", "route"),
    [
        (Tokens, RNG.integers(0, 5, size=(30, 6)), "graph"),
        (Recurrent, RNG.normal(size=(30, 6, 2)), "graph"),
        (Tied, X, "closed_form"),
    ],
    ids=["attention", "recurrence", "tied weights"],
)
def test_modules_of_other_kinds(build, rows, route):
    net = skorch_net(NeuralNetClassifier, build(), criterion=nn.CrossEntropyLoss).fit(rows, CODES)
    matrix = dense_hessian(
        net.module_, torch.as_tensor(rows), lambda outputs: cross_entropy(outputs, CODES).mean()
    )
    truth = np.linalg.eigvalsh(matrix)[::-1]
    spectrum = HessianSpectrum(net, n_eigenvalues=3, tol=1e-6, random_state=0).fit(rows, CODES)
    np.testing.assert_allclose(spectrum.eigenvalues_, truth[:3], rtol=1e-5)
    assert spectrum.route_ == route
    for by in ("layer", "sample", "output"):
        parts = spectrum.attribution(by=by)["contribution"]
        assert parts.sum() == pytest.approx(truth[0], rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_networks_need_a_wider_dtype(dtype):
    net = skorch_net(NeuralNetClassifier, nn.Sequential(nn.Linear(4, 3)), dtype=torch.float32)
    net.set_params(criterion=nn.CrossEntropyLoss).fit(X.astype("float32"), CODES)
    net.module_.to(dtype)
    rows = torch.as_tensor(X).to(dtype)
    with pytest.raises(ValueError, match=r"pass dtype=torch\.float32"):
        HessianSpectrum(net).fit(rows, CODES)
    wide = HessianSpectrum(net, dtype="float64", n_eigenvalues=2, tol=1e-6).fit(rows, CODES)
    matrix = dense_hessian(
        net.module_, rows.double(), lambda outputs: cross_entropy(outputs, CODES).mean()
    )
    np.testing.assert_allclose(wide.eigenvalues_, np.linalg.eigvalsh(matrix)[:-3:-1], rtol=1e-5)


def test_rows_that_are_not_finite_are_named():
    net = skorch_net(
        NeuralNetClassifier, nn.Sequential(nn.Linear(4, 3)), criterion=nn.CrossEntropyLoss
    ).fit(X, CODES)
    for row in (0, 7):
        broken = X.copy()
        broken[row, 1] = np.nan
        with pytest.raises(ValueError, match=f"row {row} of inputs has outputs"):
            HessianSpectrum(net).fit(broken, CODES)
    net.module_[0].weight.data.fill_(np.inf)
    with pytest.raises(ValueError, match="the network has not diverged"):
        HessianSpectrum(net).fit(X, CODES)


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
