"""Gradient norms of logit margins: to the runner-up, and the largest over all other classes."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sharpfit.jacobian import jacobian_norms, margin_gradients
from sharpfit.objective import as_sample_loss
from tests.jacobian.norm_cases import case, dense_jacobians


class _LargestTensor(TorchDispatchMode):
    """Notes the number of entries of the largest tensor that any operation returns."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor):
            self.entries = max(self.entries, found.numel())
        return found


NAMES = ["tanh", "convolutional", "more outputs than inputs"]


def _expected(net, inputs, targets):
    """Margins, gradient norms to the runner-up and largest ones, from dense Jacobians."""
    logits, dense = net(inputs).detach().numpy(), dense_jacobians(net, inputs)
    found = []
    for row, (values, jacobian) in enumerate(zip(logits, dense, strict=True)):
        own = values.argmax() if targets is None else int(targets[row])
        others = [k for k in range(len(values)) if k != own]
        rival = max(others, key=lambda k: values[k])
        norms = {k: np.linalg.norm(jacobian[own] - jacobian[k]) for k in others}
        found.append((values[own] - values[rival], norms[rival], max(norms.values())))
    return np.transpose(found)


@pytest.mark.parametrize("with_targets", [False, True])
@pytest.mark.parametrize("method", ["exact", "krylov"])
@pytest.mark.parametrize("name", NAMES)
def test_margins_and_their_gradients(name, method, with_targets):
    net, inputs = case(name)
    targets = torch.arange(7) % 3 if with_targets else None
    margin, gradient, largest = _expected(net, inputs, targets)
    assert np.any(largest > 1.01 * gradient)
    norms = jacobian_norms(net, inputs, targets=targets, margins="all", method=method, batch_size=3)
    np.testing.assert_allclose(norms.margin, margin)
    np.testing.assert_allclose(norms.margin_gradient, gradient)
    np.testing.assert_allclose(norms.largest_margin_gradient, largest)
    assert not norms.largest_margin_gradient_error.any()
    alone = jacobian_norms(net, inputs, targets=targets, output="margin", method=method)
    np.testing.assert_allclose(alone.spectral, gradient, rtol=1e-12)
    np.testing.assert_allclose(alone.frobenius, gradient, rtol=1e-12)
    assert alone.method == "exact"
    values, gradients = margin_gradients(net, inputs, targets=targets, batch_size=2)
    np.testing.assert_allclose(values, margin, rtol=1e-12)
    assert gradients.shape == inputs.shape
    np.testing.assert_allclose(gradients.flatten(1).norm(dim=1), gradient, rtol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_largest_gradient_is_exact_where_jacobians_are_formed_and_enclosed_elsewhere(name):
    net, inputs = case(name)
    _, gradient, largest = _expected(net, inputs, None)
    formed = jacobian_norms(net, inputs, margins=True)
    np.testing.assert_allclose(formed.largest_margin_gradient, largest)
    assert not formed.largest_margin_gradient_error.any()
    enclosed = jacobian_norms(net, inputs, margins=True, method="krylov")
    np.testing.assert_allclose(enclosed.largest_margin_gradient, gradient)
    above = enclosed.largest_margin_gradient + enclosed.largest_margin_gradient_error
    assert np.all(largest <= above)
    np.testing.assert_allclose(above, np.sqrt(2) * formed.spectral, rtol=2e-3)
    unbounded = jacobian_norms(net, inputs, margins=True, method="krylov", output="probabilities")
    assert np.isinf(unbounded.largest_margin_gradient_error).all()


def test_ceiling_of_the_largest_gradient_is_attained():
    # The logit difference of the two classes is the top singular direction of the outputs.
    net = nn.Linear(3, 3, bias=False).double()
    net.weight.data = torch.tensor([[2.0, 0.0, 0.0], [-2.0, 0.0, 0.0], [0.0, 0.0, 0.1]]).double()
    inputs = torch.tensor([[1.0, 0.0, 10.0]]).double()  # class 2 is the runner-up of class 0
    found = jacobian_norms(net, inputs, margins=True, method="krylov", tol=1e-9)
    assert found.margin_gradient[0] == pytest.approx(np.hypot(2.0, 0.1))
    above = found.largest_margin_gradient + found.largest_margin_gradient_error
    assert above[0] == pytest.approx(4.0)
    every = jacobian_norms(net, inputs, margins="all", method="krylov")
    assert every.largest_margin_gradient[0] == pytest.approx(4.0)


@pytest.mark.parametrize("name", ["one logit", "two logits"])
def test_with_two_classes_the_runner_up_is_the_only_other_one(name):
    net, inputs = case("one logit")
    if name == "two logits":
        net = nn.Sequential(*net[:-1], nn.Linear(8, 2)).double()
    difference = np.array([[1.0]] if name == "one logit" else [[1.0, -1.0]])
    gradient = np.linalg.norm(difference @ dense_jacobians(net, inputs), axis=(1, 2))
    for margins in (True, "all"):
        found = jacobian_norms(net, inputs, margins=margins, method="krylov")
        np.testing.assert_allclose(found.largest_margin_gradient, gradient)
        assert not found.largest_margin_gradient_error.any()


def test_one_logit_margin_is_the_signed_logit():
    net, inputs = case("one logit")
    logits = net(inputs).detach().numpy()[:, 0]
    norms = jacobian_norms(net, inputs, margins=True)
    np.testing.assert_allclose(norms.margin, np.abs(logits))
    np.testing.assert_allclose(norms.margin_gradient, norms.spectral, rtol=1e-12)
    signed = jacobian_norms(net, inputs, margins=True, targets=torch.zeros(7, dtype=torch.int64))
    np.testing.assert_allclose(signed.margin, -logits)


def test_margins_do_not_go_with_the_loss():
    net, inputs = case("tanh")
    loss = as_sample_loss(nn.CrossEntropyLoss())
    targets = torch.zeros(7, dtype=torch.int64)
    with pytest.raises(ValueError, match="margins=True"):
        jacobian_norms(net, inputs, output="loss", loss=loss, targets=targets, margins=True)


def test_misspelt_margins_are_refused():
    net, inputs = case("tanh")
    with pytest.raises(ValueError, match="margins must be True, False or 'all', got 'every'"):
        jacobian_norms(net, inputs, margins="every")


def test_memory_of_all_margins_does_not_hold_a_jacobian():
    net = nn.Linear(400, 300).double()
    inputs = torch.randn(40, 400, generator=torch.Generator().manual_seed(0)).double()
    with _LargestTensor() as largest:
        jacobian_norms(net, inputs, output="margin", margins="all", batch_size=40)
    assert largest.entries < 40 * 300 * 400 / 10
