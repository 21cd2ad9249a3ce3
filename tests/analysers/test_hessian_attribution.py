"""Attribution of an analysis against dense matrices by finite differences."""

import importlib.util
import pickle

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from torch import nn

from sharpfit import HessianSpectrum
from tests.analysers.spectrum_cases import (
    CASES,
    CODES,
    IMAGES,
    Convolutional,
    X,
    cross_entropy,
    dense_gauss_newton,
    dense_hessian,
    skorch_net,
)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
def test_every_split_of_every_loss_sums_to_the_eigenvalue(name, matrix):
    build, rows, targets, _ = CASES[name]
    spectrum = HessianSpectrum(
        build().fit(rows, targets),
        matrix=matrix,
        n_eigenvalues=3,
        tol=1e-8,
        dtype="float64",
        random_state=0,
    ).fit(rows, targets)
    for index in (0, 1, [0, 2]):
        expected = np.mean(spectrum.eigenvalues_[index])
        for by in ("tensor", "layer", "sample", "output"):
            table = spectrum.attribution(index, by=by)
            assert table["contribution"].sum() == pytest.approx(expected, rel=1e-6), by
            assert table["share"].sum() == pytest.approx(1.0, rel=1e-6), by
            if by in ("sample", "output"):
                assert (table["gauss_newton"] >= 0).all()
                parts = table["gauss_newton"] + table["residual"]
                np.testing.assert_allclose(parts, table["contribution"], atol=1e-12)


@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
def test_attribution_over_tensors_is_the_split_of_the_quadratic_form(matrix):
    build, rows, targets, loss = CASES["cross-entropy"]
    estimator = build().fit(rows, targets)
    dense = {"hessian": dense_hessian, "gauss_newton": dense_gauss_newton}[matrix]
    truth = dense(estimator.module_, torch.as_tensor(rows), loss)
    values, vectors = np.linalg.eigh(truth)
    spectrum = HessianSpectrum(
        estimator, matrix=matrix, n_eigenvalues=3, tol=1e-2, dtype="float64", random_state=0
    ).fit(rows, targets)
    table = spectrum.attribution(1)
    assert list(table["parameter"]) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert table["share"].sum() == pytest.approx(1.0)
    assert table["contribution"].sum() == pytest.approx(spectrum.eigenvalues_[1])
    # v . (A v) tensor by tensor, from the exact eigenvector and from the numerical one.
    bounds = np.cumsum([20, 5, 15])
    exact = [part.sum() for part in np.split(values[-2] * vectors[:, -2] ** 2, bounds)]
    np.testing.assert_allclose(table["contribution"], exact, rtol=0.05, atol=1e-3)
    vector = spectrum.eigenvectors_[:, 1]
    form = [part.sum() for part in np.split(vector * (truth @ vector), bounds)]
    assert (np.abs(table["contribution"] - form) <= table["error"] + 1e-7).all()
    pair = spectrum.attribution([0, 1])
    np.testing.assert_allclose(
        pair["share"], (table["share"] + spectrum.attribution()["share"]) / 2
    )
    for index in (3, -1, 0.5, "first", []):
        with pytest.raises(ValueError, match=r"index=.* must lie between 0 and 2"):
            spectrum.attribution(index)


def test_attribution_over_layers_samples_and_outputs_sums_to_the_eigenvalue():
    build, rows, targets, loss = CASES["cross-entropy"]
    estimator = build().fit(rows, targets)
    spectrum = HessianSpectrum(
        estimator, n_eigenvalues=2, tol=1e-6, dtype="float64", random_state=0
    ).fit(rows, targets)
    top = spectrum.eigenvalues_[0]
    layers = spectrum.attribution(by="layer")
    assert list(layers["layer"]) == ["0", "2"]
    assert layers["contribution"].sum() == pytest.approx(top)
    samples = spectrum.attribution(by="sample")
    assert samples["contribution"].sum() == pytest.approx(top, rel=1e-5)
    # One sample's part is the curvature of its own loss along the eigenvector.
    vector, codes = spectrum.eigenvectors_[:, 0], CODES[3:4]
    own = dense_hessian(
        estimator.module_,
        torch.as_tensor(rows[3:4]),
        lambda outputs: cross_entropy(outputs, codes).sum() / len(rows),
    )
    assert samples["contribution"][3] == pytest.approx(vector @ own @ vector, abs=1e-6)
    outputs = spectrum.attribution(by="output")
    assert list(outputs["output"]) == ["a", "b", "c"]
    assert outputs["gauss_newton"].sum() == pytest.approx(
        top * spectrum.gauss_newton_share_, rel=1e-5
    )
    assert (outputs["gauss_newton"] >= 0).all()
    factors = spectrum.attribution(by="factor")
    assert list(factors["layer"]) == ["0", "2"]
    gauss_newton = dense_gauss_newton(estimator.module_, torch.as_tensor(rows), loss)
    traces = [np.trace(gauss_newton[:25, :25]), np.trace(gauss_newton[25:, 25:])]
    np.testing.assert_allclose(factors["trace"], traces, rtol=1e-5)
    assert factors["applies"][0]
    assert factors["largest_ratio"][0] <= 1 + 1e-6


def test_attribution_of_a_loaded_analysis_asks_for_the_rows():
    build, rows, targets, _ = CASES["cross-entropy"]
    spectrum = HessianSpectrum(build().fit(rows, targets), n_eigenvalues=1).fit(rows, targets)
    loaded = pickle.loads(pickle.dumps(spectrum))
    assert loaded.attribution()["share"].sum() == pytest.approx(1.0)
    with pytest.raises(ValueError, match="pass X and y"):
        loaded.attribution(by="sample")
    table = loaded.attribution(by="sample", X=rows, y=targets)
    np.testing.assert_allclose(
        table["contribution"], spectrum.attribution(by="sample")["contribution"]
    )
    with pytest.raises(ValueError, match="given without X"):
        loaded.attribution(by="sample", y=targets)
    with pytest.raises(ValueError, match="by='neuron' must be one of"):
        spectrum.attribution(by="neuron")


def jacobians(module, rows):
    """Derivative of the outputs in the input of every row, flattened, in float64."""
    module = module.double().eval()
    return [
        torch.autograd.functional.jacobian(module, row[None]).flatten(2)[0, :].flatten(1)
        for row in rows
    ]


def test_inequality_has_both_sides_for_every_layer_and_sample():
    build, rows, targets, loss = CASES["cross-entropy"]
    estimator = build().fit(rows, targets)
    spectrum = HessianSpectrum(estimator, n_eigenvalues=1, dtype="float64", random_state=0)
    table = spectrum.fit(rows, targets).attribution(by="inequality")
    assert list(table["layer"]) == ["0"] * 30 + ["2"] * 30
    assert list(table["sample"]) == 2 * list(range(30))
    assert table["applies"].all()
    np.testing.assert_allclose(table["ratio"], table["jacobian"] / table["bound"])
    assert (table["ratio"] <= 1 + 1e-6).all()
    tensor = torch.as_tensor(rows)
    module = estimator.module_
    probabilities = module(tensor).softmax(1).detach()
    curvatures = (
        torch.diag_embed(probabilities) - probabilities[:, :, None] * probabilities[:, None]
    )
    left = [
        float(torch.linalg.eigvals(a @ d @ d.T).real.max())
        for a, d in zip(curvatures, jacobians(module, tensor), strict=True)
    ]
    np.testing.assert_allclose(table["jacobian"][:30], left, rtol=1e-6, atol=1e-12)
    first = dense_gauss_newton(module, tensor, loss)[:25, :25]
    weight = np.linalg.norm(module[0].weight.detach().numpy(), 2)
    right = weight**2 * 30 * np.linalg.eigvalsh(first)[-1] / ((rows**2).sum(axis=1) + 1)
    np.testing.assert_allclose(table["bound"][:30], right, rtol=1e-5)


def test_alignment_is_the_norm_of_the_product_over_the_product_of_norms():
    net = skorch_net(NeuralNetClassifier, Convolutional(), criterion=nn.CrossEntropyLoss)
    net.fit(IMAGES, CODES[:20])
    spectrum = HessianSpectrum(net, n_eigenvalues=1, random_state=0).fit(IMAGES, CODES[:20])
    table = spectrum.attribution(by="alignment")
    values = torch.as_tensor(IMAGES)
    layers = [jacobians(net.module_, values)]
    for layer in net.module_.layers.double().eval():
        if type(layer) is not nn.Flatten:
            layers.append(jacobians(nn.Sequential(layer, nn.Flatten()), values))
        values = layer(values).detach()
    norms = np.array([[float(torch.linalg.matrix_norm(d, 2)) for d in rows] for rows in layers])
    np.testing.assert_allclose(table["jacobian_norm"], norms[0], rtol=2e-3)
    np.testing.assert_allclose(table["product_of_norms"], norms[1:].prod(axis=0), rtol=5e-3)
    np.testing.assert_allclose(
        table["alignment"], table["jacobian_norm"] / table["product_of_norms"]
    )
    assert ((table["alignment"] > 0) & (table["alignment"] <= 1 + 1e-3)).all()
    assert [name for name in table if name.startswith("norm of ")] == [
        f"norm of layers.{place}" for place in (0, 1, 2, 4)
    ]


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, rows):
        return self.one(rows) + self.other(rows)


def test_alignment_of_branches_is_refused():
    net = skorch_net(NeuralNetClassifier, Branches(), criterion=nn.CrossEntropyLoss)
    spectrum = HessianSpectrum(net.fit(X, CODES), n_eigenvalues=1).fit(X, CODES)
    with pytest.raises(ValueError, match="applies one module after the other"):
        spectrum.attribution(by="alignment")


def test_tables_are_dictionaries_without_pandas(monkeypatch):
    build, rows, targets, _ = CASES["cross-entropy"]
    spectrum = HessianSpectrum(build().fit(rows, targets), n_eigenvalues=1).fit(rows, targets)
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pandas" else found(name)
    )
    for by in ("layer", "sample", "inequality", "alignment"):
        table = spectrum.attribution(by=by)
        assert isinstance(table, dict)
        assert len({len(column) for column in table.values()}) == 1


def test_a_module_that_is_one_layer_has_a_label():
    net = skorch_net(NeuralNetClassifier, nn.Linear(4, 3), criterion=nn.CrossEntropyLoss)
    spectrum = HessianSpectrum(net.fit(X, CODES), n_eigenvalues=1).fit(X, CODES)
    for by in ("layer", "factor", "inequality"):
        assert set(spectrum.attribution(by=by)["layer"]) == {"module"}
