import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sharpfit.curvature import hessian_spectrum
from tests.curvature.reference import (
    cross_entropy,
    dense_hessian,
    dense_jacobian,
    gauss_newton,
    output_curvature,
    problem,
)


@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
@pytest.mark.parametrize("name", ["mlp-tanh", "cnn"])
def test_eigenvalues_are_those_of_the_dense_hessian(name, which):
    module, inputs, targets = problem(name, n_rows=12)
    expected = torch.linalg.eigvalsh(dense_hessian(module, F.cross_entropy, inputs, targets))
    order = {"largest": -expected, "smallest": expected, "magnitude": -expected.abs()}[which]
    expected = expected[order.argsort()][:4].numpy()
    result = hessian_spectrum(
        module,
        nn.CrossEntropyLoss(),
        inputs,
        targets,
        n_eigenvalues=4,
        which=which,
        tol=1e-6,
        random_state=0,
    )
    assert result.converged.all()
    assert result.miss_probability <= 0.05
    scale = np.abs(expected).max()
    np.testing.assert_allclose(result.eigenvalues, expected, rtol=1e-5, atol=1e-6 * scale)


def test_gauss_newton_share_of_the_top_eigenvalue():
    module, inputs, targets = problem("mlp-tanh", n_rows=12)
    hessian = dense_hessian(module, F.cross_entropy, inputs, targets)
    first_order = gauss_newton(
        dense_jacobian(module, inputs),
        output_curvature(module, cross_entropy, inputs, targets),
        torch.full((12,), 1 / 12),
    )
    values, vectors = torch.linalg.eigh(hessian)
    top = vectors[:, -1]
    expected = float(top @ first_order @ top / values[-1])
    arguments = (module, nn.CrossEntropyLoss(), inputs, targets)
    result = hessian_spectrum(*arguments, n_eigenvalues=1, tol=1e-9, random_state=0)
    assert result.gauss_newton_share == pytest.approx(expected, rel=1e-5)
    decayed = hessian_spectrum(
        *arguments, n_eigenvalues=1, tol=1e-9, random_state=0, weight_decay=0.3
    )
    assert decayed.gauss_newton_share == pytest.approx(expected, rel=1e-5)
    assert decayed.eigenvalues[0] == pytest.approx(result.eigenvalues[0] + 0.3)


def test_trace_and_density_have_error_bars():
    module, inputs, targets = problem("mlp-tanh", n_rows=12)
    dense = dense_hessian(module, F.cross_entropy, inputs, targets)
    result = hessian_spectrum(
        module,
        nn.CrossEntropyLoss(),
        inputs,
        targets,
        n_eigenvalues=100,
        trace=True,
        density=True,
        random_state=0,
    )
    assert len(result.eigenvalues) == len(dense)
    assert abs(result.trace.value - dense.trace()) <= 4 * result.trace.standard_error + 1e-6
    negative = int((torch.linalg.eigvalsh(dense) < -1e-6).sum())
    count, error = result.density.count_below(-1e-6)
    assert abs(count - negative) <= 4 * error + 1e-6


def test_frame_holds_the_eigenvalues():
    module, inputs, targets = problem("linear")
    result = hessian_spectrum(module, nn.CrossEntropyLoss(), inputs, targets, n_eigenvalues=3)
    frame = result.frame()
    assert list(frame["eigenvalue"]) == list(result.eigenvalues)
    assert list(frame["converged"]) == [True] * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"matrix": "fisher"}, "matrix must be one of"),
        ({"n_eigenvalues": 0}, "n_eigenvalues must be an int of at least 1"),
        ({"parameters": "conv"}, "selects no trainable parameter"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"memory_budget": 0}, "memory_budget must be"),
        ({"weight_decay": -1.0}, "weight_decay must be"),
        ({"route": "fast"}, "route must be one of"),
    ],
)
def test_arguments_out_of_range_are_named(change, message):
    module, inputs, targets = problem("linear")
    with pytest.raises(ValueError, match=message):
        hessian_spectrum(module, nn.CrossEntropyLoss(), inputs, targets, **change)


@pytest.mark.parametrize("target", [0.0, 1.0])
def test_gradient_that_misses_the_largest_eigenvectors(target):
    # At zero weights the gradient is along the second axis alone, or zero.
    network = nn.Linear(4, 1, bias=False).double()
    nn.init.zeros_(network.weight)
    inputs = torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.5], dtype=torch.float64))
    targets = torch.tensor([0.0, target, 0.0, 0.0], dtype=torch.float64)
    arguments = (network, nn.MSELoss(), inputs, targets)
    settings = {"n_eigenvalues": 2, "random_state": 0, "preconditioner": torch.full((4,), 2.0)}
    for which in ("largest", "magnitude"):
        result = hessian_spectrum(*arguments, which=which, **settings)
        np.testing.assert_allclose(result.eigenvalues, [9 / 4, 1.0], rtol=1e-3)
