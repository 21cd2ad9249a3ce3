import numpy as np
import pytest
import torch
from torch import nn

from sharpfit.curvature import ConjugateOperator, GaussNewtonOperator, hessian_spectrum
from tests.curvature.reference import mlp, problem, seeded
from tests.curvature.test_trace import Normalised, Sequences, Skips, batch_norm_mlp, relu_cnn


def wide():
    return seeded(lambda: mlp(nn.Tanh, (4, 20, 20, 3))).double()


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (wide, (4,)),
        (Sequences, (2, 6)),
        (Normalised, (2, 6)),
        (relu_cnn, (1, 6, 6)),
        (batch_norm_mlp, (1, 6, 6)),
        (Skips, (1, 6, 6)),
    ],
)
def test_dense_form_is_that_of_the_products(build, shape):
    module = seeded(build).double()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(5, *shape, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 3, (5,), generator=generator)
    operator = ConjugateOperator(
        module,
        nn.CrossEntropyLoss(),
        inputs,
        targets,
        sample_weight=torch.linspace(0.5, 2, 5),
        parameters="weight",
    )
    identity = torch.eye(operator.size, dtype=torch.float64)
    torch.testing.assert_close(operator.to_dense(), operator.matmat(identity))


@pytest.mark.parametrize("weight_decay", [0.0, 0.2])
def test_spectrum_through_the_outputs_is_that_of_gauss_newton(weight_decay):
    module = wide()
    _, inputs, targets = problem("mlp-tanh")
    arguments = (module, nn.CrossEntropyLoss(), inputs, targets)
    result = hessian_spectrum(
        *arguments,
        matrix="gauss_newton",
        n_eigenvalues=4,
        tol=1e-9,
        random_state=0,
        weight_decay=weight_decay,
    )
    dense = GaussNewtonOperator(*arguments, weight_decay=weight_decay).to_dense()
    expected = torch.linalg.eigvalsh(dense).flip(0)[:4]
    np.testing.assert_allclose(result.eigenvalues, expected, rtol=1e-7)
    residuals = dense @ result.eigenvectors - result.eigenvectors * torch.tensor(result.eigenvalues)
    assert (residuals.norm(dim=0).numpy() <= result.residual_norms + 1e-10).all()
    gram = result.eigenvectors.T @ result.eigenvectors
    torch.testing.assert_close(gram, torch.eye(4).double(), rtol=0, atol=1e-6)


def test_zero_eigenvalues_come_from_the_space_of_parameters():
    # One row of three classes leaves two eigenvalues that are not zero.
    module = wide()
    _, inputs, targets = problem("mlp-tanh", n_rows=1)
    result = hessian_spectrum(
        *(module, nn.CrossEntropyLoss(), inputs, targets),
        matrix="gauss_newton",
        n_eigenvalues=3,
        random_state=0,
    )
    assert result.eigenvalues[1] > 1e-6
    assert abs(result.eigenvalues[2]) < 1e-9
    assert result.eigenvectors.shape[0] == sum(p.numel() for p in module.parameters())


def test_weight_decay_is_refused():
    module, inputs, targets = problem("linear")
    with pytest.raises(ValueError, match="no meaning in the space of outputs"):
        ConjugateOperator(module, nn.CrossEntropyLoss(), inputs, targets, weight_decay=0.1)
