"""Lipschitz constants of pooling layers."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharpfit.jacobian.lipschitz.errors import CertificateError
from sharpfit.jacobian.lipschitz.registry import LipschitzRule, register_lipschitz
from sharpfit.jacobian.lipschitz.rounding import product_up, quotient_up, root_up, spectral_norm_up


def _per_axis(value: Any, n_axes: int) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,) * n_axes


def _n_axes(module: nn.Module, types: tuple[type[nn.Module], ...]) -> int:
    """Return the number of spatial axes; `types` are those for one, two and three of them."""
    return next(n for n, base in enumerate(types, start=1) if isinstance(module, base))


def _count_windows(kernel_size: int, stride: int, dilation: int) -> int:
    """Largest number of windows one position lies in, on an axis of any length.

    A position ``x`` is tap ``t`` of window ``i`` where ``x = i stride + t dilation``: the taps
    that fit lie in one residue class modulo ``stride / gcd(stride, dilation)``.
    """
    return math.ceil(kernel_size * math.gcd(stride, dilation) / stride)


def max_pool_constant(
    module: nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d, input_shape: tuple[int, ...]
) -> float:
    """Root of the largest number of windows an entry lies in."""
    if module.return_indices:
        raise CertificateError("return_indices=True returns positions, which jump")
    n_axes = _n_axes(module, _MAX_POOLS)
    windows = zip(
        _per_axis(module.kernel_size, n_axes),
        _per_axis(module.stride, n_axes),
        _per_axis(module.dilation, n_axes),
        strict=True,
    )
    return root_up(math.prod(_count_windows(*window) for window in windows))


def adaptive_max_pool_constant(module: nn.Module, input_shape: tuple[int, ...]) -> float:
    """Root of the largest number of windows an entry lies in."""
    if module.return_indices:
        raise CertificateError("return_indices=True returns positions, which jump")
    windows = 1
    for length, size in _adaptive_axes(module, input_shape, _ADAPTIVE_MAX_POOLS):
        counts = torch.zeros(length, dtype=torch.long)
        for index in range(size):
            counts[index * length // size : math.ceil((index + 1) * length / size)] += 1
        windows *= int(counts.max())
    return root_up(windows)


def adaptive_average_pool_constant(module: nn.Module, input_shape: tuple[int, ...]) -> float:
    """Product over the axes of the norms of the averaging matrices."""
    norms = [
        spectral_norm_up(F.adaptive_avg_pool1d(_unit_vectors(length), size), entry_error=1e-14)
        for length, size in _adaptive_axes(module, input_shape, _ADAPTIVE_AVERAGE_POOLS)
    ]
    return product_up(*norms)


def _adaptive_axes(
    module: nn.Module, input_shape: tuple[int, ...], types: tuple[type[nn.Module], ...]
) -> list[tuple[int, int]]:
    """Length of the input and of the output of every axis; None keeps the length."""
    n_axes = _n_axes(module, types)
    lengths = input_shape[-n_axes:]
    sizes = _per_axis(module.output_size, n_axes)
    return [
        (length, length if size is None else size)
        for length, size in zip(lengths, sizes, strict=True)
    ]


def _unit_vectors(length: int) -> Tensor:
    return torch.eye(length, dtype=torch.float64)[None]


def average_pool_constant(module: nn.Module, input_shape: tuple[int, ...]) -> float:
    """Product over the axes of the norms of the averaging matrices.

    Average pooling is a Kronecker product of one matrix per axis, because the number of entries
    it divides by is a product too. Pooling unit vectors gives these matrices exactly as torch
    counts padding and windows that reach over the edge.
    """
    n_axes = _n_axes(module, _AVERAGE_POOLS)
    windows = zip(
        input_shape[-n_axes:],
        _per_axis(module.kernel_size, n_axes),
        _per_axis(module.stride, n_axes),
        _per_axis(module.padding, n_axes),
        strict=True,
    )
    divisor = getattr(module, "divisor_override", None)
    norms = []
    for length, kernel_size, stride, padding in windows:
        matrix = F.avg_pool2d(
            _unit_vectors(length)[..., None],
            (kernel_size, 1),
            (stride, 1),
            (padding, 0),
            ceil_mode=module.ceil_mode,  # type: ignore[arg-type]
            count_include_pad=module.count_include_pad,  # type: ignore[arg-type]
            # A divisor of one keeps the sums, which the given divisor divides at the end.
            divisor_override=None if divisor is None else 1,
        )[..., 0]
        # Quotients of small integers are within one rounding of the matrix meant.
        norms.append(spectral_norm_up(matrix, entry_error=1e-16 * matrix.numel() ** 0.5))
    return quotient_up(product_up(*norms), 1 if divisor is None else abs(divisor))


_MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_AVERAGE_POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_ADAPTIVE_MAX_POOLS = (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)
_ADAPTIVE_AVERAGE_POOLS = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)

_LAYERS: list[tuple[tuple[type[nn.Module], ...], LipschitzRule]] = [
    (_MAX_POOLS, max_pool_constant),
    (_AVERAGE_POOLS, average_pool_constant),
    (_ADAPTIVE_MAX_POOLS, adaptive_max_pool_constant),
    (_ADAPTIVE_AVERAGE_POOLS, adaptive_average_pool_constant),
]
for _types, _rule in _LAYERS:
    for _type in _types:
        register_lipschitz(_type, _rule)
