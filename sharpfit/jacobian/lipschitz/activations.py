"""Slopes of elementwise activations, and the constants of softmax and log-softmax."""

from collections.abc import Callable

from torch import nn

from sharpfit.jacobian.lipschitz.errors import CertificateError
from sharpfit.jacobian.lipschitz.registry import find_rule, register_lipschitz
from sharpfit.jacobian.lipschitz.rounding import root_up, round_up

SlopeInterval = tuple[float, float]

_UNIT_SLOPES: SlopeInterval = (0.0, 1.0)
# Extreme derivatives, rounded outwards in the last digit. GELU attains its own at +-sqrt(2).
_GELU_SLOPES: SlopeInterval = (-0.1289041451851548, 1.128904145185155)
_GELU_TANH_SLOPES: SlopeInterval = (-0.1289930686587718, 1.128993068658772)
_SILU_SLOPES: SlopeInterval = (-0.09983932012886692, 1.099839320128867)
_MISH_SLOPES: SlopeInterval = (-0.1125261223894626, 1.088498161251728)
_SELU_SLOPES: SlopeInterval = (0.0, 1.758099340847377)


def _leaky(*slopes: float) -> SlopeInterval:
    return (min(1.0, *slopes), max(1.0, *slopes))


def _gelu(module: nn.GELU) -> SlopeInterval:
    return _GELU_TANH_SLOPES if module.approximate == "tanh" else _GELU_SLOPES


def _prelu(module: nn.PReLU) -> SlopeInterval:
    slopes = module.weight.detach().double()
    return _leaky(float(slopes.min()), float(slopes.max()))


def _elu(module: nn.ELU) -> SlopeInterval:
    return (min(0.0, module.alpha), max(1.0, module.alpha))


def _celu(module: nn.CELU) -> SlopeInterval:
    if not module.alpha > 0:
        raise CertificateError(f"alpha={module.alpha} must be positive, or the slope is unbounded")
    return _UNIT_SLOPES


def _softplus(module: nn.Softplus) -> SlopeInterval:
    if module.threshold < 20:
        raise CertificateError(
            f"threshold={module.threshold} below 20 makes a jump where the function turns linear"
        )
    return _UNIT_SLOPES


def _threshold(module: nn.Threshold) -> SlopeInterval:
    if module.threshold != module.value:
        raise CertificateError(
            f"threshold={module.threshold} and value={module.value} differ: the function jumps"
        )
    return _UNIT_SLOPES


_SLOPES: dict[type[nn.Module], Callable[..., SlopeInterval]] = {
    nn.ReLU: lambda module: _UNIT_SLOPES,
    nn.ReLU6: lambda module: _UNIT_SLOPES,
    nn.LeakyReLU: lambda module: _leaky(module.negative_slope),
    nn.PReLU: _prelu,
    nn.RReLU: lambda module: _leaky((module.lower + module.upper) / 2),
    nn.ELU: _elu,
    nn.CELU: _celu,
    nn.SELU: lambda module: _SELU_SLOPES,
    nn.GELU: _gelu,
    nn.SiLU: lambda module: _SILU_SLOPES,
    nn.Mish: lambda module: _MISH_SLOPES,
    nn.Tanh: lambda module: _UNIT_SLOPES,
    nn.Hardtanh: lambda module: _UNIT_SLOPES,
    nn.Sigmoid: lambda module: (0.0, 0.25),
    nn.Hardsigmoid: lambda module: (0.0, round_up(1 / 6)),
    nn.Hardswish: lambda module: (-0.5, 1.5),
    nn.Softplus: _softplus,
    nn.Softsign: lambda module: _UNIT_SLOPES,
    nn.LogSigmoid: lambda module: _UNIT_SLOPES,
    nn.Tanhshrink: lambda module: _UNIT_SLOPES,
    nn.Softshrink: lambda module: _UNIT_SLOPES,
    nn.Threshold: _threshold,
}


def slope_interval(module: nn.Module) -> SlopeInterval | None:
    """Smallest and largest slope of an elementwise activation; None for any other layer.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    tuple of (float, float) or None
        ``(f(a) - f(b)) / (a - b)`` lies in this interval for all numbers ``a != b``.

    Raises
    ------
    CertificateError
        If the parameters of the activation leave its slope unbounded.

    Examples
    --------
    >>> from torch import nn
    >>> slope_interval(nn.LeakyReLU(0.1))
    (0.1, 1.0)
    """
    if find_rule(module) is not activation_constant:
        return None
    return next(_SLOPES[base](module) for base in type(module).__mro__ if base in _SLOPES)


def activation_constant(module: nn.Module, input_shape: tuple[int, ...]) -> float:
    """Largest absolute slope of the activation."""
    low, high = next(_SLOPES[base](module) for base in type(module).__mro__ if base in _SLOPES)
    return max(abs(low), abs(high))


def sample_axis(dim: int | None, input_shape: tuple[int, ...]) -> int:
    """Index into the shape of one sample of a dimension counted with the batch.

    Raises
    ------
    CertificateError
        If the dimension is the batch.
    """
    n_dimensions = len(input_shape) + 1
    if dim is None:
        # What torch assumes: 0 for one and three dimensions, else 1.
        dim = 0 if n_dimensions in (1, 3) else 1
    if not -n_dimensions <= dim < n_dimensions:
        raise CertificateError(f"dim={dim} does not exist in a batch of samples {input_shape}")
    if dim % n_dimensions == 0:
        raise CertificateError(f"dim={dim} is the batch: samples would depend on each other")
    return dim % n_dimensions - 1


def softmax_constant(module: nn.Module, input_shape: tuple[int, ...]) -> float:
    """One half: the largest eigenvalue of diag(p) - p p^T."""
    axis = sample_axis(module.dim, input_shape)  # type: ignore[arg-type]
    return 0.5 if input_shape[axis] > 1 else 0.0


def softmax_2d_constant(module: nn.Module, input_shape: tuple[int, ...]) -> float:
    """One half: the largest eigenvalue of diag(p) - p p^T."""
    return 0.5


def log_softmax_constant(module: nn.LogSoftmax, input_shape: tuple[int, ...]) -> float:
    """Root of the number of classes: the norm of I - 1 p^T at a vertex."""
    n_classes = input_shape[sample_axis(module.dim, input_shape)]
    # The norm is convex in p, hence largest where p is a unit vector. One class: constant 0.
    return root_up(n_classes) if n_classes > 1 else 0.0


for _activation in _SLOPES:
    register_lipschitz(_activation, activation_constant)
register_lipschitz(nn.Softmax, softmax_constant)
register_lipschitz(nn.Softmin, softmax_constant)
register_lipschitz(nn.Softmax2d, softmax_2d_constant)
register_lipschitz(nn.LogSoftmax, log_softmax_constant)
