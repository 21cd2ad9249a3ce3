"""Which parameters a curvature is taken in, and their place in flat vectors."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

ParameterChoice = str | Iterable[str] | Callable[[str, nn.Parameter], bool] | None


@dataclass(frozen=True)
class ParameterSelection:
    """Parameters of a module, in the order in which flat vectors hold them.

    Attributes
    ----------
    names : tuple of str
        Dotted names, each parameter once even when several names share it.
    shapes : tuple of torch.Size
        Shapes of the parameters.

    Examples
    --------
    >>> from torch import nn
    >>> from sharpfit.curvature import select_parameters
    >>> selection = select_parameters(nn.Linear(3, 2), "weight")
    >>> selection.names, selection.size
    (('weight',), 6)
    """

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]

    @property
    def size(self) -> int:
        """Number of scalar parameters."""
        return sum(self._sizes)

    def split(self, vector: Tensor) -> tuple[Tensor, ...]:
        """Return the parts of a flat vector as views shaped like the parameters.

        Parameters
        ----------
        vector : Tensor of shape (size,)

        Returns
        -------
        tuple of Tensor
        """
        parts = vector.split(self._sizes)
        return tuple(part.view(shape) for part, shape in zip(parts, self.shapes, strict=True))

    @cached_property
    def _sizes(self) -> list[int]:
        return [shape.numel() for shape in self.shapes]

    def join(self, parts: Iterable[Tensor]) -> Tensor:
        """Return one flat vector made of parts shaped like the parameters.

        Parameters
        ----------
        parts : iterable of Tensor

        Returns
        -------
        Tensor of shape (size,)
        """
        return torch.cat([part.reshape(-1) for part in parts])


def select_parameters(module: nn.Module, parameters: ParameterChoice = None) -> ParameterSelection:
    r"""Choose trainable parameters of a module.

    Parameters
    ----------
    module : torch.nn.Module
    parameters : str, iterable of str, callable or None, default=None
        A regular expression searched in the dotted names; the names themselves; a function
        ``(name, parameter) -> bool``; or None for all. Parameters that do not require a
        gradient are left out, and a shared parameter counts once, under its first name.

    Returns
    -------
    ParameterSelection

    Raises
    ------
    TypeError
        If `parameters` is none of these.
    ValueError
        If nothing is selected, a name does not exist or belongs to a frozen parameter, the
        regular expression is none, or the module is lazy and has not been called yet.

    Examples
    --------
    >>> from torch import nn
    >>> from sharpfit.curvature import select_parameters
    >>> network = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> select_parameters(network, r"^2\.").names
    ('2.weight', '2.bias')
    """
    aliases: dict[str, nn.Parameter] = dict(module.named_parameters(remove_duplicate=False))
    trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not trainable:
        state = "all its parameters are frozen" if aliases else "it has no parameters"
        raise ValueError(
            f"module {type(module).__name__} has nothing to differentiate: {state}; set "
            "requires_grad=True on the parameters of interest"
        )
    if any(isinstance(parameter, UninitializedParameter) for parameter in trainable.values()):
        raise ValueError(
            f"module {type(module).__name__} has lazy parameters without a shape yet; call it on "
            "a batch once before the analysis"
        )
    if parameters is None:
        chosen = set(aliases)
    elif isinstance(parameters, str):
        chosen = _matching(parameters, aliases)
    elif callable(parameters) and not isinstance(parameters, nn.Module):
        chosen = {name for name, parameter in aliases.items() if parameters(name, parameter)}
    else:
        chosen = _names(parameters)
        for name in sorted(chosen):
            if name not in aliases:
                raise ValueError(
                    f"parameters names {name!r}, which module {type(module).__name__} does not "
                    f"have; its parameters are {sorted(aliases)}"
                )
            if not aliases[name].requires_grad:
                raise ValueError(
                    f"parameters names {name!r}, which is frozen (requires_grad=False); "
                    "unfreeze it or leave it out"
                )
    wanted = {id(aliases[name]) for name in chosen}
    kept = {name: p for name, p in trainable.items() if id(p) in wanted}
    if not kept:
        raise ValueError(
            f"parameters={parameters!r} selects no trainable parameter of module "
            f"{type(module).__name__}; those are {sorted(trainable)}"
        )
    return ParameterSelection(tuple(kept), tuple(p.shape for p in kept.values()))


def _matching(pattern: str, names: Iterable[str]) -> set[str]:
    try:
        return {name for name in names if re.search(pattern, name)}
    except re.error as error:
        raise ValueError(
            f"parameters={pattern!r} is no regular expression ({error}); write re.escape(name) for "
            "a name as it is"
        ) from error


def _names(parameters: Any) -> set[str]:
    listed = list(parameters) if isinstance(parameters, Iterable) else [parameters]
    if isinstance(parameters, nn.Module) or not all(isinstance(name, str) for name in listed):
        found = next((type(p).__name__ for p in listed if not isinstance(p, str)), "")
        raise TypeError(
            "parameters must be a regular expression as str, names of parameters, a function "
            f"(name, parameter) -> bool or None, got {type(parameters).__name__}"
            f"{f' of {found}' if found and isinstance(parameters, Iterable) else ''}; names are "
            "those of module.named_parameters()"
        )
    return set(listed)
