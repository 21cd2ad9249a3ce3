"""Measures made of weights and curvature, against dense derivatives and hand-written norms."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from sharpfit.measures import MEASURES

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


class Normalised(nn.Sequential):
    """Batch norm behind a dense layer."""

    def __init__(self):
        super().__init__(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


@pytest.fixture(scope="module")
def perceptron(measured):
    return measured(module__hidden=(6, 5))


@pytest.fixture(scope="module")
def smooth(measured):
    return measured(module__hidden=(6,), module__activation="tanh")


@pytest.fixture(scope="module")
def normalised(measured):
    return measured(Normalised)


def dense_hessian(case):
    names = [name for name, _ in case.module.named_parameters()]
    parameters = [p.detach() for p in case.module.parameters()]
    sizes = [p.numel() for p in parameters]

    def loss(vector):
        parts = [v.view(p.shape) for v, p in zip(vector.split(sizes), parameters, strict=True)]
        outputs = functional_call(case.module, dict(zip(names, parts, strict=True)), (case.inputs,))
        return nn.functional.cross_entropy(outputs, case.labels)

    return torch.func.hessian(loss)(torch.cat([p.flatten() for p in parameters])), parameters


@pytest.mark.parametrize("case", ["perceptron", "normalised"])
def test_trace_is_exact_of_piecewise_linear_networks(case, request):
    case = request.getfixturevalue(case)
    hessian, _ = dense_hessian(case)
    trace = torch.trace(hessian).item()
    assert case("hessian_trace") == pytest.approx(trace, rel=1e-6)


def test_traces_of_smooth_networks(smooth):
    hessian, _ = dense_hessian(smooth)
    # Few parameters: the estimate of the residual sees all directions.
    assert smooth("hessian_trace") == pytest.approx(torch.trace(hessian).item(), rel=0.03)


@pytest.mark.parametrize("case", ["perceptron", "smooth"])
def test_gauss_newton_trace(case, request):
    case = request.getfixturevalue(case)
    names = [name for name, _ in case.module.named_parameters()]

    def outputs(*parts):
        return functional_call(case.module, dict(zip(names, parts, strict=True)), (case.inputs,))

    parameters = tuple(p.detach() for p in case.module.parameters())
    blocks = torch.func.jacrev(outputs, argnums=tuple(range(len(parameters))))(*parameters)
    jacobian = torch.cat([block.flatten(2) for block in blocks], dim=2)
    p = outputs(*parameters).softmax(1)
    curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    expected = torch.einsum("ncp,ncd,ndp->", jacobian, curvature, jacobian) / len(p)
    assert case("gauss_newton_trace") == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("case", ["perceptron", "normalised"])
def test_filter_normalised_sharpness(case, request):
    case = request.getfixturevalue(case)
    hessian, parameters = dense_hessian(case)
    scale = torch.cat(
        [
            (p.square().mean(dim=1, keepdim=True).sqrt().expand_as(p) if p.ndim > 1 else 0 * p)
            .flatten()
            for p in parameters
        ]
    )  # fmt: skip
    expected = torch.linalg.eigvalsh(scale[:, None] * hessian * scale)[-1].item()
    assert case("filter_normalised_sharpness") == pytest.approx(expected, rel=1e-4)


def test_filters_may_be_rescaled_in_front_of_batch_norm(normalised):
    before = normalised("filter_normalised_sharpness")
    with torch.no_grad():
        linear, norm = normalised.module[0], normalised.module[1]
        factors = torch.linspace(0.5, 2, 6, dtype=linear.weight.dtype)
        linear.weight.mul_(factors[:, None])
        linear.bias.mul_(factors)
        norm.running_mean.mul_(factors)
        norm.running_var.mul_(factors.square()).add_(norm.eps * (factors.square() - 1))
    after = normalised("filter_normalised_sharpness")
    with torch.no_grad():
        norm.running_var.sub_(norm.eps * (factors.square() - 1)).div_(factors.square())
        norm.running_mean.div_(factors)
        linear.bias.div_(factors)
        linear.weight.div_(factors[:, None])
    assert after == pytest.approx(before, rel=1e-4)


def test_distances_with_and_without_margin(perceptron):
    pairs = [
        (p.detach().double().numpy(), q.detach().double().numpy())
        for p, q in zip(
            perceptron.module.parameters(),
            perceptron.network.initial_module.parameters(),
            strict=True,
        )
        if p.ndim == 2
    ]
    moved = [p - q for p, q in pairs]
    gamma = abs(np.quantile(perceptron.network.margins, 0.1))
    spectral = [np.linalg.norm(p, 2) for p, _ in pairs]
    frobenius = [np.sum(m**2) for m in moved]
    assert min(frobenius) > 0
    expected = {
        "squared_distance_from_initialisation": sum(frobenius),
        "squared_spectral_distance_from_initialisation": sum(
            np.linalg.norm(m, 2) ** 2 for m in moved
        ),
        "log_distance_over_margin": math.log(sum(frobenius) / gamma**2),
        "log_spectral_distance_over_margin": math.log(
            np.prod(spectral) ** 2
            * sum(f / s**2 for f, s in zip(frobenius, spectral, strict=True))
            / gamma**2
        ),
        "log_path_norm_over_margin": math.log(perceptron("path_norm") / gamma**2),
    }
    for name, value in expected.items():
        assert perceptron(name) == pytest.approx(value, rel=1e-6), name


def test_path_norm_takes_batch_norm_as_the_affine_map_it_is(normalised):
    first, norm, _, last = normalised.module
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    weight = scale[:, None] * first.weight.detach()
    bias = scale * (first.bias.detach() - norm.running_mean) + norm.bias.detach()
    # Jiang et al. fuse first; here weights and the shift of batch norm keep their own paths.
    shift = norm.bias.detach() - scale * norm.running_mean
    inner = (weight**2).sum(dim=1) + (scale * first.bias.detach()) ** 2 + shift**2
    expected = ((last.weight.detach() ** 2) @ inner + last.bias.detach() ** 2).sum().item()
    assert normalised("path_norm") == pytest.approx(expected, rel=1e-6)
    assert not torch.allclose(bias**2, inner)


def test_pac_bayes_flatness_against_bisection(perceptron):
    module, inputs, labels = perceptron.module, perceptron.inputs, perceptron.labels
    weights = torch.nn.utils.parameters_to_vector(module.parameters()).detach()
    generator = torch.Generator().manual_seed(0)
    noise = [
        torch.randn(weights.shape, generator=generator, dtype=weights.dtype) for _ in range(10)
    ]
    names = [name for name, _ in module.named_parameters()]
    shapes = [p.shape for p in module.parameters()]

    def accuracy(vector):
        parts = [
            v.view(s)
            for v, s in zip(vector.split([s.numel() for s in shapes]), shapes, strict=True)
        ]
        outputs = functional_call(module, dict(zip(names, parts, strict=True)), (inputs,))
        return (outputs.argmax(1) == labels).double().mean().item()

    reached = accuracy(weights)
    low, high = 0.0, 2.0
    for _ in range(15):
        sigma = (low + high) / 2
        drop = reached - np.mean([accuracy(weights + sigma * e) for e in noise])
        low, high = (low, sigma) if drop > 0.1 else (sigma, high)
    # The drop rises in steps, and both stop at one of the places where it passes a tenth.
    found = perceptron("pac_bayes_flatness") ** -0.5
    for scale in (found * 0.99, sigma * 0.99):
        assert reached - np.mean([accuracy(weights + scale * e) for e in noise]) <= 0.13
    assert found == pytest.approx(sigma, rel=0.15)


@pytest.mark.parametrize(("advantage", "expected"), [(1e6, 0.25), (1e-9, 1e8)])
def test_pac_bayes_flatness_ends_where_the_search_does(measured, advantage, expected):
    """Always the frequent class, by so large a logit that no noise matters, or by next to none."""
    X, y = np.zeros((20, 2)), np.array([0] * 18 + [1] * 2)
    case = measured(nn.Linear, X, y, module__in_features=2, module__out_features=2, max_epochs=1)
    with torch.no_grad():
        case.module.weight.fill_(0.0)
        case.module.bias.copy_(torch.tensor([advantage, 0.0]))
    assert case("pac_bayes_flatness") == pytest.approx(expected, rel=1e-6)


def test_second_sources_are_named():
    assert [name for name, m in MEASURES.items() if m.verified_against is None] == [
        "network_sensitivity"  # its definition is known second-hand
    ]
