"""A private copy of the user's module, ready to be differentiated."""

import copy
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.parametrizations import _WeightNorm

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
        If `module` is no module, or one of TorchScript.
    ValueError
        If the parameters have half precision and no `dtype` is given, or lie on several devices.
    RuntimeError
        In inference mode and under autocast.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {module!r}")
    if isinstance(module, torch.jit.ScriptModule):
        raise TypeError(
            f"module is a TorchScript {type(module).__name__}, which cannot be copied and "
            "differentiated twice; pass the module it was made from"
        )
    if dtype is not None and dtype not in _WIDE:
        raise ValueError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
    selection = select_parameters(module, parameters)
    refuse_contexts(module.get_parameter(selection.names[0]).device)
    copied = copy.deepcopy(module).eval()
    _replace_weight_norms(copied)
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


class _WeightNormByFormula(nn.Module):
    """``g v / |v|``; the derivative of PyTorch's own kernel takes ``|v|`` for a constant."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        return weight_v * (weight_g / torch.norm_except_dim(weight_v, 2, self.dim))


def _replace_weight_norms(module: nn.Module) -> None:
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is _WeightNorm:
                setattr(parent, name, _WeightNormByFormula(child.dim))


def refuse_contexts(device: torch.device) -> None:
    """Refuse to differentiate where PyTorch does not, or in less precision than asked for.

    Parameters
    ----------
    device : torch.device

    Raises
    ------
    RuntimeError
        In inference mode and under autocast.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "torch.inference_mode() is on, and curvature takes derivatives; call it outside, or "
            "use torch.no_grad()"
        )
    kind = device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        raise RuntimeError(
            f"torch.autocast({kind!r}) is on, and curvature needs the precision of its dtype; call "
            f"it inside torch.autocast({kind!r}, enabled=False)"
        )


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
