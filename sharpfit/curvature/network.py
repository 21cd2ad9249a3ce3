"""A private copy of the user's module, ready to be differentiated."""

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sharpfit.curvature.parameters import ParameterChoice, ParameterSelection, select_parameters

_WIDE = (torch.float32, torch.float64)


@dataclass(frozen=True)
class Network:
    """A module in eval mode whose selected parameters alone require gradients.

    Attributes
    ----------
    module : torch.nn.Module
        A deep copy: later changes of the user's module do not reach it, nor the reverse.
    selection : ParameterSelection
        The parameters differentiated in.
    parameters : tuple of Tensor
        Those parameters, in the order of `selection`.
    """

    module: nn.Module
    selection: ParameterSelection
    parameters: tuple[Tensor, ...]

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the selected parameters."""
        return self.parameters[0].dtype

    @property
    def device(self) -> torch.device:
        """Device of the selected parameters."""
        return self.parameters[0].device

    def split(self, vector: Tensor) -> tuple[Tensor, ...]:
        """Split a flat vector into parts laid out in memory like the parameters."""
        return tuple(
            torch.empty_like(parameter).copy_(part)
            if part.ndim == 4 and not parameter.is_contiguous()
            else part
            for parameter, part in zip(self.parameters, self.selection.split(vector), strict=True)
        )


def snapshot(
    module: nn.Module, parameters: ParameterChoice = None, dtype: torch.dtype | None = None
) -> Network:
    """Copy a module into a `Network`.

    Parameters
    ----------
    module : torch.nn.Module
        Never modified.
    parameters : str, iterable of str, callable or None
        See `select_parameters`.
    dtype : torch.dtype or None
        ``torch.float32`` or ``torch.float64`` to convert the copy to; None keeps the
        module's own, which has to be one of the two.

    Returns
    -------
    Network

    Raises
    ------
    TypeError
        If `module` is no module.
    ValueError
        If the parameters have half precision and no `dtype` is given.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {module!r}")
    if dtype is not None and dtype not in _WIDE:
        raise ValueError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
    selection = select_parameters(module, parameters)
    copied = copy.deepcopy(module).eval()
    for parameter in copied.parameters():
        parameter.grad = None
        parameter.requires_grad_(False)
    if dtype is not None:
        copied.to(dtype)
    own = dict(copied.named_parameters())
    kept = tuple(own[name].requires_grad_() for name in selection.names)
    found = {parameter.dtype for parameter in kept}
    if len(found) > 1 or not found <= set(_WIDE):
        raise ValueError(
            f"module {type(module).__name__} has parameters of dtype "
            f"{', '.join(sorted(str(d) for d in found))}; products need one dtype, float32 or "
            "float64: pass dtype=torch.float32"
        )
    return Network(copied, selection, kept)


def prefer_channels_last(network: Network, inputs: Tensor) -> bool:
    """Lay out a convolutional copy channels last, where the CPU's kernels are faster.

    Parameters
    ----------
    network : Network
        Its module is converted in place when it runs in the new layout.
    inputs : Tensor of shape (m, channels, height, width)
        A few rows.

    Returns
    -------
    bool
        Whether the layout was changed; modules that view their activations cannot use it.
    """
    convolutional = any(isinstance(layer, nn.Conv2d) for layer in network.module.modules())
    if not convolutional or inputs.ndim != 4 or inputs.device.type != "cpu":
        return False
    _set_layout(network.module, torch.channels_last)
    try:
        with torch.no_grad():
            network.module(inputs.contiguous(memory_format=torch.channels_last))
    except RuntimeError:
        _set_layout(network.module, torch.contiguous_format)
        return False
    return True


def _set_layout(module: nn.Module, layout: torch.memory_format) -> None:
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)


@contextmanager
def differentiable_kernels() -> Iterator[None]:
    """Use attention kernels that can be differentiated twice."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast_path)
        torch.backends.mha.set_fastpath_enabled(False)
        yield
