import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sharpfit.curvature import (
    BatchObjective,
    ConjugateOperator,
    GaussNewtonOperator,
    ObjectiveHessianOperator,
    attribution,
    hessian_spectrum,
)
from tests.curvature.reference import dense_hessian, problem
from tests.linalg.conformance import check_symmetric_operator


def penalised(module, inputs, targets):
    quartic = sum(parameter.pow(4).sum() for parameter in module.parameters())
    return F.cross_entropy(module(inputs), targets) + 0.1 * quartic


def test_penalty_is_part_of_the_hessian():
    module, inputs, targets = problem("mlp-tanh")
    weights = torch.cat([parameter.detach().reshape(-1) for parameter in module.parameters()])
    dense = dense_hessian(module, F.cross_entropy, inputs, targets)
    dense += torch.diag(1.2 * weights**2)
    objective = BatchObjective(penalised)
    operator = ObjectiveHessianOperator(module, objective, inputs, targets)
    check_symmetric_operator(operator)
    torch.testing.assert_close(operator.to_dense(), dense, rtol=0, atol=2e-7)
    result = hessian_spectrum(
        *(module, objective, inputs, targets), n_eigenvalues=3, tol=1e-8, random_state=0
    )
    expected = torch.linalg.eigvalsh(dense).flip(0)[:3]
    np.testing.assert_allclose(result.eigenvalues, expected, rtol=1e-6)
    assert np.isnan(result.gauss_newton_share)


def test_what_needs_rows_is_refused():
    module, inputs, targets = problem("mlp-tanh")
    arguments = (module, BatchObjective(penalised), inputs, targets)
    for kind in (GaussNewtonOperator, ConjugateOperator):
        with pytest.raises(ValueError, match=f"{kind.__name__} needs a loss that is a sum"):
            kind(*arguments)
    with pytest.raises(ValueError, match="sum over rows"):
        hessian_spectrum(*arguments, matrix="gauss_newton")
    with pytest.raises(ValueError, match="sum over rows"):
        attribution(*arguments, vectors=torch.ones(3))
    with pytest.raises(ValueError, match="one finite number"):
        ObjectiveHessianOperator(
            module, BatchObjective(lambda module, x, y: module(x)), inputs, targets
        )


def test_criteria_that_are_no_sum_over_rows_are_refused():
    class Largest(nn.Module):
        def forward(self, outputs, targets):
            return (outputs - targets).abs().amax()

    module, inputs, _ = problem("mlp-tanh")
    with pytest.raises(ValueError, match="not a mean over rows"):
        GaussNewtonOperator(module, Largest(), inputs, torch.zeros(6, 3).double())


def test_what_cannot_be_pickled_or_used_is_said():
    inputs, targets = torch.ones(4, 2), torch.ones(4, 1)
    arguments = (nn.Linear(2, 1), BatchObjective(lambda m, x, y: (m(x) - y).square().mean()))
    operator = ObjectiveHessianOperator(*arguments, inputs, targets)
    with pytest.raises(TypeError, match="can be neither pickled nor copied; make another one"):
        pickle.dumps(operator)
    with pytest.raises(ValueError, match=r"weight_decay must be non-negative .* got -1\.0"):
        ObjectiveHessianOperator(*arguments, inputs, targets, weight_decay=-1.0)


def test_random_objectives_are_refused():
    def noisy(module, inputs, targets):
        return (module(inputs + torch.randn_like(inputs)) - targets).square().mean()

    def seeded(module, inputs, targets):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return noisy(module, inputs, targets)

    inputs, targets = torch.ones(4, 2), torch.ones(4, 1)
    with pytest.raises(ValueError, match="the objective returns something else for the same rows"):
        ObjectiveHessianOperator(nn.Linear(2, 1), BatchObjective(noisy), inputs, targets)
    assert ObjectiveHessianOperator(nn.Linear(2, 1), BatchObjective(seeded), inputs, targets).size
