"""Products of matrices on the fastest kernels that PyTorch has for them."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

# Below these, setting a oneDNN product up costs what its kernel gains.
_LEAST_SIDE = 16
_LEAST_MULTIPLICATIONS = 1 << 20
_COPIED = 2048  # columns of a factor that are copied at a time
_ADDED = 1 << 20  # entries of a product that is added to another
# Columns and rows of a product that BLAS computes in half the time if it is laid out by columns.
_FEW_COLUMNS, _MANY_ROWS = range(2, 16), 128

_plain: ContextVar[bool] = ContextVar("plain_products", default=False)


@contextmanager
def plain_products() -> Iterator[None]:
    """Leave all products to the BLAS that PyTorch calls.

    oneDNN compiles kernels for the shapes that it meets, and keeps them: a few megabytes, and half
    a one more for every shape.
    """
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def times_transposed(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, any_layout: bool = False
) -> Tensor:
    """Return ``x W^T + b``.

    Parameters
    ----------
    x : Tensor of shape (n, k)
    weight : Tensor of shape (m, k)
    bias : Tensor of shape (m,), optional
    any_layout : bool, default=False
        Whether the product may lie in memory by columns, where that is faster.

    Returns
    -------
    Tensor of shape (n, m)
    """
    if any_layout and _is_faster_by_columns(x, weight):
        if bias is None:
            return weight.mm(x.t()).t()
        return torch.addmm(bias.reshape(-1, 1), weight, x.t()).t()
    if _is_faster_by_onednn(x, weight) and (bias is None or bias.shape == weight.shape[:1]):
        return _by_onednn(x, weight, bias)
    return x.mm(weight.t()) if bias is None else torch.addmm(bias, x, weight.t())


def add_times_transposed(total: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Add ``x W^T`` in place, and return the sum.

    Parameters
    ----------
    total : Tensor of shape (n, m)
    x : Tensor of shape (n, k)
    weight : Tensor of shape (m, k)

    Returns
    -------
    Tensor of shape (n, m)
    """
    if not _is_faster_by_onednn(x, weight):
        return total.addmm_(x, weight.t())
    step = max(_ADDED // len(weight), _LEAST_SIDE)  # rows, of which the product is held beside it
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        total[rows].add_(_by_onednn(x[rows], weight, None))
    return total


def _is_faster_by_columns(x: Tensor, weight: Tensor) -> bool:
    return len(weight) in _FEW_COLUMNS and len(x) >= _MANY_ROWS and x.device.type == "cpu"


def _is_faster_by_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN computes a product, and sooner than the BLAS that PyTorch calls.

    Of the processors with AVX-512, MKL uses it on those of one maker, and oneDNN on all. On others
    a product takes half the time, by the same arithmetic in float32, if they execute it at its full
    width; those that split it in halves gain nothing.
    """
    if not _has_kernel():
        return False
    rows, inner = x.shape
    columns = weight.shape[0]
    return (
        min(rows, inner, columns) >= _LEAST_SIDE
        and rows * inner * columns >= _LEAST_MULTIPLICATIONS
        and x.dtype is weight.dtype is torch.float32
        and x.device.type == weight.device.type == "cpu"
        # The kernel knows neither autograd nor subclasses nor `torch.func`.
        and not torch.is_grad_enabled()
        and type(x) in (Tensor, nn.Parameter)
        and type(weight) in (Tensor, nn.Parameter)
        and not torch._C._are_functorch_transforms_active()
        and bool(torch.backends.mkldnn.enabled)
        and not _plain.get()
        and _does_not_overlap(x)
        and _does_not_overlap(weight)
    )


def _does_not_overlap(matrix: Tensor) -> bool:
    """Whether rows, or columns, follow one another in memory, or are all the same."""
    (short, count), (long, _) = sorted(zip(matrix.stride(), matrix.shape, strict=True))
    return short == 0 or long >= short * count


@cache
def _has_kernel() -> bool:
    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and _leaves_avx512_unused(getattr(torch.cpu, "get_capabilities", dict)())
    )


def _leaves_avx512_unused(processor: dict[str, Any]) -> bool:
    """Whether MKL makes no use of a processor's AVX-512, though it is of full width."""
    of_mkl = str(processor.get("cpu_name", "Intel")).startswith("Intel")
    # The first of the other makers to have both came with the full width.
    return not of_mkl and bool(processor.get("avx_vnni", False))


def _by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    # The kernel copies a first factor that is not contiguous, so long ones are taken in parts.
    inner = x.shape[1]
    step = inner if x.is_contiguous() else _COPIED
    first = slice(min(step, inner))
    # It reads factors as they lie, but a bias as if it were contiguous.
    total = _multiply(x[:, first], weight[:, first], None if bias is None else bias.contiguous())
    for start in range(step, inner, step):
        part = slice(start, start + step)
        total.add_(_multiply(x[:, part], weight[:, part], None))
    return total


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return found
