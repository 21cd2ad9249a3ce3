"""Limits against torch's own optimisers on quadratics, on both sides of the limit."""

import copy
import math

import pytest
import torch
from torch import nn

from sharpfit.linalg import DenseOperator
from sharpfit.monitoring import (
    SharpnessMonitor,
    StabilityCondition,
    adam_limit,
    heavy_ball_limit,
    nesterov_limit,
    stability_condition,
)

SGD = [
    {"lr": 0.1},
    {"lr": 0.1, "momentum": 0.9},
    {"lr": 0.05, "momentum": 0.5, "nesterov": True},
    {"lr": 0.1, "momentum": 0.8, "dampening": 0.3},
    {"lr": 0.1, "weight_decay": 0.5},
    {"lr": 0.1, "momentum": 0.9, "weight_decay": 2.0},
    {"lr": 0.05, "momentum": 0.5, "nesterov": True, "weight_decay": 1.5},
]


def train(optimizer, weights, curvatures, steps):
    """Train on quadratics; return the largest weight at the end and at any time."""
    peak = size = 0.0
    for _ in range(steps):
        optimizer.zero_grad()
        loss = 0.5 * sum((c * w**2).sum() for c, w in zip(curvatures, weights, strict=True))
        loss.backward()
        optimizer.step()
        size = max(float(w.detach().abs().max()) for w in weights)
        peak = max(peak, size)
        if size > 1e6:
            break
    return size, peak


@pytest.mark.parametrize("settings", SGD)
@pytest.mark.parametrize(("factor", "stable"), [(0.97, True), (1.03, False)])
def test_descent_diverges_exactly_beyond_the_limit(settings, factor, stable):
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = torch.optim.SGD([weight], **settings)
    condition = stability_condition(optimizer, [weight])
    decay = settings.get("weight_decay", 0.0)
    assert float(condition.weight_decay or 0.0) == decay
    assert condition.preconditioner is None
    size, _ = train(optimizer, [weight], [factor * condition.limit - decay], 2000)
    assert (size < 1e-3) == stable
    assert (size > 1e3) != stable


@pytest.mark.parametrize(("factor", "stable"), [(0.97, True), (1.03, False)])
def test_groups_of_different_rates_join_into_one_condition(factor, stable):
    rates = [0.2, 0.05]
    weights = [nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in rates]
    optimizer = torch.optim.SGD(
        [{"params": [w], "lr": lr} for w, lr in zip(weights, rates, strict=True)], momentum=0.9
    )
    condition = stability_condition(optimizer, weights)
    # A coupled quadratic: its largest preconditioned eigenvalue decides.
    basis = torch.linalg.qr(
        torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    )[0]
    hessian = (basis * torch.tensor([1.0, 2.0, 3.0, 8.0])) @ basis.T
    scale = condition.preconditioner.rsqrt()
    top = torch.linalg.eigvalsh(scale[:, None] * hessian * scale).max()
    hessian = hessian * factor * condition.limit / top
    for _ in range(3000):
        optimizer.zero_grad()
        flat = torch.cat(weights)
        (0.5 * flat @ hessian @ flat).backward()
        optimizer.step()
        size = float(flat.detach().abs().max())
        if size > 1e6:
            break
    assert (size < 1e-3) == stable
    assert (size > 1e3) != stable


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (torch.optim.Adam, {"lr": 0.1, "betas": (0.9, 1.0 - 1e-12)}),
        (torch.optim.Adam, {"lr": 0.1, "betas": (0.5, 1.0 - 1e-12), "weight_decay": 0.7}),
        (torch.optim.AdamW, {"lr": 0.1, "betas": (0.9, 1.0 - 1e-12), "weight_decay": 2.0}),
    ],
)
@pytest.mark.parametrize(("factor", "stable"), [(0.97, True), (1.03, False)])
def test_adam_with_a_frozen_preconditioner(kind, settings, factor, stable):
    weight = nn.Parameter(torch.full((2,), 1e-6, dtype=torch.float64))
    optimizer = kind([weight], **settings)
    optimizer.state[weight] = {
        "step": torch.tensor(1e15),
        "exp_avg": torch.zeros_like(weight),
        "exp_avg_sq": torch.tensor([4.0, 0.25], dtype=torch.float64),
    }
    condition = stability_condition(optimizer, [weight])
    torch.testing.assert_close(
        condition.preconditioner, torch.tensor([2.0, 0.5], dtype=torch.float64), rtol=1e-2, atol=0
    )
    decay = 0.0 if condition.weight_decay is None else condition.weight_decay
    curvature = factor * condition.limit * condition.preconditioner - decay
    # Far growth would move the second moments, however slowly they decay.
    size, peak = train(optimizer, [weight], [curvature], 300)
    assert (peak > 1e-4) != stable
    assert not stable or size < 1e-6


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.5}, {"weight_decay": 0.7}])
@pytest.mark.parametrize(("factor", "stable"), [(0.97, True), (1.03, False)])
def test_rmsprop_with_a_frozen_preconditioner(settings, factor, stable):
    weight = nn.Parameter(torch.full((2,), 1e-6, dtype=torch.float64))
    optimizer = torch.optim.RMSprop([weight], lr=0.1, alpha=1.0 - 1e-12, eps=1e-8, **settings)
    optimizer.state[weight] = {
        "step": torch.tensor(1.0),
        "square_avg": torch.tensor([4.0, 0.25], dtype=torch.float64),
        "momentum_buffer": torch.zeros_like(weight),
    }
    condition = stability_condition(optimizer, [weight])
    decay = 0.0 if condition.weight_decay is None else condition.weight_decay
    curvature = factor * condition.limit * condition.preconditioner - decay
    size, peak = train(optimizer, [weight], [curvature], 300)
    assert (peak > 1e-4) != stable
    assert not stable or size < 1e-6


def test_rates_that_fall_below_the_limit_make_training_stable():
    weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = torch.optim.SGD([weight], lr=0.4)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=5, gamma=0.5)
    curvature, sizes = 9.0, []
    for _ in range(20):
        below = curvature < stability_condition(optimizer, [weight]).limit
        before = float(weight.detach().abs())
        optimizer.zero_grad()
        (0.5 * curvature * weight.square().sum()).backward()
        optimizer.step()
        schedule.step()
        sizes.append((below, float(weight.detach().abs()) < before))
    assert {below for below, _ in sizes} == {True, False}
    assert all(below == shrinks for below, shrinks in sizes)


def test_matrix_of_the_condition():
    weight = nn.Parameter(torch.ones(2, dtype=torch.float64))
    hessian = DenseOperator(torch.tensor([[3.0, 1.0], [1.0, 2.0]], dtype=torch.float64))
    plain = stability_condition(torch.optim.SGD([weight], lr=0.1), [weight])
    assert plain.shift == 0.0
    assert plain.trained_matrix(hessian) is hessian
    decayed = stability_condition(torch.optim.SGD([weight], 0.1, weight_decay=0.5), [weight])
    assert decayed.shift == 0.5
    expected = hessian.to_dense() + 0.5 * torch.eye(2)
    torch.testing.assert_close(decayed.trained_matrix(hessian).to_dense(), expected)
    scaled = StabilityCondition(1.0, "", torch.tensor([4.0, 1.0]), torch.tensor([1.0, 2.0]))
    assert scaled.shift is None
    expected = torch.tensor([[1.0, 0.5], [0.5, 4.0]], dtype=torch.float64)
    torch.testing.assert_close(scaled.trained_matrix(hessian).to_dense(), expected)
    assert StabilityCondition(1.0, "", None, torch.tensor([1.0, 2.0])).shift is None


def test_rmsprop_reads_its_state():
    weight = nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer = torch.optim.RMSprop([weight], lr=0.1, momentum=0.5, eps=0.0, weight_decay=0.3)
    assert math.isnan(stability_condition(optimizer, [weight]).limit)
    train(optimizer, [weight], [torch.tensor([1.0, 2.0])], 3)
    condition = stability_condition(optimizer, [weight])
    assert condition.limit == pytest.approx(heavy_ball_limit(0.1, 0.5))
    square = optimizer.state[weight]["square_avg"]
    torch.testing.assert_close(condition.preconditioner, square.sqrt())
    assert condition.weight_decay.tolist() == [0.3, 0.3]
    centred = torch.optim.RMSprop([weight], lr=0.1, centered=True, eps=1e-8)
    train(centred, [weight], [torch.tensor([1.0, 2.0])], 2)
    state = centred.state[weight]
    torch.testing.assert_close(
        stability_condition(centred, [weight]).preconditioner,
        (state["square_avg"] - state["grad_avg"] ** 2).sqrt() + 1e-8,
    )


def test_adam_reads_its_state_with_bias_correction():
    weight = nn.Parameter(torch.ones(2, dtype=torch.float64))
    for settings in ({}, {"amsgrad": True}):
        optimizer = torch.optim.Adam([weight], lr=0.01, **settings)
        condition = stability_condition(optimizer, [weight])
        assert math.isnan(condition.limit)
        assert "no step yet" in condition.statement
        train(optimizer, [weight], [torch.tensor([1.0, 2.0])], 1)
        condition = stability_condition(optimizer, [weight])
        # After one step the corrected second moment is the squared gradient.
        gradient = weight.grad
        torch.testing.assert_close(condition.preconditioner, gradient.abs() + 1e-8)
        assert condition.limit == pytest.approx(3800)


def test_schedules_are_followed():
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    optimizer.step()
    schedule.step()
    assert stability_condition(optimizer, [weight]).limit == pytest.approx(40)


def test_closed_forms():
    assert heavy_ball_limit(0.1) == 20
    assert heavy_ball_limit(0.1, 0.9) == pytest.approx(38)
    assert nesterov_limit(0.1, 0.9) == pytest.approx(3.8 / 0.28)
    assert nesterov_limit(0.1, 0.0) == 20
    assert adam_limit(0.1, 0.9) == pytest.approx(380)
    assert heavy_ball_limit(0.0) == math.inf


def test_unknown_cases_say_why():
    weight, other = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    cases = [
        (torch.optim.Adagrad([weight]), "there is no rule for Adagrad"),
        (torch.optim.SGD([weight], lr=0.1, maximize=True), "maximises"),
    ]
    for optimizer, reason in cases:
        condition = stability_condition(optimizer, [weight])
        assert math.isnan(condition.limit)
        assert reason in condition.statement
    mixed = torch.optim.SGD(
        [{"params": [weight], "momentum": 0.5}, {"params": [other], "momentum": 0.9}], lr=0.1
    )
    condition = stability_condition(mixed, [weight, other])
    assert math.isnan(condition.limit)
    assert "differ in momentum" in condition.statement
    assert stability_condition(torch.optim.SGD([weight], lr=0.0), [weight]).limit == math.inf
    resting = torch.optim.SGD([{"params": [weight], "lr": 0.0}, {"params": [other]}], lr=0.1)
    condition = stability_condition(resting, [weight, other])
    assert math.isnan(condition.limit)
    assert "a group of SGD has learning rate zero" in condition.statement
    assert stability_condition(resting, [other]).limit == 20
    with pytest.raises(ValueError, match="1 of 2 parameters are not moved by SGD"):
        stability_condition(torch.optim.SGD([weight], lr=0.1), [weight, other])


class Wrapped(torch.optim.Optimizer):
    """Holds another optimiser, as Accelerate's does."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    @property
    def param_groups(self):
        return self.optimizer.param_groups


class Renamed(torch.optim.SGD):
    pass


class Halved(torch.optim.SGD):
    def step(self, closure=None):
        super().step(closure)


def test_wrapped_and_renamed_optimisers_are_known():
    weight = nn.Parameter(torch.ones(2))
    plain = torch.optim.SGD([weight], lr=0.1)
    for optimizer in (plain, Wrapped(plain), Wrapped(Wrapped(plain)), Renamed([weight], lr=0.1)):
        assert stability_condition(optimizer, [weight]).limit == pytest.approx(20.0)
    unknown = stability_condition(Halved([weight], lr=0.1), [weight])
    assert math.isnan(unknown.limit)
    assert unknown.statement == "there is no rule for Halved"


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.RMSprop])
def test_a_bias_in_front_of_batch_normalisation(kind):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(60, 4, generator=generator)
    targets = torch.arange(60) % 3
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))
    optimizer = kind(module.parameters(), lr=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(inputs), targets).backward()
        optimizer.step()
    record = SharpnessMonitor().update(module, nn.CrossEntropyLoss(), (inputs, targets), optimizer)
    assert "without 6 parameters" in record["stability_statement"]

    # In training mode, where the bias has no part, in float64.
    wide = copy.deepcopy(module).double().train()
    names = [name for name, _ in wide.named_parameters()]

    def loss(*parameters):
        outputs = torch.func.functional_call(
            wide, dict(zip(names, parameters, strict=True)), (inputs.double(),)
        )
        return nn.functional.cross_entropy(outputs, targets)

    point = tuple(parameter.detach() for parameter in wide.parameters())
    blocks = torch.autograd.functional.hessian(loss, point)
    hessian = torch.cat(
        [
            torch.cat([part.reshape(p.numel(), -1) for part in row], dim=1)
            for row, p in zip(blocks, point, strict=True)
        ]
    )
    scale = stability_condition(optimizer, list(module.parameters())).preconditioner.double()
    trained = torch.linalg.eigvalsh(scale.rsqrt()[:, None] * hessian * scale.rsqrt())[-1]
    # Evaluation mode holds the statistics fixed, which is the rest of the difference.
    assert record["trained_sharpness"] == pytest.approx(float(trained), rel=0.5)


def test_sharpness_has_no_limit_before_the_first_step():
    module = nn.Linear(3, 2)
    data = torch.eye(3), torch.tensor([0, 1, 1])
    optimizer = torch.optim.Adam(module.parameters())
    record = SharpnessMonitor().update(module, nn.CrossEntropyLoss(), data, optimizer)
    assert record["sharpness"] > 0
    assert math.isnan(record["trained_sharpness"])
    assert record["stability_statement"] == "Adam has made no step yet"
