"""Per-sample Jacobian norms against dense references, closed forms and finite differences."""

import copy

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from sharpfit.jacobian import jacobian_norms
from sharpfit.objective import as_sample_loss
from tests.jacobian.norm_cases import case, dense_jacobians, networks


@pytest.mark.parametrize("method", ["exact", "krylov"])
@pytest.mark.parametrize("name", networks())
def test_logit_norms_match_dense_jacobians(name, method):
    net, inputs = case(name)
    dense = dense_jacobians(net, inputs)
    norms = jacobian_norms(net, inputs, method=method, tol=1e-9, batch_size=3)
    np.testing.assert_allclose(norms.spectral, np.linalg.norm(dense, 2, axis=(1, 2)), rtol=1e-8)
    np.testing.assert_allclose(norms.frobenius, np.linalg.norm(dense, axis=(1, 2)), rtol=1e-12)
    assert not norms.frobenius_error.any()


@pytest.mark.parametrize("method", ["exact", "krylov"])
@pytest.mark.parametrize("name", ["tanh", "one logit", "more outputs than inputs"])
def test_probability_norms_match_dense_jacobians(name, method):
    net, inputs = case(name)
    squash = torch.sigmoid if name == "one logit" else (lambda z: z.softmax(dim=1))
    dense = dense_jacobians(lambda x: squash(net(x)), inputs)
    norms = jacobian_norms(net, inputs, output="probabilities", method=method, tol=1e-9)
    np.testing.assert_allclose(norms.spectral, np.linalg.norm(dense, 2, axis=(1, 2)), rtol=1e-7)


@pytest.mark.parametrize("criterion", [nn.CrossEntropyLoss(), nn.MSELoss()])
def test_loss_gradient_norms_match_finite_differences(criterion):
    net, inputs = case("tanh")
    loss = as_sample_loss(criterion)
    if loss.task == "classification":
        targets = torch.arange(7) % 3
    else:
        targets = torch.linspace(-1, 1, 21).double().reshape(7, 3)
    norms = jacobian_norms(net, inputs, output="loss", loss=loss, targets=targets)
    step = 1e-6
    gradient = np.empty((7, 5))
    for feature in range(5):
        shift = torch.zeros(5, dtype=torch.float64)
        shift[feature] = step
        up, down = net(inputs + shift), net(inputs - shift)
        difference = loss.values(up, targets) - loss.values(down, targets)
        gradient[:, feature] = difference.detach().numpy() / (2 * step)
    np.testing.assert_allclose(norms.spectral, np.linalg.norm(gradient, axis=1), rtol=1e-6)


def test_rotation_and_known_singular_values():
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))
    net = nn.Linear(6, 6).double()
    net.weight.data = torch.as_tensor(rotation * np.array([3.0, 1, 1, 1, 1, 1]))
    inputs = torch.randn(4, 6, dtype=torch.float64)
    norms = jacobian_norms(net, inputs)
    np.testing.assert_allclose(norms.spectral, 3.0)
    np.testing.assert_allclose(norms.frobenius, np.sqrt(14.0))


def test_network_that_ignores_its_input_has_zero_norms():
    class Constant(nn.Module):
        def forward(self, x):
            return torch.ones(len(x), 3, dtype=x.dtype)

    inputs = torch.randn(4, 5)
    for method in ("exact", "krylov"):
        norms = jacobian_norms(Constant(), inputs, method=method)
        assert not norms.spectral.any()
        assert not norms.frobenius.any()


def test_error_bound_of_the_iteration_holds_and_reaches_the_tolerance():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(120, 150), nn.ReLU(), nn.Linear(150, 100)).double()
    inputs = torch.randn(6, 120, dtype=torch.float64)
    exact = jacobian_norms(net, inputs, method="exact")
    found = jacobian_norms(net, inputs)
    assert found.method == "krylov"
    error = np.abs(found.spectral - exact.spectral)
    assert np.all(error <= found.spectral_error)
    assert np.all(found.spectral_error <= 1e-3 * found.spectral)
    assert found.spectral_error.any()
    assert np.all(np.abs(found.frobenius - exact.frobenius) <= 4 * found.frobenius_error)
    assert np.all(found.frobenius_error <= 0.05 * found.frobenius)


@pytest.mark.parametrize("method", ["exact", "krylov"])
@pytest.mark.parametrize("scale", [1e-30, 1e-21, 1e21, 1e30])
def test_squares_of_tiny_and_huge_norms_stay_in_range(scale, method):
    torch.manual_seed(0)
    net = nn.Linear(12, 9, bias=False)
    expected = float(torch.linalg.matrix_norm(net.weight.double(), 2).detach()) * scale
    net.weight.data *= scale
    found = jacobian_norms(net, torch.randn(2, 12), method=method)
    assert found.spectral == pytest.approx(expected, rel=1e-5, abs=0)
    assert np.all(found.spectral_error < 1e-3 * expected)


@pytest.mark.parametrize("n_outputs", [1, 9])
@pytest.mark.parametrize("method", ["exact", "krylov"])
def test_probabilities_of_a_certain_network_are_as_exact_as_others(method, n_outputs):
    torch.manual_seed(0)
    net = nn.Linear(12, n_outputs)
    net.weight.data *= 30
    inputs = torch.randn(50, 12)
    found = jacobian_norms(net, inputs, output="probabilities", method=method, tol=1e-5)
    expected = jacobian_norms(net.double(), inputs.double(), output="probabilities")
    assert expected.spectral.min() < 1e-6
    np.testing.assert_allclose(found.spectral, expected.spectral, rtol=1e-4)


def test_iteration_that_ends_early_warns_and_keeps_an_honest_error():
    torch.manual_seed(0)
    net = nn.Linear(80, 90).double()
    inputs = torch.randn(3, 80, dtype=torch.float64)
    with pytest.warns(ConvergenceWarning, match="max_products"):
        found = jacobian_norms(net, inputs, max_products=3)
    singular_values = np.linalg.svd(net.weight.detach().numpy(), compute_uv=False)
    for value, error in zip(found.spectral, found.spectral_error, strict=True):
        assert np.abs(singular_values - value).min() <= error


def test_float32_agrees_with_float64():
    single, inputs = case("convolutional", torch.float32)
    double = copy.deepcopy(single).double()
    found = jacobian_norms(single, inputs, margins=True)
    truth = jacobian_norms(double, inputs.double(), margins=True)
    np.testing.assert_allclose(found.spectral, truth.spectral, rtol=1e-5)
    np.testing.assert_allclose(found.margin_gradient, truth.margin_gradient, rtol=1e-5)
    assert found.spectral.dtype == np.float64


def test_chunks_do_not_change_the_result():
    net, inputs = case("convolutional")
    whole = jacobian_norms(net, inputs, margins=True)
    for settings in ({"batch_size": 1}, {"batch_size": 4}, {"memory_budget": 1}):
        parts = jacobian_norms(net, inputs, margins=True, **settings)
        np.testing.assert_allclose(parts.spectral, whole.spectral, rtol=1e-12)
        np.testing.assert_allclose(parts.margin_gradient, whole.margin_gradient, rtol=1e-12)


def test_module_inputs_and_generator_are_untouched():
    net, inputs = case("batch norm")
    net.train()
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    before, kept = copy.deepcopy(net.state_dict()), inputs.clone()
    generator = torch.get_rng_state()
    for method in ("exact", "krylov"):
        jacobian_norms(net, inputs, margins=True, method=method)
    assert net.training
    assert all(module.training for module in net.modules())
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.equal(inputs, kept)
    assert not inputs.requires_grad
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
    for parameter in net.parameters():
        assert parameter.requires_grad
        assert torch.equal(parameter.grad, torch.ones_like(parameter))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"output": "logit"}, ValueError, "output must be one of"),
        ({"method": "svd"}, ValueError, "method must be one of"),
        ({"output": "loss"}, ValueError, "needs both a loss"),
        ({"targets": torch.zeros(3, dtype=torch.int64), "margins": True}, ValueError, "3 rows"),
        ({"targets": torch.full((7,), 3), "margins": True}, ValueError, "from 0 to 2"),
        ({"targets": torch.zeros(7), "margins": True}, ValueError, "class numbers"),
        ({"inputs": torch.zeros(7, 5, dtype=torch.int64)}, TypeError, "floating dtype"),
        ({"inputs": torch.zeros(7, 5)}, ValueError, r"torch.float32 and the module's"),
        ({"inputs": torch.full((7, 5), torch.nan).double()}, ValueError, "NaN or infinity"),
        ({"inputs": torch.zeros(0, 5).double()}, ValueError, "at least one row"),
        ({"module": "net"}, TypeError, "torch.nn.Module"),
        ({"batch_size": 0}, ValueError, "batch_size must be"),
        ({"n_probes": 1}, ValueError, "n_probes"),
        ({"tol": 0.0}, ValueError, "tol must be"),
        ({"max_products": 0}, ValueError, "max_products"),
        ({"max_products": 2.5}, ValueError, "max_products must be an int"),
        ({"n_probes": 2.5}, ValueError, "n_probes must be an int"),
        ({"memory_budget": "1GB"}, ValueError, "memory_budget must be"),
        ({"verbose": "yes"}, ValueError, "verbose must be"),
        ({"verbose": -1}, ValueError, "verbose must be"),
    ],
)
def test_bad_arguments_are_named(change, error, message):
    net, inputs = case("tanh")
    arguments = {"module": net, "inputs": inputs, **change}
    with pytest.raises(error, match=message):
        jacobian_norms(**arguments)


@pytest.mark.parametrize("method", ["exact", "krylov"])
@pytest.mark.parametrize("name", ["tanh", "one logit", "convolutional"])
def test_diverged_networks_are_refused(name, method):
    net, inputs = case(name)
    next(net.parameters()).data.fill_(torch.nan)
    with pytest.raises(ValueError, match="diverged"):
        jacobian_norms(net, inputs, method=method)


def test_outputs_that_are_no_matrix_are_refused():
    inputs = torch.randn(4, 1, 6, 6)
    with pytest.raises(ValueError, match=r"shape \(n, C\)"):
        jacobian_norms(nn.Conv2d(1, 2, 3), inputs)
