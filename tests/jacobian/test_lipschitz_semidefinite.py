"""The semidefinite certificate against closed forms, a solver, and searches for violations."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sharpfit.jacobian import lipschitz_certificate
from sharpfit.jacobian.lipschitz.chain import AffineMap, dense_chain
from sharpfit.jacobian.lipschitz.ellipsoids import best_ellipsoids
from sharpfit.jacobian.lipschitz.graph import LipschitzInterpreter, trace
from sharpfit.jacobian.lipschitz.linear_matrix_inequality import ChainInequality
from sharpfit.jacobian.lipschitz.rounding import is_positive_semidefinite


def network_of(*widths, activation=nn.ReLU, seed=0):
    layers = []
    generator = torch.Generator().manual_seed(seed)
    for n_inputs, n_outputs in itertools.pairwise(widths):
        layer = nn.Linear(n_inputs, n_outputs).double()
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        layers += [layer, activation()]
    return nn.Sequential(*layers[:-1])


def chain_of(network, n_inputs):
    interpreter = LipschitzInterpreter(trace(network), (n_inputs,))
    interpreter.bound()
    return dense_chain(interpreter)


def both(network, shape):
    return (
        lipschitz_certificate(network, shape),
        lipschitz_certificate(network, shape, method="semidefinite"),
    )


def largest_over_patterns(network):
    """Largest norm over all slopes 0 and 1 of the neurons: no relaxation can prove less."""
    weights = [layer.weight.detach() for layer in network if isinstance(layer, nn.Linear)]
    products = weights[0][None]
    for weight in weights[1:]:
        width = weight.shape[1]
        patterns = torch.tensor(list(itertools.product([0.0, 1.0], repeat=width))).double()
        products = (weight * patterns[:, None]) @ products[:, None]
        products = products.flatten(end_dim=1)
    return float(torch.linalg.matrix_norm(products, 2).max())


def test_absolute_value_has_constant_one():
    network = network_of(1, 2, 1)
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        network[2].weight.copy_(torch.tensor([[1.0, 1.0]]))
    product, semidefinite = both(network, (1,))
    assert float(product) == pytest.approx(2.0)
    assert 1.0 <= float(semidefinite) <= 1.0 + 1e-4
    assert semidefinite.margin_constant == float(semidefinite)


@pytest.mark.parametrize("seed", range(4))
def test_between_the_best_possible_relaxation_and_the_product(seed):
    network = network_of(3, 5, 4, 3, seed=seed)
    product, semidefinite = both(network, (3,))
    lower = largest_over_patterns(network)
    assert lower <= float(semidefinite) < float(product)
    assert float(semidefinite) <= 1.15 * lower
    assert semidefinite.margin_constant < product.margin_constant
    assert semidefinite.method == "semidefinite"
    assert semidefinite.rules[-1].kind == "dense chain"
    assert semidefinite.rules[:-1] == product.rules


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.GELU, nn.LeakyReLU])
def test_equals_the_optimum_of_a_semidefinite_solver(activation):
    cvxpy = pytest.importorskip("cvxpy")
    network = network_of(3, 6, 5, 2, activation=activation, seed=3)
    chain = chain_of(network, 3)
    sizes = [3, 6, 5]
    starts = [0, 3, 9]
    multipliers = [cvxpy.Variable(6, nonneg=True), cvxpy.Variable(5, nonneg=True)]
    rho = cvxpy.Variable()

    def embed(index):
        matrix = torch.zeros(sizes[index], 14, dtype=torch.float64)
        matrix[:, starts[index] : starts[index] + sizes[index]] = torch.eye(sizes[index])
        return matrix

    form = rho * (embed(0).T @ embed(0)).numpy()
    head = network[-1].weight.detach() @ embed(2)
    form = form - (head.T @ head).numpy()
    for index, stage in enumerate(chain.stages):
        behind, before = embed(index + 1), stage.affine.matrix @ embed(index)
        lower, upper = (behind - stage.low * before).numpy(), (stage.high * before - behind).numpy()
        weighted = lower.T @ cvxpy.diag(multipliers[index]) @ upper
        form = form - (weighted + weighted.T) / 2
    problem = cvxpy.Problem(cvxpy.Minimize(rho), [form >> 0])
    problem.solve(solver="CLARABEL")
    optimum = math.sqrt(problem.value)
    constant = float(lipschitz_certificate(network, (3,), method="semidefinite"))
    assert optimum * (1 - 1e-6) <= constant <= optimum * 1.01


def test_the_inequality_refuses_a_constant_that_is_too_small():
    network = network_of(2, 4, 3, seed=1)
    chain = chain_of(network, 2)
    found = best_ellipsoids(chain.stages, chain.head.matrix)
    inequality = ChainInequality(chain.stages, found.diagonals)
    proved = inequality.prove(chain.head, found.squared_constant)
    assert proved == pytest.approx(math.sqrt(found.squared_constant), rel=1e-6)
    assert inequality.prove(chain.head, 0.99 * found.squared_constant) == math.inf
    wrong = ChainInequality(chain.stages, [d * 1e-3 for d in found.diagonals])
    assert wrong.prove(chain.head, found.squared_constant) == math.inf


def test_positive_semidefinite_is_proved_only_with_room():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(20, 8, generator=generator, dtype=torch.float64)
    singular = root @ root.T
    identity = torch.eye(20, dtype=torch.float64)
    assert not is_positive_semidefinite(singular - 1e-9 * identity)
    assert is_positive_semidefinite(singular + 1e-9 * identity)
    assert not is_positive_semidefinite(singular + 1e-9 * identity, entry_error=1e-8)


def test_batch_norm_and_several_linear_layers_are_folded():
    network = network_of(3, 4, 4, 2, seed=2)
    norm = nn.BatchNorm1d(4).double().eval()
    with torch.no_grad():
        for tensor in (norm.weight, norm.running_var):
            tensor.uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(1))
        scales = norm.weight / (norm.running_var + norm.eps).sqrt()
        folded = network_of(3, 4, 4, 2, seed=2)
        folded[0].weight.copy_(scales[:, None] * folded[0].weight)
        folded[4].weight.copy_(torch.diag(torch.tensor([2.0, 3.0])).double() @ folded[4].weight)
    last = nn.Linear(2, 2, bias=False).double()
    with torch.no_grad():
        last.weight.copy_(torch.diag(torch.tensor([2.0, 3.0])))
    layered = nn.Sequential(network[0], norm, nn.Dropout(), *network[1:], last)
    constant = float(lipschitz_certificate(layered, (3,), method="semidefinite"))
    expected = float(lipschitz_certificate(folded, (3,), method="semidefinite"))
    assert constant == pytest.approx(expected, rel=1e-4)


def test_affine_maps_compose_with_their_errors():
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(3, 3, generator=generator).double() for _ in range(2))
    zeros = torch.zeros(3, dtype=torch.float64)
    once = AffineMap.identity(3).followed_by(first, zeros)
    assert once.relative_error == 0.0
    twice = once.followed_by(second, zeros + 1)
    assert torch.allclose(twice.matrix, second @ first)
    assert torch.equal(twice.offset, zeros + 1)
    assert 0 < twice.relative_error < 1e-14
    differences = twice.row_differences()
    assert torch.equal(differences.matrix[0], twice.matrix[0] - twice.matrix[1])
    assert bool((differences.envelope >= differences.matrix.abs()).all())


def test_only_the_dense_end_of_a_convolutional_network_is_refined():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten())
    tail = nn.Sequential(nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 3))
    start = float(lipschitz_certificate(body, (1, 6, 6)))
    end = float(lipschitz_certificate(tail, (32,), method="semidefinite"))
    whole = lipschitz_certificate(nn.Sequential(body, tail), (1, 6, 6), method="semidefinite")
    assert float(whole) == pytest.approx(start * end, rel=1e-6)


def test_without_a_dense_end_it_is_the_product():
    for network, shape in [(nn.Sequential(nn.Conv1d(1, 1, 3)), (1, 5)), (nn.Linear(3, 2), (3,))]:
        product, semidefinite = both(network, shape)
        assert float(semidefinite) == float(product)
        assert semidefinite.rules == product.rules


def test_functional_networks_are_refined_like_layers():
    layers = network_of(3, 6, 2)

    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = layers[0], layers[2]

        def forward(self, inputs):
            hidden = torch.relu(nn.functional.linear(inputs, self.first.weight, self.first.bias))
            return self.last(hidden)

    random_state = torch.get_rng_state()
    assert float(lipschitz_certificate(Functional(), 3, method="semidefinite")) == float(
        lipschitz_certificate(layers, 3, method="semidefinite")
    )
    assert torch.equal(torch.get_rng_state(), random_state)


ACTIVATIONS = [nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Softplus, nn.Hardswish, nn.ELU, nn.LeakyReLU]


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(ACTIVATIONS),
    st.lists(st.integers(1, 6), min_size=3, max_size=5),
    st.integers(0, 10_000),
)
def test_no_input_violates_the_refined_certificate(activation, widths, seed):
    network = network_of(*widths, activation=activation, seed=seed)
    product, certificate = both(network, (widths[0],))
    assert float(certificate) <= float(product)
    assert certificate.margin_constant <= product.margin_constant
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(400, widths[0], generator=generator, dtype=torch.float64)
    points *= torch.logspace(-2, 1.5, 400, dtype=torch.float64)[:, None]
    jacobians = torch.func.vmap(torch.func.jacrev(network))(points).detach()
    assert float(torch.linalg.matrix_norm(jacobians, 2).max()) <= float(certificate)
    first, second = torch.triu_indices(widths[-1], widths[-1], offset=1).unbind()
    if len(first):
        differences = jacobians[:, first] - jacobians[:, second]
        assert float(differences.norm(dim=2).max()) <= certificate.margin_constant
