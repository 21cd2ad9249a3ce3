"""Lipschitz constants of convolutions, bounded on a grid of frequencies.

A convolution whose input is padded with zeros is a restriction of a circular convolution on a
period long enough that no two output positions, and no two input positions that matter, share a
residue. The circular one is diagonalised by the discrete Fourier transform, and a restriction
never has the larger norm. With a stride ``s`` dividing the period ``N``, output frequency ``q``
sees the ``s`` aliases ``q + j N/s`` of the input, and by Parseval the squared norm is the largest
``|[K(q), K(q + N/s), ...]|_2^2 / s`` per dimension. Proofs are in the functions they belong to.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharpfit.jacobian.lipschitz.errors import CertificateError
from sharpfit.jacobian.lipschitz.registry import LipschitzRule, register_lipschitz
from sharpfit.jacobian.lipschitz.rounding import (
    accumulated_error,
    product_up,
    quotient_up,
    root_up,
    spectral_norm_up,
)

# Complex entries transformed at a time: 64 MiB.
_CHUNK_ENTRIES = 2**22


@dataclass(frozen=True)
class _Axis:
    """One spatial axis: length and padding of the input, and how the kernel walks over it."""

    length: int
    padding: tuple[int, int]
    kernel_size: int
    stride: int
    dilation: int

    @property
    def reach(self) -> int:
        """Distance between the first and the last tap of the kernel."""
        return self.dilation * (self.kernel_size - 1)


def padding_multiplicity(length: int, padding: tuple[int, int], mode: str) -> int:
    """How often padding copies the most copied entry along one axis (squared norm of the map).

    Parameters
    ----------
    length : int
        Number of entries before padding.
    padding : tuple of (int, int)
        Entries added on the left and on the right; negative numbers crop.
    mode : {"constant", "zeros", "reflect", "replicate", "circular"}

    Returns
    -------
    int
    """
    if mode in ("constant", "zeros"):
        return 1
    positions = torch.arange(length, dtype=torch.float64)[None, None]
    padded = F.pad(positions, padding, mode=mode).long().flatten()
    return int(padded.bincount().max()) if padded.numel() else 0


def _grid(axis: _Axis, mode: str) -> tuple[int, int]:
    """Period of the circular convolution that contains this one, and the copies padding makes.

    Zeros: with padding cut to the reach of the kernel (further outputs are zero), positions
    ``-left .. length + right`` are folded onto a period ``length + max(left, right)``. Only
    padding cells, all zero, share a residue, and the outputs that can differ from zero,
    ``length + left + right - reach`` of them, have distinct ones.
    Circular: the period is the length itself as long as no output is computed twice and the
    stride divides it. Any other case, and reflection and replication: padding is a map of its
    own, whose norm is the root of the largest number of copies, followed by a convolution
    without padding, whose windows lie inside a period of the padded length.
    """
    left, right = axis.padding
    if mode == "zeros":
        period, copies = axis.length + max(min(left, axis.reach), min(right, axis.reach)), 1
    else:
        padded = axis.length + left + right
        n_shifts = padded - axis.reach
        if mode == "circular" and n_shifts <= axis.length and axis.length % axis.stride == 0:
            return axis.length, 1
        period, copies = padded, padding_multiplicity(axis.length, axis.padding, mode)
    return axis.stride * math.ceil(period / axis.stride), copies


def _phases(axis: _Axis, period: int, frequencies: Tensor) -> Tensor:
    """Values ``exp(-2 pi i f t / period)`` for every frequency f and tap position t."""
    taps = axis.dilation * torch.arange(axis.kernel_size)
    # Reduced as integers, so that the argument is exact before its one multiplication.
    turns = (frequencies[:, None] * taps) % period
    angles = turns.to(torch.float64) * (-2.0 * math.pi / period)
    return torch.polar(torch.ones_like(angles), angles)


def _circular_norm(kernel: Tensor, axes: Sequence[_Axis], periods: Sequence[int]) -> float:
    """Norm of the strided circular convolution: the largest over its output frequencies.

    The kernel has shape (groups, out_channels, in_channels, ``*kernel_size``).
    """
    n_aliases = math.prod(axis.stride for axis in axes)
    rounding = accumulated_error(sum(kernel.shape[3:]) + 8 * len(axes), is_complex=True)
    absolute = kernel.abs().sum(tuple(range(3, kernel.ndim))).square().sum((1, 2)).sqrt().max()
    entry_error = rounding * math.sqrt(n_aliases) * float(absolute)

    transformed = kernel.to(torch.complex128)
    for axis, period in list(zip(axes, periods, strict=True))[:0:-1]:
        phases = _phases(axis, period, torch.arange(period))
        # The last axis is contracted and its frequencies take the place behind the channels.
        transformed = torch.movedim(transformed @ phases.mT, -1, 3)
    # Now (groups, out, in, frequencies of axes 1.., taps of axis 0).
    first, n_coarse = axes[0], periods[0] // axes[0].stride
    # A real kernel has conjugate values at opposite frequencies: half of one axis suffices.
    coarse = torch.arange(n_coarse // 2 + 1)
    entries = first.stride * math.prod(transformed.shape[:-1])
    largest = 0.0
    for chunk in coarse.split(max(1, _CHUNK_ENTRIES // entries)):
        aliases = (chunk + n_coarse * torch.arange(first.stride)[:, None]).flatten()
        values = torch.movedim(transformed @ _phases(first, periods[0], aliases).mT, -1, 3)
        shape: list[int] = [*values.shape[:3]]
        for axis, size in zip(axes, values.shape[3:], strict=True):
            shape += [axis.stride, size // axis.stride]
        values = values.reshape(shape)
        alias_axes = list(range(3, values.ndim, 2))
        frequency_axes = list(range(4, values.ndim, 2))
        values = values.permute(0, *frequency_axes, 1, 2, *alias_axes)
        matrices = values.flatten(start_dim=len(axes) + 2).flatten(end_dim=-3)
        largest = max(largest, spectral_norm_up(matrices, entry_error=entry_error))
    return quotient_up(largest, math.nextafter(math.sqrt(n_aliases), 0.0))


def convolution_constant(
    weight: Tensor,
    input_size: Sequence[int],
    *,
    stride: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
    groups: int,
    padding_mode: str = "zeros",
) -> float:
    """Upper bound on the spectral norm of a convolution in any number of dimensions.

    Parameters
    ----------
    weight : Tensor of shape (out_channels, in_channels / groups, *kernel_size)
    input_size : sequence of int
        Spatial size of the input.
    stride, dilation : sequence of int
        One per spatial dimension.
    padding : sequence of (int, int)
        Entries added on the left and on the right of every spatial dimension.
    groups : int
    padding_mode : {"zeros", "circular", "reflect", "replicate"}

    Returns
    -------
    float

    Examples
    --------
    >>> import torch
    >>> average = torch.full((1, 1, 3), 1 / 3, dtype=torch.float64)
    >>> bound = convolution_constant(
    ...     average, (8,), stride=(1,), padding=[(1, 1)], dilation=(1,), groups=1,
    ...     padding_mode="circular",
    ... )
    >>> 1.0 <= bound < 1.0 + 1e-12
    True
    """
    kernel = weight.detach().to(device="cpu", dtype=torch.float64)
    kernel = kernel.reshape(groups, kernel.shape[0] // groups, *kernel.shape[1:])
    axes = [
        _Axis(*values)
        for values in zip(input_size, padding, weight.shape[2:], stride, dilation, strict=True)
    ]
    grids = [_grid(axis, padding_mode) for axis in axes]
    copies = math.prod(copies for _, copies in grids)
    norm = _circular_norm(kernel, axes, [period for period, _ in grids])
    if padding_mode == "circular" and any(axis.length % axis.stride for axis in axes):
        # Skipping outputs never raises the norm, and without stride the period may fit.
        dense_axes = [_Axis(a.length, a.padding, a.kernel_size, 1, a.dilation) for a in axes]
        dense_grids = [_grid(axis, padding_mode) for axis in dense_axes]
        dense_copies = math.prod(copies for _, copies in dense_grids)
        dense_norm = _circular_norm(kernel, dense_axes, [period for period, _ in dense_grids])
        return min(product_up(root_up(copies), norm), product_up(root_up(dense_copies), dense_norm))
    return product_up(root_up(copies), norm)


def _two_sided_padding(module: nn.modules.conv._ConvNd) -> list[tuple[int, int]]:
    if module.padding == "valid":
        return [(0, 0)] * len(module.kernel_size)
    if module.padding == "same":
        reaches = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        return [(reach // 2, reach - reach // 2) for reach in reaches]
    return [(int(size), int(size)) for size in module.padding]


def convolution_layer_constant(
    module: nn.modules.conv._ConvNd, input_shape: tuple[int, ...]
) -> float:
    """Largest spectral norm of the kernel over a grid of frequencies, times copies by padding."""
    return scaled_convolution_constant(module, input_shape, torch.ones(module.out_channels))


def scaled_convolution_constant(
    module: nn.modules.conv._ConvNd, input_shape: tuple[int, ...], scales: Tensor
) -> float:
    """Bound the norm of a convolution layer whose output channels are scaled.

    Parameters
    ----------
    module : torch.nn.Conv1d, torch.nn.Conv2d or torch.nn.Conv3d
    input_shape : tuple of int
        Shape of one sample.
    scales : Tensor of shape (out_channels,)

    Returns
    -------
    float
    """
    n_dimensions = len(module.kernel_size)
    weight = module.weight.detach().to(device="cpu", dtype=torch.float64)
    return convolution_constant(
        weight * scales.reshape(-1, *[1] * (n_dimensions + 1)),
        input_shape[-n_dimensions:],
        stride=module.stride,
        padding=_two_sided_padding(module),
        dilation=module.dilation,
        groups=module.groups,
        padding_mode=module.padding_mode,
    )


def transposed_convolution_constant(
    module: nn.modules.conv._ConvTransposeNd, input_shape: tuple[int, ...]
) -> float:
    """Norm of the convolution this layer is the transpose of.

    The transpose of a convolution from the output's size has at least this layer's number of
    inputs; restricting it to them never raises the norm.
    """
    if module.padding_mode != "zeros":
        raise CertificateError(f"padding_mode={module.padding_mode!r} is not supported")
    sizes = input_shape[-len(module.kernel_size) :]
    paddings = [int(size) for size in module.padding]
    output_size = [
        (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + extra + 1
        for size, stride, padding, dilation, kernel, extra in zip(
            sizes,
            module.stride,
            paddings,
            module.dilation,
            module.kernel_size,
            module.output_padding,
            strict=True,
        )
    ]
    return convolution_constant(
        module.weight,
        output_size,
        stride=module.stride,
        padding=[(size, size) for size in paddings],
        dilation=module.dilation,
        groups=module.groups,
    )


_LAYERS: list[tuple[tuple[type[nn.Module], ...], LipschitzRule]] = [
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d), convolution_layer_constant),
    (
        (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
        transposed_convolution_constant,
    ),
]
for _types, _rule in _LAYERS:
    for _type in _types:
        register_lipschitz(_type, _rule)
