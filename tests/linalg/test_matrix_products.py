"""Products on the kernel of oneDNN: those of float64, and only where it serves."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sharpfit.linalg import matrix_products
from sharpfit.linalg.matrix_products import (
    add_times_transposed,
    plain_products,
    times_transposed,
)

LARGE, SMALL = (200, 96, 112), (7, 5, 3)  # rows, inner, columns
HAS_KERNEL = (
    torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.backends.mkldnn.is_available()
)


@pytest.fixture
def other_maker(monkeypatch):
    """Have products computed as on processors of which MKL leaves AVX-512 unused."""
    monkeypatch.setattr(matrix_products, "_leaves_avx512_unused", lambda processor: True)
    matrix_products._has_kernel.cache_clear()
    yield
    matrix_products._has_kernel.cache_clear()


def factors(shape, dtype=torch.float32):
    rows, inner, columns = shape
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, inner, generator=generator, dtype=torch.float64)
    weight = torch.randn(columns, inner, generator=generator, dtype=torch.float64)
    bias = torch.randn(columns, generator=generator, dtype=torch.float64)
    return x.to(dtype), weight.to(dtype), bias.to(dtype)


class Kernels(TorchDispatchMode):
    """Remember which operations run."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **kwargs or {})

    @property
    def by_onednn(self):
        return any("_linear_pointwise" in name for name in self.names)


@pytest.mark.parametrize(
    "shape", [LARGE, SMALL, (50, 5000, 40), (1, 4000, 300), (4000, 300, 1), (300, 1, 4000)]
)
@pytest.mark.parametrize("transposed", [False, True])
@torch.no_grad()
def test_products_are_those_of_float64(shape, transposed, other_maker):
    x, weight, bias = factors(shape)
    if transposed:
        x, weight = x.T.contiguous().T, weight.T.contiguous().T
    exact = x.double() @ weight.double().T
    rounding = 2e-7 * shape[1] ** 0.5 * float(exact.abs().max())
    total = torch.ones(shape[0], shape[2])
    for found, expected in (
        (times_transposed(x, weight), exact),
        (times_transposed(x, weight, bias), exact + bias.double()),
        (add_times_transposed(total, x, weight), exact + 1),
    ):
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=rounding)
    torch.testing.assert_close(total.double(), exact + 1, rtol=0, atol=rounding)


def strided(tensor):
    """Return the same numbers, two apart along every axis."""
    wide = torch.full([2 * size for size in tensor.shape], torch.nan)
    every_other = tuple(slice(None, None, 2) for _ in tensor.shape)
    wide[every_other] = tensor
    return wide[every_other]


@torch.no_grad()
def test_arguments_may_lie_anyhow():
    x, weight, bias = factors(LARGE)
    exact = x.double() @ weight.double().T
    found = times_transposed(strided(x), strided(weight), strided(bias))
    torch.testing.assert_close(found.double(), exact + bias.double(), rtol=0, atol=1e-4)
    first = x[:1].expand_as(x)
    found = times_transposed(first, weight, bias[:1].expand_as(bias))
    expected = exact[:1].expand_as(exact) + bias[0].double()
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-4)
    windows = torch.randn(400).unfold(0, 200, 1)  # rows that overlap
    for one, other in ((windows, windows[:150]), (windows.T, windows[:, :150].T)):
        found = times_transposed(one, other)
        expected = one.double() @ other.double().T
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("shape", [(), (1,)])
def test_one_bias_for_all_columns(shape):
    x, weight, _ = factors(LARGE)
    bias = torch.full(shape, 0.5)
    torch.testing.assert_close(times_transposed(x, weight, bias), x @ weight.T + 0.5)


@torch.no_grad()
def test_sums_of_many_rows_are_taken_in_parts():
    x, weight, _ = factors((1100, 20, 1000))
    total = torch.ones(1100, 1000)
    found = add_times_transposed(total, x, weight)
    assert found is total
    expected = x.double() @ weight.double().T + 1
    torch.testing.assert_close(total.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.skipif(not HAS_KERNEL, reason="no AVX-512, or no oneDNN")
def test_the_kernel_serves_large_products_in_single_precision_only(other_maker):
    with torch.no_grad():
        for (shape, dtype), expected in {
            (LARGE, torch.float32): True,
            (LARGE, torch.float64): False,
            (SMALL, torch.float32): False,
        }.items():
            with Kernels() as kernels:
                times_transposed(*factors(shape, dtype))
            assert kernels.by_onednn == expected
        # Not by `torch.backends.mkldnn.flags`, which warns of other hardware.
        torch._C._set_mkldnn_enabled(False)
        try:
            with Kernels() as kernels:
                times_transposed(*factors(LARGE))
        finally:
            torch._C._set_mkldnn_enabled(True)
        assert not kernels.by_onednn
        with Kernels() as kernels, plain_products():
            times_transposed(*factors(LARGE))
        assert not kernels.by_onednn
        with Kernels() as kernels:
            times_transposed(*factors(LARGE))
        assert kernels.by_onednn


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        ({}, False),
        ({"cpu_name": "Intel Xeon", "avx_vnni": True}, False),
        ({"cpu_name": "AMD EPYC", "avx_vnni": False}, False),  # its AVX-512 is of half the width
        ({"cpu_name": "AMD EPYC", "avx_vnni": True}, True),
    ],
)
def test_onednn_is_for_processors_that_mkl_does_not_use(processor, expected):
    assert matrix_products._leaves_avx512_unused(processor) == expected


@torch.no_grad()
@pytest.mark.parametrize("shape", [(300, 40, 10), (300, 40, 1), (50, 40, 10), LARGE])
@pytest.mark.parametrize("bias_shape", [None, (), (1,), "columns"])
def test_any_layout_has_the_same_numbers(shape, bias_shape):
    x, weight, bias = factors(shape, torch.float64)
    if bias_shape is None:
        bias = None
    elif bias_shape != "columns":
        bias = torch.full(bias_shape, 0.5, dtype=torch.float64)
    found = times_transposed(x, weight, bias, any_layout=True)
    torch.testing.assert_close(found, x @ weight.T + (0 if bias is None else bias))
    by_columns = shape == (300, 40, 10)
    assert found.t().is_contiguous() == by_columns or shape[2] == 1


def test_derivatives_are_those_of_autograd():
    x, weight, bias = factors(LARGE)
    layer = nn.Linear(*reversed(weight.shape))
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    times_transposed(x, layer.weight, layer.bias).square().sum().backward()
    found = layer.weight.grad.clone()
    layer.zero_grad()
    layer(x).square().sum().backward()
    torch.testing.assert_close(found, layer.weight.grad)


@torch.no_grad()
def test_transforms_see_through():
    x, weight, _ = factors(LARGE)
    stack = torch.stack([x, 2 * x])
    found = torch.func.vmap(lambda rows: times_transposed(rows, weight))(stack)
    torch.testing.assert_close(found, stack @ weight.T, rtol=1e-4, atol=1e-3)
