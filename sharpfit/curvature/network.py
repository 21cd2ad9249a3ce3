"""A private copy of the user's module, ready to be differentiated."""

import copy
import threading
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
        If the parameters have half precision and no `dtype` is given, or lie on several devices.
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
    devices = {parameter.device for parameter in kept}
    if len(devices) > 1:
        raise ValueError(
            f"module {type(module).__name__} has parameters on "
            f"{', '.join(sorted(map(str, devices)))}; products need one device: move the module, "
            "or select the parameters of one device with parameters="
        )
    return Network(copied, selection, kept)


class _MathKernels:
    """Plain attention kernels while any thread wants them: the choice is the process's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._stack = ExitStack()

    def enter(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                fast_path = torch.backends.mha.get_fastpath_enabled()
                self._stack.enter_context(sdpa_kernel(SDPBackend.MATH))
                self._stack.callback(torch.backends.mha.set_fastpath_enabled, fast_path)
                torch.backends.mha.set_fastpath_enabled(False)

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._stack.close()


_MATH_KERNELS = _MathKernels()


@contextmanager
def differentiable_kernels() -> Iterator[None]:
    """Use attention kernels that can be differentiated twice."""
    _MATH_KERNELS.enter()
    try:
        yield
    finally:
        _MATH_KERNELS.leave()
