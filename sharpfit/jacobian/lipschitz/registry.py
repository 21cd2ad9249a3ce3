"""Which rule bounds the Lipschitz constant of which kind of layer."""

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

from torch import Tensor, nn

from sharpfit.jacobian.lipschitz.errors import CertificateError

LipschitzRule = Callable[[Any, tuple[int, ...]], float]

_RULES: dict[type[nn.Module], LipschitzRule] = {}


def register_lipschitz(module_type: type[nn.Module], rule: LipschitzRule) -> None:
    """Register the rule that bounds the Lipschitz constant of a kind of layer.

    A registered layer is taken as one piece: the certificate does not look inside it. A rule
    registered for a type replaces the one before.

    Parameters
    ----------
    module_type : type
        Subclass of `torch.nn.Module`. Its own subclasses inherit the rule as long as they do not
        override ``forward``.
    rule : callable
        ``rule(module, input_shape)`` returns an upper bound on the Lipschitz constant, in the
        Euclidean norm, of the layer in evaluation mode as a map of one sample;
        `input_shape` is the shape of that sample, without the batch dimension. The first line of
        its docstring is what the certificate reports as the reason. A wrong rule makes every
        certificate that uses it wrong.

    Raises
    ------
    TypeError
        If `module_type` is not a subclass of `torch.nn.Module` or `rule` is not callable.

    Examples
    --------
    >>> import torch
    >>> from sharpfit.jacobian import lipschitz_certificate, register_lipschitz
    >>> class Halve(torch.nn.Module):
    ...     def forward(self, inputs):
    ...         return inputs / 2
    >>> register_lipschitz(Halve, lambda module, input_shape: 0.5)
    >>> float(lipschitz_certificate(Halve(), (3,)))
    0.5
    """
    if not (isinstance(module_type, type) and issubclass(module_type, nn.Module)):
        raise TypeError(
            f"module_type={module_type!r} is no layer type; pass a subclass of torch.nn.Module, "
            "such as type(layer)."
        )
    if not callable(rule):
        raise TypeError(
            f"rule={rule!r} is not callable; pass a function (module, input_shape) -> float."
        )
    _RULES[module_type] = rule


def find_rule(module: nn.Module) -> LipschitzRule | None:
    """Return the rule of a layer, or None.

    A subclass inherits the rule of its base class only where it computes the same: an overridden
    ``forward`` is another function.
    """
    for module_type in type(module).__mro__:
        if module_type in _RULES:
            same_forward = type(module).forward is module_type.forward
            return _RULES[module_type] if same_forward else None
    return None


def require_rule(module: nn.Module, name: str) -> LipschitzRule:
    """Return the rule of a layer, or refuse the layer by name."""
    rule = find_rule(module)
    if rule is None:
        kind = type(module).__name__
        raise CertificateError(
            f"no Lipschitz rule is known for layer {name!r} of type {kind}; register one with "
            f"register_lipschitz({kind}, rule), or leave the layer out."
        )
    return rule


def describe_rule(rule: LipschitzRule) -> str:
    """First line of the rule's docstring, without the full stop, or its name."""
    documentation = (rule.__doc__ or "").strip()
    if documentation:
        return documentation.splitlines()[0].rstrip(".")
    return getattr(rule, "__name__", type(rule).__name__)


def apply_rule(module: nn.Module, input_shape: tuple[int, ...], name: str) -> tuple[float, str]:
    """Apply the rule of a layer and check what it returns.

    Parameters
    ----------
    module : torch.nn.Module
        In evaluation mode.
    input_shape : tuple of int
        Shape of one sample as the layer sees it, without the batch dimension.
    name : str
        Name of the layer for error messages.

    Returns
    -------
    constant : float
    description : str
        What the rule says of itself.

    Raises
    ------
    CertificateError
        If the layer has no rule, its rule refuses it or returns no non-negative number.
    """
    kind = type(module).__name__
    rule = require_rule(module, name)
    try:
        returned = rule(module, input_shape)
    except CertificateError as error:
        raise CertificateError(f"layer {name!r} of type {kind}: {error}") from error
    constant = float(returned) if isinstance(returned, Real | Tensor) else math.nan
    if not constant >= 0.0 or constant == math.inf:
        raise CertificateError(
            f"the rule of layer {name!r} of type {kind} returned {returned!r}; a Lipschitz "
            "constant is a finite number >= 0."
        )
    return constant, describe_rule(rule)
