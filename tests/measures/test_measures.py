"""Measures of a trained network against closed forms and dense float64 derivatives."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from torch import nn
from torch.func import functional_call

from sharpfit import NetworkClassifier, NetworkRegressor
from sharpfit.bridge import as_problem
from sharpfit.measures import MEASURES, TrainedNetwork, compute_measures

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
Y = (X[:, 0] + 0.3 * X[:, 1] > 0).astype(int) + (X[:, 2] > 1)


def trained(hidden=(5,), **settings):
    return NetworkClassifier(module__hidden=hidden, max_epochs=4, random_state=0, **settings).fit(
        X, Y
    )


def network_of(estimator, initial_module=None):
    return TrainedNetwork(as_problem(estimator, X, Y), initial_module)


def values(estimator, *names):
    return [
        measured.value for measured in compute_measures(estimator, X, Y, measures=names).values()
    ]


@pytest.fixture(scope="module")
def linear():
    return trained(hidden=())


@pytest.fixture(scope="module")
def network():
    return trained()


def matrices(estimator):
    return [p.detach().numpy().astype(float) for p in estimator.module_.parameters() if p.ndim == 2]


def test_norms_by_hand(network):
    first, second = matrices(network)
    frobenius = [np.sum(m**2) for m in (first, second)]
    spectral = [np.linalg.svd(m)[1][0] for m in (first, second)]
    measured = values(
        network, "squared_norm", "log_frobenius_product", "log_spectral_product", "stable_rank_sum"
    )
    expected = [
        sum(frobenius),
        math.log(frobenius[0] * frobenius[1]),
        math.log((spectral[0] * spectral[1]) ** 2),
        frobenius[0] / spectral[0] ** 2 + frobenius[1] / spectral[1] ** 2,
    ]
    np.testing.assert_allclose(measured, expected, rtol=1e-10)


def test_distances_start_where_training_started(network):
    start = NetworkClassifier(module__hidden=(5,), max_epochs=0, random_state=0).fit(X, Y)
    differences = [a - b for a, b in zip(matrices(network), matrices(start), strict=True)]
    spectral = [np.linalg.norm(m, 2) for m in matrices(network)]
    gamma = np.quantile(network_of(network).margins, 0.1)
    ratios = sum(
        (np.linalg.norm(d.T, axis=0).sum() / s) ** (2 / 3)
        for d, s in zip(differences, spectral, strict=True)
    )
    measured = values(
        network, "squared_distance_from_initialisation", "log_spectral_complexity_over_margin"
    )
    expected = [
        sum(np.sum(d**2) for d in differences),
        math.log(spectral[0] * spectral[1] * ratios**1.5 / abs(gamma)),
    ]
    assert expected[0] > 0
    np.testing.assert_allclose(measured, expected, rtol=1e-9)


def test_path_norm_sums_over_paths(network):
    first, second = matrices(network)
    biases = [p.detach().numpy() for p in network.module_.parameters() if p.ndim == 1]
    hidden = first**2 @ np.ones(3) + biases[0] ** 2
    expected = np.sum(second**2 @ hidden + biases[1] ** 2)
    assert values(network, "path_norm")[0] == pytest.approx(expected)


def test_path_norm_of_a_smooth_network_does_not_exist():
    measured = compute_measures(trained(module__activation="tanh"), X, Y, measures=["path_norm"])[
        "path_norm"
    ]
    assert math.isnan(measured.value)
    assert "Tanh" in measured.reason


def test_margins_and_jacobians_of_a_linear_network(linear):
    weight = linear.module_[0].weight.detach().numpy()
    logits = X @ weight.T + linear.module_[0].bias.detach().numpy()
    rows = np.arange(60)
    rivals = logits.copy()
    rivals[rows, Y] = -np.inf
    rival = rivals.argmax(axis=1)
    margins = logits[rows, Y] - rivals.max(axis=1)
    gradients = np.linalg.norm(weight[Y] - weight[rival], axis=1)
    spectral, frobenius = np.linalg.norm(weight, 2), np.sum(weight**2)
    gamma = np.quantile(margins, 0.1)
    measured = values(
        linear,
        "negative_margin",
        "negative_gradient_normalised_margin",
        "negative_jacobian_normalised_margin",
        "largest_jacobian",
        "mean_jacobian",
        "geometric_complexity",
        "log_geometric_complexity_over_margin",
        "log_spectral_product_over_margin",
        "log_frobenius_product_over_margin",
    )
    expected = [
        -gamma,
        -np.quantile(margins / gradients, 0.1),
        -gamma / spectral,
        spectral,
        spectral,
        frobenius,
        math.log(frobenius) - 2 * math.log(abs(gamma)),
        2 * math.log(spectral) - 2 * math.log(abs(gamma)),
        math.log(frobenius) - 2 * math.log(abs(gamma)),
    ]
    np.testing.assert_allclose(measured, expected, rtol=1e-6)


def test_probability_jacobians_and_slopes(network):
    module = network.module_.double()
    inputs = torch.as_tensor(X)
    jacobians = torch.func.vmap(
        torch.func.jacrev(lambda row: module(row.unsqueeze(0)).softmax(1)[0])
    )(inputs)
    outputs = module(inputs).detach().numpy()
    distances = cdist(X, X)
    slopes = cdist(outputs, outputs) / np.where(distances == 0, np.inf, distances)
    neighbours = np.argsort(distances, axis=1)[:, 1:11]
    measured = values(
        network, "largest_probability_jacobian", "mean_probability_jacobian", "largest_slope"
    )
    expected = [
        torch.linalg.matrix_norm(jacobians, 2).max().item(),
        torch.linalg.matrix_norm(jacobians).mean().item(),
        np.take_along_axis(slopes, neighbours, axis=1).max(),
    ]
    np.testing.assert_allclose(measured, expected, rtol=1e-6)


def dense_loss(estimator, inputs=X, labels=Y):
    """The training loss as a function of one vector, its value, and the present weights."""
    module = estimator.module_
    names = [name for name, _ in module.named_parameters()]
    shapes = [p.shape for p in module.parameters()]
    sizes = [p.numel() for p in module.parameters()]
    rows, targets = torch.as_tensor(inputs), torch.as_tensor(labels)

    def loss(vector):
        parts = [v.view(s) for v, s in zip(vector.split(sizes), shapes, strict=True)]
        outputs = functional_call(module, dict(zip(names, parts, strict=True)), (rows,))
        return nn.functional.cross_entropy(outputs, targets)

    return loss, torch.cat([p.detach().flatten() for p in module.parameters()])


def test_sharpness_against_the_dense_hessian(network):
    loss, weights = dense_loss(network)
    hessian = torch.func.hessian(loss)(weights)
    scale = weights.abs() + 0.01
    measured = values(network, "sharpness", "adaptive_sharpness")
    expected = [
        torch.linalg.eigvalsh(hessian)[-1].item(),
        torch.linalg.eigvalsh(scale.unsqueeze(1) * hessian * scale)[-1].item(),
    ]
    np.testing.assert_allclose(measured, expected, rtol=2e-3)


def test_gauss_newton_measures_against_the_dense_matrix(network):
    module = network.module_
    names = [name for name, _ in module.named_parameters()]
    parameters = tuple(p.detach() for p in module.parameters())
    rows = torch.as_tensor(X)

    def outputs(*parts):
        return functional_call(module, dict(zip(names, parts, strict=True)), (rows,))

    blocks = torch.func.jacrev(outputs, argnums=tuple(range(len(parameters))))(*parameters)
    jacobian = torch.cat([b.flatten(2) for b in blocks], dim=2)
    probabilities = outputs(*parameters).softmax(1)
    curvature = torch.diag_embed(probabilities) - probabilities[:, :, None] * probabilities[:, None]
    dense = torch.einsum("ncp,ncd,ndq->pq", jacobian, curvature, jacobian) / len(X)
    weights = torch.cat([p.flatten() for p in parameters])
    measured = values(network, "gauss_newton_sharpness", "fisher_rao_norm")
    expected = [
        torch.linalg.eigvalsh(dense)[-1].item(),
        (weights @ dense @ weights).item(),
    ]
    np.testing.assert_allclose(measured, expected, rtol=2e-3)


def test_relative_flatness_against_blocks_of_the_dense_hessian(network):
    loss, weights = dense_loss(network)
    hessian = torch.func.hessian(loss)(weights)
    weight = network.module_[-1].weight.detach()
    n_classes, width = weight.shape
    start = sum(p.numel() for p in network.module_[0].parameters())
    block = hessian[start : start + weight.numel(), start : start + weight.numel()]
    block = block.reshape(n_classes, width, n_classes, width)
    traces = torch.einsum("sktk->st", block)
    expected = (traces * (weight @ weight.T)).sum().item()
    assert values(network, "relative_flatness")[0] == pytest.approx(expected, rel=1e-6)


def test_rises_of_the_loss(network):
    loss, weights = dense_loss(network)
    gradient = torch.func.grad(loss)(weights)
    expected = (loss(weights + 0.05 * gradient / gradient.norm()) - loss(weights)).item()
    # All 60 rows are one batch of at most 128.
    assert values(network, "ascent_sharpness")[0] == pytest.approx(expected, rel=1e-6)
    trace = torch.trace(torch.func.hessian(loss)(weights)).item()
    average = values(network, "average_direction_sharpness")[0]
    generator = torch.Generator().manual_seed(0)
    rises = [
        (
            loss(
                weights
                + 0.01 * torch.randn(weights.shape, generator=generator, dtype=weights.dtype)
            )
            - loss(weights)
        ).item()
        for _ in range(20)
    ]
    assert average == pytest.approx(np.mean(rises), rel=1e-6)
    standard_error = np.std(rises) / math.sqrt(20)
    assert abs(average - 0.01**2 * trace / 2) < 4 * standard_error


def test_pac_bayes_flatness_stands_the_noise_it_names(network):
    flatness = values(network, "pac_bayes_flatness")[0]
    sigma = flatness**-0.5
    module = network.module_
    inputs, labels = torch.as_tensor(X), torch.as_tensor(Y)
    accuracy = (module(inputs).argmax(1) == labels).double().mean().item()
    generator = torch.Generator().manual_seed(7)
    drops = []
    for _ in range(300):
        noisy = {
            name: p + sigma * torch.randn(p.shape, generator=generator, dtype=p.dtype)
            for name, p in module.named_parameters()
        }
        outputs = functional_call(module, noisy, (inputs,))
        drops.append(accuracy - (outputs.argmax(1) == labels).double().mean().item())
    # The draws differ, so the drop is 0.1 up to the spread of a mean over ten draws.
    assert np.mean(drops) == pytest.approx(0.1, abs=0.07)


RESCALED = (
    "log_frobenius_product",
    "log_spectral_product",
    "path_norm",
    "largest_jacobian",
    "geometric_complexity",
    "fisher_rao_norm",
    "negative_margin",
    "stable_rank_sum",
)


def test_rescaling_layers_against_each_other_leaves_what_it_should(network):
    before = values(network, *RESCALED)
    with torch.no_grad():
        network.module_[0].weight.mul_(3)
        network.module_[0].bias.mul_(3)
        network.module_[2].weight.div_(3)
    after = values(network, *RESCALED)
    with torch.no_grad():
        network.module_[0].weight.div_(3)
        network.module_[0].bias.div_(3)
        network.module_[2].weight.mul_(3)
    np.testing.assert_allclose(after, before, rtol=1e-6)


def test_regressors_have_no_margins_and_say_so():
    target = X[:, 0]
    regressor = NetworkRegressor(max_epochs=2, random_state=0).fit(X, target)
    measured = compute_measures(regressor, X, target)
    assert math.isnan(measured["negative_margin"].value)
    assert "classifier" in measured["negative_margin"].reason
    assert measured["sharpness"].reason is None
    assert list(measured) == list(MEASURES)


def test_unknown_initial_weights_are_said(network):
    unseeded = NetworkClassifier(max_epochs=1).fit(X, Y)
    measured = compute_measures(unseeded, X, Y, measures=["squared_distance_from_initialisation"])[
        "squared_distance_from_initialisation"
    ]
    assert "random_state" in measured.reason


def test_unknown_names_are_refused(network):
    with pytest.raises(ValueError, match="'flatness'"):
        compute_measures(network, X, Y, measures=["flatness"])


@pytest.mark.parametrize("name", MEASURES)
def test_description_has_formula_source_invariances_and_cost(name):
    text = MEASURES[name].function.__doc__
    assert ":math:" in text or "expected" in text or "summed" in text
    for word in ("Source:", "Invariances:", "Cost:"):
        assert word in text
    assert MEASURES[name].summary.endswith(".")
