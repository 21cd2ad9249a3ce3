"""Deep linear networks with one neuron a layer, where every measured value has a formula.

For ``f(x) = p x``, ``p = w_1 ... w_L``, and the mean squared error with the moments ``s`` of
``x^2`` and ``c`` of ``x y``, and ``u_k = 1 / w_k``: the Jacobian is `p`, the Gauss-Newton matrix
``2 s p^2 u u^T``, the Hessian ``2 p (2 s p - c) u u^T - 2 p (s p - c) diag(u^2)``.
"""

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import nn

from sharpfit import SharpnessMonitor
from sharpfit.curvature import attribution, hessian_spectrum, layer_terms
from sharpfit.monitoring import diagnose

WEIGHTS = {
    "two layers": [0.4, 1.1],
    "unbalanced": [0.3, 1.4, 0.9, 1.2],
    "with signs": [-0.8, 0.5, -1.3],
    "deep": [0.7, 0.9, 1.1, 0.6, 0.8, 1.2, 0.9, 0.7],
}


@pytest.fixture
def rows():
    generator = np.random.default_rng(0)
    x = generator.normal(size=40) + 0.3
    return x, 1.5 * x + 0.2 * generator.normal(size=40)


def tensors(rows):
    return tuple(torch.tensor(values)[:, None] for values in rows)


def chain(weights):
    module = nn.Sequential(*(nn.Linear(1, 1, bias=False, dtype=torch.float64) for _ in weights))
    with torch.no_grad():
        for layer, weight in zip(module, weights, strict=True):
            layer.weight.fill_(weight)
    return module


def hessian(weights, rows):
    x, y = rows
    s, c, p, u = np.mean(x**2), np.mean(x * y), np.prod(weights), 1 / np.asarray(weights)
    return 2 * p * (2 * s * p - c) * np.outer(u, u) - 2 * p * (s * p - c) * np.diag(u**2)


def gauss_newton(weights, rows):
    u = 1 / np.asarray(weights)
    return 2 * np.mean(rows[0] ** 2) * np.prod(weights) ** 2 * np.outer(u, u)


def flow_end(weights, rows):
    """Return where gradient flow ends: all ``w_k^2`` grow by the same number."""
    x, y = rows
    squares, target = np.square(weights), np.mean(x * y) / np.mean(x**2)
    shift = brentq(lambda t: np.prod(squares + t) - target**2, -squares.min(), target**2 + 1)
    return np.sqrt(squares + shift)


def descended(weights, rows, lr, n_updates, every=1, **settings):
    """Return the records of a descent, and the weights at every one of them."""
    inputs, targets = tensors(rows)
    module, criterion = chain(weights), nn.MSELoss()
    optimizer = torch.optim.SGD(module.parameters(), lr=lr)
    monitor = SharpnessMonitor(tol=1e-8, **settings)
    path = []
    for update in range(n_updates + 1):
        if update % every == 0:
            monitor.update(module, criterion, (inputs, targets), optimizer, n_updates=every)
            path.append([layer.weight.item() for layer in module])
        optimizer.zero_grad()
        criterion(module(inputs), targets).backward()
        optimizer.step()
    return monitor.records_, np.array(path)


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
def test_whole_spectrum(weights, matrix, rows):
    formula = {"hessian": hessian, "gauss_newton": gauss_newton}[matrix](weights, rows)
    found = hessian_spectrum(
        chain(weights),
        nn.MSELoss(),
        *tensors(rows),
        matrix=matrix,
        n_eigenvalues=len(weights),
        random_state=0,
    )
    expected = np.linalg.eigvalsh(formula)[::-1]
    np.testing.assert_allclose(found.eigenvalues, expected, atol=1e-8 * expected[0])


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
def test_layers_hold_the_top_curvature_by_their_inverse_squares(weights, rows):
    inverse_squares = np.array(weights) ** -2
    shares = inverse_squares / inverse_squares.sum()
    direction = torch.tensor(np.sqrt(shares) * np.sign(weights))
    split = attribution(
        chain(weights),
        nn.MSELoss(),
        *tensors(rows),
        vectors=direction,
        matrix="gauss_newton",
    )
    np.testing.assert_allclose(split.tensors / split.eigenvalue, shares, rtol=1e-10)
    assert split.eigenvalue == pytest.approx(np.trace(gauss_newton(weights, rows)), rel=1e-10)


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
def test_inequality_between_curvature_and_jacobian_is_an_identity_in_the_mean(weights, rows):
    x, p = rows[0], np.prod(weights)
    trace = np.diag(gauss_newton(weights, rows))
    for place, terms in enumerate(layer_terms(chain(weights), nn.MSELoss(), *tensors(rows))):
        before = np.prod(weights[:place])
        assert terms.applies
        assert terms.trace == pytest.approx(trace[place], rel=1e-10)
        # Features are the input times the weights before; their product with p is what is missing.
        assert terms.mean_jacobian == pytest.approx(2 * np.mean((before * x) ** 2) * p**2)
        assert terms.mean_bound == pytest.approx(terms.mean_jacobian, rel=1e-8)


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
def test_every_measurement_of_a_descent(weights, rows):
    x, y = rows
    records, path = descended(weights, rows, lr=0.02, n_updates=60, every=3)
    for record, w in zip(records, path, strict=True):
        p, formula = np.prod(w), hessian(w, rows)
        top = np.linalg.eigh(formula)[1][:, -1]
        assert record["loss"] == pytest.approx(np.mean((p * x - y) ** 2))
        gradient = 2 * (np.mean(x**2) * p - np.mean(x * y)) * p / w
        assert record["gradient_norm"] == pytest.approx(np.linalg.norm(gradient))
        assert record["sharpness"] == pytest.approx(np.linalg.eigvalsh(formula)[-1])
        part = top @ gauss_newton(w, rows) @ top
        assert record["gauss_newton_part"] == pytest.approx(part, abs=1e-6 * record["sharpness"])
        assert record["jacobian_max"] == pytest.approx(abs(p))
        assert record["jacobian_mean"] == pytest.approx(abs(p))
        # A linear function is as steep between rows as at them.
        assert record["slope_bound"] == pytest.approx(abs(p))
        assert record["loss_slope_bound"] <= abs(p) * (1 + 1e-9)


def test_sharpening_ends_at_the_minimiser_of_gradient_flow(rows):
    weights = WEIGHTS["unbalanced"]
    end = flow_end(weights, rows)
    expected = np.trace(gauss_newton(end, rows))
    records, path = descended(weights, rows, lr=0.02 * 2 / expected, n_updates=3000, every=300)
    np.testing.assert_allclose(path[-1], end, rtol=0.01)
    assert records[-1]["sharpness"] == pytest.approx(expected, rel=0.02)
    assert records[-1]["jacobian_max"] == pytest.approx(
        np.mean(rows[0] * rows[1]) / np.mean(rows[0] ** 2), rel=1e-6
    )


def test_descent_ends_at_the_edge_between_flattest_and_flow_minimiser(rows):
    weights = [0.2, 1.4, 0.9, 2.0]
    x, y = rows
    s, target = np.mean(x**2), np.mean(x * y) / np.mean(x**2)
    flattest = 2 * s * len(weights) * target ** (2 - 2 / len(weights))
    flow = np.trace(gauss_newton(flow_end(weights, rows), rows))
    assert flattest < flow
    limit = (flattest + flow) / 2
    records, path = descended(weights, rows, lr=2 / limit, n_updates=4000, every=100)
    assert records[-1]["stability_limit"] == pytest.approx(limit)
    assert records[-1]["jacobian_max"] == pytest.approx(target, rel=1e-2)
    assert 0.98 * limit < records[-1]["sharpness"] < 1.001 * limit
    assert diagnose(records).edge_update is not None
    # The squares of the weights draw together, as gradient flow never makes them.
    assert np.ptp(path[-1] ** 2) < np.ptp(np.square(weights))


def test_descent_does_not_converge_below_the_flattest_minimiser(rows):
    x, y = rows
    s, target = np.mean(x**2), np.mean(x * y) / np.mean(x**2)
    limit = 0.9 * 2 * s * 4 * target ** (2 - 2 / 4)
    records, _ = descended(WEIGHTS["unbalanced"], rows, lr=2 / limit, n_updates=2000, every=50)
    apart = [abs(record["jacobian_max"] / target - 1) for record in records[-5:]]
    assert min(apart) > 0.01
