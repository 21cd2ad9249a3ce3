import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sharpfit.curvature import GaussNewtonOperator, attribution, hessian_spectrum, layer_terms
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


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
def test_shares_are_those_of_the_dense_matrices(name, matrix):
    module, inputs, targets = problem(name)
    hessian = dense_hessian(module, F.cross_entropy, inputs, targets)
    jacobian = dense_jacobian(module, inputs)
    curvature = output_curvature(module, cross_entropy, inputs, targets)
    weights = torch.full((6,), 1 / 6)
    first_order = gauss_newton(jacobian, curvature, weights)
    whole = hessian if matrix == "hessian" else first_order
    values, vectors = torch.linalg.eigh(whole)
    v = vectors[:, -1]
    split = attribution(
        module,
        nn.CrossEntropyLoss(),
        inputs,
        targets,
        vectors=v,
        matrix=matrix,
        batch_size=4,
        weight_decay=0.1,
    )
    top = float(values[-1])
    assert split.eigenvalue == pytest.approx(top + 0.1, rel=1e-6)
    assert split.gauss_newton == pytest.approx(float(v @ first_order @ v), rel=1e-5)
    assert split.residual == pytest.approx(top - split.gauss_newton, abs=1e-6)
    assert split.samples.sum() == pytest.approx(top, rel=1e-6)
    assert split.outputs.sum() == pytest.approx(top, rel=1e-6)
    assert split.outputs_gauss_newton.sum() == pytest.approx(split.gauss_newton, rel=1e-6)
    assert sum(split.layers.values()) == pytest.approx(top, rel=1e-6)
    sizes = [parameter.numel() for parameter in module.parameters()]
    energies = np.array([float(part.square().sum()) for part in v.split(sizes)])
    np.testing.assert_allclose(split.tensors, top * energies, atol=1e-6)
    assert (np.abs(split.tensors - top * energies) <= split.tensor_errors + 1e-6).all()

    slopes = jacobian @ v
    per_row = torch.einsum("ni,nij,nj->n", slopes, curvature, slopes) / 6
    np.testing.assert_allclose(split.samples_gauss_newton, per_row, atol=1e-6)
    probabilities = module(inputs).softmax(1).detach()
    mean = (probabilities * slopes).sum(1, keepdim=True)
    per_output = (probabilities * (slopes - mean) ** 2).mean(0)
    np.testing.assert_allclose(split.outputs_gauss_newton, per_output, atol=1e-6)
    residual = np.zeros(3)
    if matrix == "hessian":
        pull = (probabilities - F.one_hot(targets, 3)) / 6  # of the loss in the outputs
        for output in range(3):
            second = dense_hessian(
                module, lambda outputs, _, c=output: (pull[:, c] * outputs[:, c]).sum(), inputs, 0
            )
            residual[output] = v @ second @ v
    np.testing.assert_allclose(split.outputs - per_output.numpy(), residual, atol=1e-6)
    if matrix == "hessian":
        for row in (0, 5):
            one = dense_hessian(
                module, F.cross_entropy, inputs[row : row + 1], targets[row : row + 1]
            )
            assert split.samples[row] == pytest.approx(float(v @ one @ v) / 6, abs=1e-6)
    assert set(split.frame().columns) == {"tensor", "layer", "share", "fraction", "error"}


def test_repeated_eigenvalues_are_averaged_over_the_eigenspace():
    # Two outputs of a linear network do not interact: every eigenvalue is double.
    module = seeded(lambda: nn.Linear(2, 2, bias=False)).double()
    inputs = torch.tensor([[3.0, 1.0], [1.0, 2.0]]).double()
    targets = torch.zeros(2, 2).double()
    arguments = (module, nn.MSELoss(), inputs, targets)
    result = hessian_spectrum(*arguments, n_eigenvalues=2, tol=1e-9, random_state=0)
    np.testing.assert_allclose(*result.eigenvalues, rtol=1e-8)
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]]).double()
    one = attribution(*arguments, vectors=result.eigenvectors)
    other = attribution(*arguments, vectors=result.eigenvectors @ turn)
    np.testing.assert_allclose(one.outputs, other.outputs)
    np.testing.assert_allclose(one.outputs, [result.eigenvalues[0] / 2] * 2)


def test_wrong_vectors_are_refused():
    module, inputs, targets = problem("linear")
    arguments = (module, nn.CrossEntropyLoss(), inputs, targets)
    with pytest.raises(ValueError, match="vectors has shape"):
        attribution(*arguments, vectors=torch.ones(3))
    with pytest.raises(ValueError, match="expected unit vectors"):
        attribution(*arguments, vectors=torch.ones(15))
    with pytest.raises(ValueError, match="a preconditioner"):
        attribution(*arguments, vectors=torch.ones(15), preconditioner=torch.ones(15))


def test_layer_terms_of_a_network():
    module, inputs, targets = problem("mlp-tanh", n_rows=8)
    arguments = (module, nn.CrossEntropyLoss(), inputs, targets)
    terms = layer_terms(*arguments, batch_size=4)
    assert [layer.name for layer in terms] == ["0", "2", "4"]
    x = inputs.clone().requires_grad_()
    outputs = module(x)
    jacobian = torch.stack([torch.autograd.grad(c.sum(), x, retain_graph=True)[0]
                            for c in outputs.unbind(1)], dim=1)  # fmt: skip
    curvature = output_curvature(module, cross_entropy, inputs, targets)
    left = torch.linalg.eigvalsh(curvature @ jacobian @ jacobian.mT).real
    squares = torch.linalg.eigvals(curvature @ jacobian @ jacobian.mT).real.amax(1)
    assert left.shape == (8, 3)
    for layer in terms:
        names = [f"{layer.name}.weight", f"{layer.name}.bias"]
        block = GaussNewtonOperator(*arguments, parameters=names).to_dense()
        assert layer.trace == pytest.approx(float(block.trace()), rel=1e-6)
        assert layer.largest_eigenvalue == pytest.approx(
            float(torch.linalg.eigvalsh(block)[-1]), rel=1e-4
        )
        product = layer.feature_energy * layer.backward_energy * layer.loss_curvature
        assert layer.alignment == pytest.approx(layer.trace / product)
        assert layer.applies
        np.testing.assert_allclose(layer.jacobian, squares, rtol=1e-4, atol=1e-9)
        assert (layer.ratio <= 1).all()
        assert layer.mean_jacobian <= layer.mean_bound
    first = terms[0]
    spectral = torch.linalg.matrix_norm(module[0].weight.detach(), 2) ** 2
    expected = spectral * first.largest_eigenvalue * 8 / (inputs.square().sum(1) + 1)
    np.testing.assert_allclose(first.bound, expected, rtol=1e-6)


def test_the_inequality_is_not_claimed_around_a_layer():
    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.head = nn.Linear(4, 3)

        def forward(self, inputs):
            return self.head(inputs + torch.tanh(self.layer(inputs)))

    _, inputs, targets = problem("mlp-tanh")
    terms = layer_terms(seeded(Skip).double(), nn.CrossEntropyLoss(), inputs, targets)
    assert [layer.applies for layer in terms] == [False, True]


def test_layer_terms_need_a_dense_layer():
    module = seeded(lambda: nn.Sequential(nn.Conv2d(1, 3, 4), nn.Flatten())).double()
    with pytest.raises(ValueError, match="no dense layer"):
        layer_terms(
            module, nn.CrossEntropyLoss(), torch.ones(2, 1, 4, 4).double(), torch.tensor([0, 1])
        )
