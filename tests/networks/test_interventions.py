"""Interventions against dense Jacobians, hand-computed steps and mixed labels."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.func import jacrev, vmap

from sharpfit.bridge import as_problem
from sharpfit.networks import NetworkClassifier, NetworkRegressor
from sharpfit.networks.interventions import (
    Intervention,
    JacobianPenalty,
    Mixup,
    SharpnessAwareMinimisation,
)
from tests.networks.modules_for_tests import Double, DropsInputs, Normalised

ONE_STEP = {
    "max_epochs": 1,
    "batch_size": -1,
    "random_state": 0,
    "optimizer__momentum": 0.0,
    "iterator_train__shuffle": False,
}


def weights(network):
    return torch.cat([p.detach().flatten() for p in network.module_.parameters()])


@pytest.fixture
def module():
    torch.manual_seed(0)
    return Double()


def dense_jacobians(module, X):
    return vmap(jacrev(module))(torch.tensor(X))


# -- Jacobian penalty --------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["frobenius", "spectral"])
def test_exact_penalty_is_that_of_dense_jacobians(norm, module, iris):
    X = iris[0]
    jacobians = dense_jacobians(module, X)
    expected = torch.linalg.matrix_norm(jacobians, ord="fro" if norm == "frobenius" else 2) ** 2
    inputs = torch.tensor(X, requires_grad=True)
    penalty = JacobianPenalty(norm=norm, n_projections=None)
    torch.testing.assert_close(penalty.penalty(module(inputs), inputs), expected)


def test_projections_estimate_without_bias(module, iris):
    X = iris[0][:5]
    expected = dense_jacobians(module, X).square().sum((1, 2))
    inputs = torch.tensor(X, requires_grad=True)
    torch.manual_seed(1)
    draws = torch.stack(
        [JacobianPenalty(n_projections=2).penalty(module(inputs), inputs) for _ in range(1500)]
    ).detach()
    error = draws.std(0) / len(draws) ** 0.5
    assert (error < 0.05 * expected).all()
    assert ((draws.mean(0) - expected).abs() < 4 * error).all()


@pytest.mark.parametrize("norm", ["frobenius", "spectral"])
def test_step_descends_loss_and_penalty(norm, module, iris):
    X, y = iris
    network = NetworkClassifier(
        module,
        intervention=JacobianPenalty(0.3, norm=norm, n_projections=None),
        lr=0.1,
        **ONE_STEP,
    ).fit(X, y)
    jacobians = dense_jacobians(module, X)
    squares = torch.linalg.matrix_norm(jacobians, ord="fro" if norm == "frobenius" else 2) ** 2
    loss = nn.functional.cross_entropy(module(torch.tensor(X)), torch.tensor(y))
    value = loss + 0.3 * squares.mean()
    assert network.history[-1, "train_loss"] == pytest.approx(value.item(), rel=1e-10)
    value.backward()
    expected = torch.cat([(p - 0.1 * p.grad).detach().flatten() for p in module.parameters()])
    torch.testing.assert_close(weights(network), expected)


def test_penalty_lowers_the_jacobian(iris):
    X, y = iris
    norms = []
    for strength in (0.0, 0.05, 0.5):
        network = NetworkClassifier(
            intervention=JacobianPenalty(strength), random_state=0, max_epochs=40
        ).fit(X, y)
        jacobians = dense_jacobians(network.module_, X)
        norms.append(jacobians.square().sum((1, 2)).mean().item())
    assert norms[0] > 2 * norms[1] > 4 * norms[2]


def test_penalty_of_one_output_and_of_images():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 3)), rng.normal(size=20)
    network = NetworkRegressor(
        module__hidden=(), intervention=JacobianPenalty(0.5), lr=0.0, max_epochs=1, random_state=0
    ).fit(X, y)
    # A linear model has the same gradient, its weights, at every row; one projection is exact.
    weight = network.module_[0].weight.detach()
    expected = np.mean((network.predict(X) - y) ** 2) + 0.5 * weight.square().sum().item()
    assert network.history[-1, "train_loss"] == pytest.approx(expected, rel=1e-10)
    images = rng.normal(size=(20, 1, 3, 2)).astype(np.float32)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(6, 2))
    NetworkClassifier(flat, intervention=JacobianPenalty(), max_epochs=1).fit(images, y > 0)


# -- sharpness-aware minimisation --------------------------------------------------------------


@pytest.mark.parametrize("adaptive", [False, True])
def test_step_on_a_quadratic(adaptive):
    # Least squares through the origin: L(w) = |X w - y|^2 / n, with gradients in closed form.
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 3)), rng.normal(size=30)
    model = nn.Linear(3, 1, bias=False).double()
    w = model.weight.detach().numpy()[0].copy()

    def gradient(w):
        return 2 / 30 * X.T @ (X @ w - y)

    scale = np.abs(w) if adaptive else np.ones(3)
    direction = scale * gradient(w)
    perturbed = w + 0.4 * scale * direction / np.linalg.norm(direction)
    expected = w - 0.05 * gradient(perturbed)
    network = NetworkRegressor(
        model,
        intervention=SharpnessAwareMinimisation(0.4, adaptive=adaptive),
        lr=0.05,
        **ONE_STEP,
    ).fit(X, y)
    np.testing.assert_allclose(network.module_.weight.detach().numpy()[0], expected, rtol=1e-12)
    # The recorded loss is that at the weights themselves.
    assert network.history[-1, "train_loss"] == pytest.approx(np.mean((X @ w - y) ** 2))


def test_radius_zero_is_plain_training(iris):
    X, y = iris
    arguments = {"random_state": 0, "max_epochs": 5}
    plain = NetworkClassifier(DropsInputs, **arguments).fit(X, y)
    none = NetworkClassifier(
        DropsInputs, intervention=SharpnessAwareMinimisation(0.0), **arguments
    ).fit(X, y)
    tiny = NetworkClassifier(
        DropsInputs, intervention=SharpnessAwareMinimisation(1e-9), **arguments
    ).fit(X, y)
    assert torch.equal(weights(none), weights(plain))
    # Close only if both passes see the same dropout masks.
    torch.testing.assert_close(weights(tiny), weights(plain), rtol=1e-4, atol=1e-5)
    wide = clone(tiny).set_params(intervention__radius=0.5).fit(X, y)
    assert not torch.allclose(weights(wide), weights(plain), atol=1e-3)


def test_running_statistics_are_updated_once(iris):
    X, y = iris
    torch.manual_seed(0)
    module = Normalised()
    twin = copy.deepcopy(module)
    NetworkClassifier(module, intervention=SharpnessAwareMinimisation(0.5), lr=0.0, **ONE_STEP)
    network = NetworkClassifier(
        module, intervention=SharpnessAwareMinimisation(0.5), lr=0.0, **ONE_STEP
    ).fit(X, y)
    twin.train()(torch.tensor(X, dtype=torch.float32))
    for name, buffer in twin.named_buffers():
        torch.testing.assert_close(network.module_.get_buffer(name), buffer)
    assert int(network.module_.layers[1].num_batches_tracked) == 1


def test_weights_come_back_after_an_interruption(iris):
    X, y = iris

    class InterruptedAtSecondPass(Double):
        passes = 0

        def forward(self, X):
            self.passes += self.training
            if self.passes == 2:
                raise KeyboardInterrupt
            return super().forward(X)

    module = InterruptedAtSecondPass()
    network = NetworkClassifier(
        module, intervention=SharpnessAwareMinimisation(10.0), max_epochs=1
    ).fit(X, y)
    assert network.n_iter_ == 1
    expected = torch.cat([p.detach().flatten() for p in module.parameters()])
    assert torch.equal(weights(network), expected)


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.LBFGS])
def test_any_optimiser_steps_along_it(optimizer, iris):
    X, y = iris
    network = NetworkClassifier(
        optimizer=optimizer,
        lr=0.05,
        intervention=SharpnessAwareMinimisation(),
        max_epochs=9,
        random_state=0,
    ).fit(X, y)
    assert network.score(X, y) > 0.9


# -- mixup -------------------------------------------------------------------------------------


def mixed_rows(X, y, alpha):
    """The rows and label distributions a training from seed 0 mixes, drawn again by hand."""
    torch.manual_seed(0)
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    order = torch.randperm(len(X))
    labels = nn.functional.one_hot(torch.tensor(y)).double()
    inputs = torch.tensor(X)
    mix = lambda values: share * values + (1 - share) * values[order]
    assert 0.05 < share < 0.95
    return mix(inputs), mix(labels)


class SameDraws(Intervention):
    """Start the random numbers of every step from seed 0, for comparison by hand."""

    def gradient(self, module, backward):
        torch.manual_seed(0)
        return backward()


def test_mixed_loss_is_that_of_mixed_labels(module, iris):
    X, y = iris
    network = NetworkClassifier(
        module, intervention=[SameDraws(), Mixup(2.0)], lr=0.1, **ONE_STEP
    ).fit(X, y)
    inputs, labels = mixed_rows(X, y, 2.0)
    loss = nn.functional.cross_entropy(module(inputs), labels)
    assert network.history[-1, "train_loss"] == pytest.approx(loss.item(), rel=1e-10)
    loss.backward()
    expected = torch.cat([(p - 0.1 * p.grad).detach().flatten() for p in module.parameters()])
    torch.testing.assert_close(weights(network), expected)


def test_mixed_squared_error_has_the_gradient_of_mixed_targets(iris):
    X, y = iris
    module = Double(k=3)
    targets = np.eye(3)[y]
    network = NetworkRegressor(
        module, intervention=[SameDraws(), Mixup(2.0)], lr=0.1, **ONE_STEP
    ).fit(X, targets)
    inputs, mixed_targets = mixed_rows(X, y, 2.0)
    nn.functional.mse_loss(module(inputs), mixed_targets).backward()
    expected = torch.cat([(p - 0.1 * p.grad).detach().flatten() for p in module.parameters()])
    torch.testing.assert_close(weights(network), expected)


def test_weights_stay_with_their_labels(module, iris):
    X, y = iris
    w = torch.tensor(np.random.default_rng(0).random(150))
    network = NetworkClassifier(
        module, intervention=[SameDraws(), Mixup(2.0)], lr=0.0, **ONE_STEP
    ).fit(X, y, sample_weight=w.numpy())
    torch.manual_seed(0)
    share = float(torch.distributions.Beta(2.0, 2.0).sample())
    order = torch.randperm(150)
    labels = torch.tensor(y)
    z = module(share * torch.tensor(X) + (1 - share) * torch.tensor(X)[order])

    def loss(targets, w):
        return nn.functional.cross_entropy(z, targets, reduction="none") @ w / w.sum()

    expected = share * loss(labels, w) + (1 - share) * loss(labels[order], w[order])
    assert network.history[-1, "train_loss"] == pytest.approx(expected.item(), rel=1e-10)


def test_no_mixing_is_plain_training(iris):
    X, y = iris
    arguments = {"random_state": 0, "max_epochs": 5}
    plain = NetworkClassifier(**arguments).fit(X, y)
    none = NetworkClassifier(intervention=Mixup(0), **arguments).fit(X, y)
    assert torch.equal(weights(none), weights(plain))


# -- as arguments of networks ------------------------------------------------------------------


def test_all_together_are_repeatable(iris):
    X, y = iris
    together = [SharpnessAwareMinimisation(0.1), Mixup(0.2), JacobianPenalty(0.01)]
    network = NetworkClassifier(DropsInputs, intervention=together, max_epochs=3, random_state=0)
    first = weights(network.fit(X, y))
    assert torch.equal(weights(clone(network).fit(X, y)), first)
    assert network.trained_on_data_loss_ is False
    twin = pickle.loads(pickle.dumps(network))
    np.testing.assert_array_equal(twin.predict(X), network.predict(X))


def test_penalty_within_sharpness_aware_minimisation():
    # Both gradients are those of the penalised loss: L(w) = mean (w x - y)^2 + s w^2 in one weight.
    X, y = np.array([[1.0], [2.0]]), np.array([1.0, 0.5])
    model = nn.Linear(1, 1, bias=False).double()
    w = model.weight.item()
    gradient = lambda w: np.mean(2 * X[:, 0] * (w * X[:, 0] - y)) + 2 * 0.3 * w
    network = NetworkRegressor(
        model,
        intervention=[SharpnessAwareMinimisation(0.1), JacobianPenalty(0.3)],
        lr=0.01,
        **ONE_STEP,
    ).fit(X, y)
    expected = w - 0.01 * gradient(w + 0.1 * np.sign(gradient(w)))
    assert network.module_.weight.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("intervention", "parameter", "values"),
    [
        (SharpnessAwareMinimisation(), "radius", [0.0, 0.1]),
        (JacobianPenalty(), "strength", [0.0, 0.1]),
        (Mixup(), "alpha", [0.0, 0.5]),
    ],
)
def test_grids(intervention, parameter, values, iris):
    X, y = iris
    pipe = make_pipeline(StandardScaler(), NetworkClassifier(max_epochs=3, random_state=0))
    grid = [
        {
            "networkclassifier__intervention": [intervention],
            f"networkclassifier__intervention__{parameter}": values,
        },
        {"networkclassifier__intervention": [None, [intervention]]},
    ]
    search = GridSearchCV(pipe, grid, cv=2, refit=False).fit(X, y)
    scores = search.cv_results_["split0_test_score"]
    assert np.isfinite(scores).all()
    assert scores[0] == scores[2]  # strength 0 is no intervention
    # The grid's own object is not changed by the search.
    assert getattr(intervention, parameter) == getattr(type(intervention)(), parameter)


def test_analyses_read_the_data_loss(iris):
    X, y = iris
    for intervention, on_data_loss in [
        (None, True),
        (SharpnessAwareMinimisation(), True),
        (JacobianPenalty(1.0), False),
        (Mixup(), False),
    ]:
        network = NetworkClassifier(intervention=intervention, max_epochs=2, random_state=0)
        assert network.fit(X, y).trained_on_data_loss_ is on_data_loss
        problem = as_problem(network, X, y)
        values = problem.loss.values(problem.module(problem.inputs), problem.targets)
        expected = -network.predict_log_proba(X)[np.arange(150), y].mean()
        assert values.mean().item() == pytest.approx(expected, rel=1e-6)
        outputs = network.module_(network.input_tensor(X))
        loss = network.get_loss(outputs, network.target_tensor(y))
        assert loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("intervention", "error", "message"),
    [
        (SharpnessAwareMinimisation(-1.0), ValueError, "radius=-1.0"),
        (JacobianPenalty(float("nan")), ValueError, "strength=nan"),
        (JacobianPenalty(norm="nuclear"), ValueError, "norm='nuclear'"),
        (JacobianPenalty(n_projections=0), ValueError, "n_projections=0"),
        (JacobianPenalty(n_projections=1.5), ValueError, "n_projections=1.5"),
        (Mixup(-0.1), ValueError, "alpha=-0.1"),
        (Mixup("0.2"), ValueError, "alpha='0.2'"),
        (SharpnessAwareMinimisation(float("inf")), ValueError, "radius=inf"),
        (Mixup, TypeError, "must be an instance of Intervention"),
        ([Mixup(), "sam"], TypeError, "intervention='sam' must be an instance"),
    ],
)
def test_refused_before_training(intervention, error, message, iris):
    X, y = iris
    network = NetworkClassifier(intervention=intervention)
    with pytest.raises(error, match=message):
        network.fit(X, y)
    assert not hasattr(network, "module_")


def test_nested_parameters_need_a_single_intervention():
    with pytest.raises(ValueError, match="intervention__radius cannot be set"):
        NetworkClassifier().set_params(intervention__radius=0.1)
