"""Graphs that are cheaper to differentiate twice than those PyTorch builds."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sharpfit.linalg.matrix_products import add_times_transposed, times_transposed

_CONVOLUTIONS = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}
_RECTIFIERS: tuple[Any, ...] = (F.relu, torch.relu, torch.Tensor.relu)
_RECTIFIERS_IN_PLACE: tuple[Any, ...] = (F.relu_, torch.relu_, torch.Tensor.relu_)
_PIECEWISE_LINEAR: tuple[Any, ...] = (
    *(F.leaky_relu, F.relu6, F.hardtanh, F.max_pool1d, F.max_pool2d, F.max_pool3d),
    *(torch.max_pool1d, torch.max_pool2d, torch.max_pool3d),
)


class ThirdDerivativeError(RuntimeError):
    """A graph of `LeanDerivatives` would have to be differentiated three times."""


class LeanDerivatives(TorchFunctionMode):
    """While it is active, some operations build graphs that are cheaper to differentiate twice.

    PyTorch's second derivative of a convolution computes that in the input also where nobody
    asks for it, as for the data, and goes about that in the weight in a slow way. For piecewise
    linear operations it fills a tensor with the zeros that the second derivative consists of,
    and carries it on through the graph. Of linear layers it adds up what could go into one
    matrix product. Values and first two derivatives stay what they are; there is no third one.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run an operation, or what stands in for it."""
        kwargs = kwargs or {}
        if not _is_plain(args):
            return func(*args, **kwargs)
        if func in _CONVOLUTIONS:
            return _convolve(func, *args, **kwargs)
        if func is F.linear:
            return _transform(*args, **kwargs)
        if func in _RECTIFIERS:
            return _Rectifier.apply(args[0], (args[1:] or (kwargs.get("inplace", False),))[0])
        if func in _RECTIFIERS_IN_PLACE:
            return _Rectifier.apply(args[0], True)
        if func in _PIECEWISE_LINEAR and not kwargs.get("inplace"):
            return _PiecewiseLinear.apply(args[0], lambda x: func(x, *args[1:], **kwargs))
        return func(*args, **kwargs)


def refuse_third_derivative() -> None:
    """Raise where a backward pass is itself to be differentiated.

    PyTorch's own guard, `once_differentiable`, takes as long as a small product of matrices.

    Raises
    ------
    ThirdDerivativeError
    """
    if torch.is_grad_enabled():
        raise ThirdDerivativeError("third derivatives of this graph are not known")


def _is_plain(args: Sequence[Any]) -> bool:
    """Whether a tensor leads the arguments that nothing but autograd follows."""
    # `vmap` and its kind follow custom functions only by rules that these have not.
    transformed = torch._C._are_functorch_transforms_active()
    return not transformed and bool(args) and type(args[0]) in (Tensor, nn.Parameter)


class _Rectifier(torch.autograd.Function):
    """The rectifier, whose derivative is a constant of the graph."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, inplace: bool) -> Tensor:
        if inplace:
            ctx.mark_dirty(x)
        y = x.relu_() if inplace else x.relu()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(cotangent, y.detach(), 0), None


class _PiecewiseLinear(torch.autograd.Function):
    """A function whose derivative is differentiated in the cotangent alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.enable_grad():
            ctx.point = x.detach().requires_grad_()
            ctx.value = function(ctx.point)
        return ctx.value.detach()

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        pulled = torch.autograd.grad(ctx.value, ctx.point, cotangent, create_graph=True)
        return pulled[0], None


def _convolve(
    convolution: Callable[..., Tensor],
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    axes = _CONVOLUTIONS[convolution]
    if isinstance(padding, str) or x.ndim != axes + 2:
        return convolution(x, weight, bias, stride, padding, dilation, groups)
    geometry = [_each(value, axes) for value in (stride, padding, dilation)]
    return _Convolution.apply(x, weight, bias, (*geometry, False, [0] * axes, groups))


def _each(value: Any, axes: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values


class _Convolution(torch.autograd.Function):
    """A convolution."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, settings: Any) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.settings = settings
        return torch.ops.aten.convolution(x, weight, bias, *settings)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        wanted = ctx.needs_input_grad
        pulled = _PulledBack.apply(cotangent, *ctx.saved_tensors, ctx.settings, wanted[:2])
        summed = None
        if wanted[2]:
            summed = cotangent.sum(dim=[axis for axis in range(cotangent.ndim) if axis != 1])
        return *pulled, summed, None


class _PulledBack(torch.autograd.Function):
    """The cotangents of a convolution's input and weight."""

    @staticmethod
    def forward(
        ctx: Any,
        cotangent: Tensor,
        x: Tensor,
        weight: Tensor,
        settings: Any,
        wanted: tuple[bool, bool],
    ) -> Any:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(cotangent, x, weight)
        ctx.settings = settings
        return _pull_back(cotangent, x, weight, settings, *wanted)

    @staticmethod
    def backward(ctx: Any, x_dot: Tensor | None, weight_dot: Tensor | None) -> Any:
        refuse_third_derivative()
        cotangent, x, weight = ctx.saved_tensors
        settings, wanted = ctx.settings, ctx.needs_input_grad
        cotangent_dot = pulled_x = pulled_weight = None
        if x_dot is not None:
            if wanted[0]:
                cotangent_dot = torch.ops.aten.convolution(x_dot, weight, None, *settings)
            if wanted[2]:
                pulled_weight = _pull_back(cotangent, x_dot, weight, settings, False, True)[1]
        if weight_dot is not None:
            if wanted[0]:
                product = torch.ops.aten.convolution(x, weight_dot, None, *settings)
                cotangent_dot = product if cotangent_dot is None else cotangent_dot.add_(product)
            if wanted[1]:
                pulled_x = _pull_back(cotangent, x, weight_dot, settings, True, False)[0]
        return cotangent_dot, pulled_x, pulled_weight, None, None


def _pull_back(
    cotangent: Tensor, x: Tensor, weight: Tensor, settings: Any, in_x: bool, in_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    found = torch.ops.aten.convolution_backward(
        cotangent, x, weight, None, *settings, [in_x, in_weight, False]
    )
    return found[0] if in_x else None, found[1] if in_weight else None


def _transform(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if x.ndim < 2 or weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):
        return F.linear(x, weight, bias)
    return _Linear.apply(x, weight, bias)


class _Linear(torch.autograd.Function):
    """A linear map of rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _over_rows(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        arguments = (cotangent, *ctx.saved_tensors, ctx.needs_input_grad)
        if torch.is_grad_enabled():
            return _PulledThrough.apply(*arguments)
        return _pull_through(*arguments)


class _PulledThrough(torch.autograd.Function):
    """The cotangents of a linear map's input, weight and bias."""

    @staticmethod
    def forward(
        ctx: Any, cotangent: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool, bool]
    ) -> Any:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(cotangent, x, weight)
        return _pull_through(cotangent, x, weight, wanted)

    @staticmethod
    def backward(
        ctx: Any, x_dot: Tensor | None, weight_dot: Tensor | None, bias_dot: Tensor | None
    ) -> Any:
        refuse_third_derivative()
        cotangent, x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        cotangent_dot = pulled_x = pulled_weight = None
        if wanted[0]:
            tangents = [] if weight_dot is None else [(x, weight_dot)]
            tangents += [] if x_dot is None else [(x_dot, weight)]
            cotangent_dot = _sum_of_transforms(tangents, bias_dot, cotangent)
        if weight_dot is not None and wanted[1]:
            pulled_x = _over_rows(cotangent, weight_dot.T)
        if x_dot is not None and wanted[2]:
            pulled_weight = times_transposed(_rows(cotangent).T, _rows(x_dot).T)
        return cotangent_dot, pulled_x, pulled_weight, None


def _pull_through(
    cotangent: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    rows = _rows(cotangent)
    return (
        _over_rows(cotangent, weight.T) if wanted[0] else None,
        times_transposed(rows.T, _rows(x).T) if wanted[1] else None,
        rows.sum(dim=0) if wanted[2] else None,
    )


def _sum_of_transforms(
    factors: list[tuple[Tensor, Tensor]], bias: Tensor | None, like: Tensor
) -> Tensor:
    """Return the sum of ``x W^T`` over pairs, and of a bias."""
    if not factors:
        return torch.zeros_like(like) if bias is None else bias.expand_as(like).contiguous()
    total = _over_rows(*factors[0], bias)
    for x, weight in factors[1:]:
        add_times_transposed(_rows(total), _rows(x), weight)
    return total


def _over_rows(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    found = times_transposed(_rows(x), weight, bias)
    if x.ndim == 2:
        return found
    # No view in the eyes of autograd, which would forbid to change it in place.
    return torch.ops.aten._unsafe_view(found, [*x.shape[:-1], weight.shape[0]])


def _rows(x: Tensor) -> Tensor:
    return x if x.ndim == 2 else x.flatten(0, -2)
