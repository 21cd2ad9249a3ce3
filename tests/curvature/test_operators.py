import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sharpfit.curvature import (
    ConjugateOperator,
    EmpiricalFisherOperator,
    GaussNewtonOperator,
    HessianOperator,
    ResidualOperator,
)
from tests.curvature.reference import (
    NETWORKS,
    cross_entropy,
    dense_hessian,
    dense_jacobian,
    gauss_newton,
    output_curvature,
    problem,
    seeded,
)
from tests.linalg.conformance import check_symmetric_operator

ROUTES = ["auto", "graph", "traced"]


def dense_matrices(module, inputs, targets):
    """All matrices of the mean cross-entropy, from finite differences."""
    weights = torch.full((len(inputs),), 1 / len(inputs))
    hessian = dense_hessian(module, F.cross_entropy, inputs, targets)
    jacobian = dense_jacobian(module, inputs)
    curvature = output_curvature(module, cross_entropy, inputs, targets)
    first_order = gauss_newton(jacobian, curvature, weights)
    outputs = module(inputs).detach()
    slopes = (outputs.softmax(1) - F.one_hot(targets, 3)) / len(inputs) ** 0.5
    gradients = torch.einsum("nc,ncp->np", slopes, jacobian)
    return {
        HessianOperator: hessian,
        GaussNewtonOperator: first_order,
        ResidualOperator: hessian - first_order,
        EmpiricalFisherOperator: gradients.T @ gradients,
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_operators_equal_finite_differences(name):
    module, inputs, targets = problem(name)
    for kind, dense in dense_matrices(module, inputs, targets).items():
        for route in ROUTES:
            operator = kind(
                module, nn.CrossEntropyLoss(), inputs, targets, batch_size=4, route=route
            )
            torch.testing.assert_close(operator.to_dense(), dense, rtol=0, atol=2e-7)


@pytest.mark.parametrize("route", ROUTES)
def test_operators_conform(route):
    module, inputs, targets = problem("mlp-tanh")
    for kind in (HessianOperator, GaussNewtonOperator, ResidualOperator, EmpiricalFisherOperator):
        check_symmetric_operator(
            kind(module, nn.CrossEntropyLoss(), inputs, targets, batch_size=4, route=route)
        )


@pytest.mark.parametrize("name", NETWORKS)
def test_conjugate_has_the_eigenvalues_of_gauss_newton(name):
    module, inputs, targets = problem(name)
    conjugate = ConjugateOperator(module, nn.CrossEntropyLoss(), inputs, targets, batch_size=4)
    check_symmetric_operator(conjugate)
    jacobian = dense_jacobian(module, inputs)
    curvature = output_curvature(module, cross_entropy, inputs, targets)
    dense = gauss_newton(jacobian, curvature, torch.full((6,), 1 / 6))
    expected, vectors = torch.linalg.eigh(dense)
    found, conjugate_vectors = torch.linalg.eigh(conjugate.to_dense())
    common = min(len(expected), len(found), 6)
    torch.testing.assert_close(found[-common:], expected[-common:], rtol=1e-6, atol=1e-7)
    mapped = conjugate.to_parameters(conjugate_vectors[:, -1]) / found[-1].sqrt()
    torch.testing.assert_close(
        (mapped @ vectors[:, -1]).abs(), torch.tensor(1.0).double(), rtol=1e-6, atol=0
    )


LOSSES = {
    "sum": (nn.CrossEntropyLoss(reduction="sum"), F.cross_entropy, 1),
    "weights": (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5])), F.cross_entropy, 1),
    "smoothing": (nn.CrossEntropyLoss(label_smoothing=0.2), F.cross_entropy, 1),
    "squared": (nn.MSELoss(), F.mse_loss, 3),
    "logistic": (nn.BCEWithLogitsLoss(), F.binary_cross_entropy_with_logits, 3),
    "huber": (nn.SmoothL1Loss(beta=0.5), F.smooth_l1_loss, 3),
}


@pytest.mark.parametrize("name", LOSSES)
def test_hessian_of_every_loss(name):
    criterion, _, _ = LOSSES[name]
    module, inputs, targets = problem("mlp-tanh")
    if not isinstance(criterion, nn.CrossEntropyLoss):
        targets = F.one_hot(targets, 3).double()
    reference = (
        criterion.double()
        if name != "weights"
        else nn.CrossEntropyLoss(weight=criterion.weight.double())
    )
    dense = dense_hessian(module, reference, inputs, targets)
    for route in ROUTES:
        operator = HessianOperator(module, criterion, inputs, targets, batch_size=4, route=route)
        torch.testing.assert_close(operator.to_dense(), dense, rtol=0, atol=2e-7)


def test_linear_regression_in_closed_form():
    inputs = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.5, 0.0]])
    module = seeded(lambda: nn.Linear(2, 1))
    augmented = torch.cat([inputs, torch.ones(3, 1)], dim=1)
    operator = HessianOperator(module, nn.MSELoss(), inputs, torch.zeros(3, 1))
    torch.testing.assert_close(operator.to_dense(), 2 * augmented.T @ augmented / 3)


def test_softmax_regression_in_closed_form():
    module, inputs, targets = problem("linear")
    probabilities = module(inputs).softmax(1).detach()
    augmented = torch.cat([inputs, torch.ones(6, 1)], dim=1)
    spread = torch.diag_embed(probabilities) - probabilities[:, :, None] * probabilities[:, None]
    expected = torch.einsum("nij,na,nb->iajb", spread, augmented, augmented) / 6
    # The parameters are ordered weight (C x d), bias (C).
    order = [5 * c + j for c in range(3) for j in range(4)] + [5 * c + 4 for c in range(3)]
    dense = expected.reshape(15, 15)[order][:, order]
    operator = HessianOperator(module, nn.CrossEntropyLoss(), inputs, targets)
    torch.testing.assert_close(operator.to_dense(), dense)


def test_deep_linear_network_in_closed_form():
    # L = (a b x - y)^2 with scalars: the Hessian is known by hand.
    module = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    with torch.no_grad():
        module[0].weight.fill_(2.0)
        module[1].weight.fill_(-3.0)
    inputs = torch.tensor([[1.5]], dtype=torch.float64)
    targets = torch.tensor([[0.5]], dtype=torch.float64)
    a, b, x, y = 2.0, -3.0, 1.5, 0.5
    cross = 2 * x * (a * b * x - y) + 2 * a * b * x * x
    expected = torch.tensor([[2 * (b * x) ** 2, cross], [cross, 2 * (a * x) ** 2]]).double()
    operator = HessianOperator(module, nn.MSELoss(), inputs, targets)
    torch.testing.assert_close(operator.to_dense(), expected)


def test_sample_weights_act_like_repeated_rows():
    module, inputs, targets = problem("mlp-tanh")
    counts = torch.tensor([1, 2, 0, 3, 1, 1])
    weighted = HessianOperator(
        module, nn.CrossEntropyLoss(), inputs, targets, sample_weight=counts.double(), batch_size=4
    )
    rows = torch.repeat_interleave(torch.arange(6), counts)
    repeated = HessianOperator(module, nn.CrossEntropyLoss(), inputs[rows], targets[rows])
    torch.testing.assert_close(weighted.to_dense(), repeated.to_dense())


def test_selection_takes_the_block_of_the_matrix():
    module, inputs, targets = problem("mlp-tanh")
    names = ["2.weight", "4.bias"]
    dense = dense_hessian(module, F.cross_entropy, inputs, targets, names)
    for route in ROUTES:
        block = HessianOperator(
            module, nn.CrossEntropyLoss(), inputs, targets, parameters=names, route=route
        )
        torch.testing.assert_close(block.to_dense(), dense, rtol=0, atol=2e-7)


def test_weight_decay_and_preconditioner():
    module, inputs, targets = problem("mlp-tanh")
    arguments = (module, nn.CrossEntropyLoss(), inputs, targets)
    plain = HessianOperator(*arguments).to_dense()
    scale = torch.linspace(0.5, 2.0, plain.shape[0]).double()
    operator = HessianOperator(*arguments, weight_decay=0.1, preconditioner=scale)
    check_symmetric_operator(operator)
    expected = (plain + 0.1 * torch.eye(len(scale))) / (scale[:, None] * scale).sqrt()
    torch.testing.assert_close(operator.to_dense(), expected)
    conjugate = ConjugateOperator(*arguments, preconditioner=scale)
    preconditioned = GaussNewtonOperator(*arguments, preconditioner=scale)
    torch.testing.assert_close(
        torch.linalg.eigvalsh(conjugate.to_dense())[-6:],
        torch.linalg.eigvalsh(preconditioned.to_dense())[-6:],
    )


def test_tied_weights_count_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(3, 3)
            self.second = nn.Linear(3, 3)
            self.second.weight = self.first.weight

        def forward(self, inputs):
            return self.second(torch.tanh(self.first(inputs)))

    module = seeded(Tied).double()
    _, inputs, targets = problem("mlp-tanh")
    dense = dense_hessian(module, F.cross_entropy, inputs[:, :3], targets)
    for route in ROUTES:
        operator = HessianOperator(
            module, nn.CrossEntropyLoss(), inputs[:, :3], targets, route=route
        )
        assert operator.size == 15
        torch.testing.assert_close(operator.to_dense(), dense, rtol=0, atol=2e-7)


@pytest.mark.parametrize("route", ROUTES)
def test_recomputation_within_a_memory_budget_changes_nothing(route):
    module, inputs, targets = problem("cnn", n_rows=12)
    arguments = (module, nn.CrossEntropyLoss(), inputs, targets)
    kept = HessianOperator(*arguments, batch_size=2, route=route)
    expected = kept.to_dense()
    assert kept.n_kept_chunks == kept.n_chunks == 6
    state = next(kept.linearisations()).state_bytes()
    partly = HessianOperator(*arguments, batch_size=2, route=route, memory_budget=5 * state)
    torch.testing.assert_close(partly.to_dense(), expected)
    assert partly.n_kept_chunks == 3
    streamed = HessianOperator(*arguments, batch_size=2, route=route, memory_budget=1)
    torch.testing.assert_close(streamed.to_dense(), expected)
    assert streamed.n_kept_chunks == 0


def test_the_users_module_and_random_state_stay_as_they_are():
    module, inputs, targets = problem("cnn", dtype=torch.float32)
    module.train()
    module[0].weight.requires_grad_(False)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    random_state = torch.get_rng_state()
    HessianOperator(module, nn.CrossEntropyLoss(), inputs, targets).to_dense()
    assert module.training
    assert not module[0].weight.requires_grad
    assert all(parameter.grad is None for parameter in module.parameters())
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
        assert value.is_contiguous()
    assert torch.equal(torch.get_rng_state(), random_state)


def test_gradient_is_that_of_autograd():
    module, inputs, targets = problem("cnn")
    expected = torch.autograd.grad(
        F.cross_entropy(module(inputs), targets), list(module.parameters())
    )
    operator = HessianOperator(module, nn.CrossEntropyLoss(), inputs, targets, batch_size=4)
    torch.testing.assert_close(
        operator.gradient(), torch.cat([part.reshape(-1) for part in expected])
    )
