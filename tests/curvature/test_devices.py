"""The same numbers on every device that is there."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sharpfit.curvature import (
    ConjugateOperator,
    GaussNewtonOperator,
    HessianOperator,
    attribution,
    curvature_trace,
    hessian_spectrum,
    layer_terms,
)
from tests.curvature.reference import dense_hessian, problem, seeded

NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=NO_CUDA)]


@pytest.mark.parametrize(
    ("route", "rows_too"),
    [("closed_form", False), ("closed_form", True), ("traced", True), ("graph", False)],
)
@pytest.mark.parametrize("device", DEVICES)
def test_module_on_a_device(device, route, rows_too):
    module, inputs, targets = problem("cnn", n_rows=9)
    dense = dense_hessian(module, F.cross_entropy, inputs, targets)
    exact = torch.linalg.eigvalsh(dense).flip(0)[:3]
    module = module.to(device)
    if rows_too:
        inputs, targets = inputs.to(device), targets.to(device)
    arguments = (module, nn.CrossEntropyLoss(), inputs, targets)
    settings = {"route": route, "batch_size": 9 if route == "traced" else 4}
    operator = HessianOperator(*arguments, **settings)
    product = operator.matvec(torch.ones(operator.size, dtype=torch.float64, device=device))
    assert product.device.type == device
    torch.testing.assert_close(product.cpu(), dense.sum(1), rtol=0, atol=1e-5)
    result = hessian_spectrum(
        *arguments, n_eigenvalues=3, tol=1e-8, trace=True, density=True, random_state=0, **settings
    )
    np.testing.assert_allclose(result.eigenvalues, exact, rtol=1e-6)
    split = attribution(*arguments, vectors=result.eigenvectors[:, 0], **settings)
    assert split.eigenvalue == pytest.approx(float(exact[0]), rel=1e-6)
    assert split.samples.sum() == pytest.approx(split.eigenvalue)


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_made_of_factors_on_a_device(device):
    module = seeded(
        lambda: nn.Sequential(
            *(nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten()),
            *(nn.Linear(18, 4), nn.ReLU(), nn.Linear(4, 3)),
        )
    )
    module = module.double().to(device)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(5, 1, 4, 4, generator=generator, dtype=torch.float64)
    arguments = (module, nn.CrossEntropyLoss(), inputs, torch.tensor([0, 1, 2, 1, 0]))
    whole = GaussNewtonOperator(*arguments).to_dense()
    trace = curvature_trace(*arguments, matrix="gauss_newton")
    assert trace.method == "exact"
    assert trace.value == pytest.approx(float(whole.trace()))
    conjugate = ConjugateOperator(*arguments).to_dense()
    assert conjugate.device.type == device
    found = torch.linalg.eigvalsh(conjugate)
    torch.testing.assert_close(found, torch.linalg.eigvalsh(whole)[-len(found) :])
    bounded = [terms for terms in layer_terms(*arguments) if terms.applies]
    assert not any((terms.ratio > 1 + 1e-9).any() for terms in bounded)


def test_several_devices_are_refused():
    module, inputs, targets = problem("mlp-tanh")
    module[0].to("meta")
    with pytest.raises(ValueError, match="parameters on cpu, meta; products need one device"):
        HessianOperator(module, nn.CrossEntropyLoss(), inputs, targets)
