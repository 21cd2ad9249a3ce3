"""Parts of a spectrum: in processes, followed, and ended early."""

import threading
from contextlib import contextmanager

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sharpfit.curvature import BatchObjective, HessianOperator, Progress, hessian_spectrum
from sharpfit.curvature.network import differentiable_kernels
from tests.curvature.reference import dense_hessian, problem

SETTINGS = {"n_eigenvalues": 3, "tol": 1e-6, "random_state": 0}


def arguments(name="mlp-tanh"):
    module, inputs, targets = problem(name, n_rows=12)
    return module, nn.CrossEntropyLoss(), inputs, targets


def test_processes_give_the_numbers_of_one():
    request = {**SETTINGS, "which": "smallest", "sharpness": True, "trace": True, "density": True}
    alone = hessian_spectrum(*arguments(), **request)
    together = hessian_spectrum(*arguments(), n_jobs=2, **request)
    np.testing.assert_allclose(together.eigenvalues, alone.eigenvalues, rtol=1e-9)
    np.testing.assert_allclose(together.eigenvectors, alone.eigenvectors, atol=1e-6)
    assert together.sharpness == pytest.approx(alone.sharpness, rel=1e-9)
    assert together.trace.value == pytest.approx(alone.trace.value, rel=1e-9)
    np.testing.assert_allclose(together.density.density, alone.density.density, atol=1e-9)
    for name in ("parameter_names", "n_rows", "n_products", "route", "interrupted"):
        assert getattr(together, name) == getattr(alone, name)


@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
def test_sharpness_is_the_largest_eigenvalue(which):
    module, criterion, inputs, targets = arguments()
    dense = dense_hessian(module, F.cross_entropy, inputs, targets)
    result = hessian_spectrum(
        module, criterion, inputs, targets, which=which, sharpness=True, **SETTINGS
    )
    assert result.sharpness == pytest.approx(float(torch.linalg.eigvalsh(dense)[-1]), rel=1e-5)


def test_sharpness_behind_negative_eigenvalues():
    # Curvatures 2, -8 and -18 of one layer's weights: the two largest in magnitude are negative.
    scales = torch.tensor([1.0, -4.0, -9.0], dtype=torch.float64)
    objective = BatchObjective(lambda module, x, y: (scales * module.weight.square()).sum())
    rows = torch.ones(1, 3, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    problem = nn.Linear(3, 1, bias=False).double(), objective, *rows
    request = {"which": "magnitude", "n_eigenvalues": 2, "random_state": 0}
    assert hessian_spectrum(*problem, **request).sharpness is None
    result = hessian_spectrum(*problem, sharpness=True, **request)
    np.testing.assert_allclose(result.eigenvalues, [-18, -8])
    assert result.sharpness == pytest.approx(2.0)


class Diary(Progress):
    """Writes down what it is told, and interrupts the work after some products."""

    def __init__(self, patience=None):
        self.products = {}
        self.patience = patience

    @contextmanager
    def part(self, name):
        self.products[name] = 0
        yield

    @contextmanager
    def product(self):
        yield
        self.products[list(self.products)[-1]] += 1
        if sum(self.products.values()) == self.patience:
            raise KeyboardInterrupt


def test_progress_is_told_of_parts_and_products():
    diary = Diary()
    result = hessian_spectrum(*arguments(), trace=True, density=True, progress=diary, **SETTINGS)
    assert diary.products == {
        "eigenvalues": result.n_products,
        "trace": result.trace.n_products,
        "density": result.density.n_products,
    }
    assert not result.interrupted


def test_interrupted_work_returns_what_is_known():
    request = {**SETTINGS, "trace": True, "density": True}
    whole = hessian_spectrum(*arguments(), **request)
    early = hessian_spectrum(*arguments(), progress=Diary(8), **request)
    assert early.interrupted
    assert early.n_products <= 8
    assert early.trace is None
    assert early.density is None
    late = hessian_spectrum(*arguments(), progress=Diary(whole.n_products + 1), **request)
    assert late.interrupted
    np.testing.assert_array_equal(late.eigenvalues, whole.eigenvalues)
    assert late.trace is None
    with pytest.raises(KeyboardInterrupt):
        hessian_spectrum(*arguments(), progress=Diary(1), **request)


def test_threads_leave_the_attention_kernels_as_they_were():
    module, criterion, inputs, targets = arguments()
    inside, leave = threading.Event(), threading.Event()

    def stay():
        with differentiable_kernels():
            inside.set()
            leave.wait()

    thread = threading.Thread(target=stay)
    with differentiable_kernels():
        thread.start()
        inside.wait()
    HessianOperator(module, criterion, inputs, targets, route="graph").gradient()
    assert not torch.backends.mha.get_fastpath_enabled()
    leave.set()
    thread.join()
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()
