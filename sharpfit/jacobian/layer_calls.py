"""The calls of a network's layers during one forward pass."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer that maps one tensor to one tensor, row by row.

    Attributes
    ----------
    number : int
        Of the call among those of all leaves.
    name : str
        Qualified name of the layer.
    layer : torch.nn.Module
    entering, leaving : Tensor of shape (n, ...)
    """

    number: int
    name: str
    layer: nn.Module
    entering: Tensor
    leaving: Tensor


class LayerCalls:
    """Calls of the leaves of a module, read off by hooks, and how they follow each other.

    Parameters
    ----------
    inputs : Tensor of shape (n, ...)
        What the module is called with.

    Attributes
    ----------
    made : list of LayerCall
        In their order.
    skipped : list of str
        Names of layers that do not map one tensor to one tensor, row by row.
    outputs : Tensor of shape (n, ...)
        What the module returned.
    is_chain : bool
        Whether each layer read what the one before it returned, at most with its entries renamed,
        up to the outputs.
    keeps_order : bool
        Whether no entries were renamed between two layers.
    """

    outputs: Tensor

    def __init__(self, inputs: Tensor):
        self.made: list[LayerCall] = []
        self.skipped: list[str] = []
        self.is_chain = self.keeps_order = True
        self._n_rows = len(inputs)
        self._n_calls = 0
        self._entering: Tensor | None = None
        self._follow(inputs)

    def _follow(self, tensor: Tensor) -> None:
        self._last, self._version = tensor, tensor._version

    def _compare(self, tensor: Tensor) -> None:
        last = self._last
        # A view of all entries only renames them.
        self.is_chain = (
            self.is_chain
            and tensor.data_ptr() == last.data_ptr()
            and tensor.numel() == last.numel()
            and last._version == self._version
        )
        in_order = tensor is last or (tensor.is_contiguous() and last.is_contiguous())
        self.keeps_order = self.keeps_order and in_order

    def _is_differentiable(self, value: Any) -> bool:
        return (
            isinstance(value, Tensor)
            and value.is_floating_point()
            and value.shape[:1] == (self._n_rows,)
        )

    def enter(self, layer: nn.Module, args: tuple[Any, ...]) -> None:
        """Note what enters a layer: a forward pre-hook."""
        self._entering = None
        if len(args) == 1 and self._is_differentiable(args[0]):
            self._compare(args[0])
            entering = args[0].detach()
            self._entering = entering.clone() if getattr(layer, "inplace", False) else entering

    def leave(self, name: str, layer: nn.Module, output: Any) -> Tensor | None:
        """Note what leaves a layer, and pass on a copy, which may be changed in place."""
        self._n_calls += 1
        if self._entering is None or not self._is_differentiable(output):
            self.skipped.append(name)
            return None
        self.made.append(LayerCall(self._n_calls, name, layer, self._entering, output))
        passed_on: Tensor = output.clone()
        self._follow(passed_on)
        return passed_on

    def finish(self, outputs: Tensor) -> None:
        """Note what the module returned."""
        self._compare(outputs)
        self.is_chain = self.is_chain and not self.skipped
        self.outputs = outputs


def record_calls(module: nn.Module, inputs: Tensor) -> LayerCalls:
    """Call a module and record the calls of its leaves.

    Parameters
    ----------
    module : torch.nn.Module
        In evaluation mode.
    inputs : Tensor of shape (n, ...)
        With a graph if they require one.

    Returns
    -------
    LayerCalls
    """
    # The module may work in place.
    inputs = inputs.clone()
    calls = LayerCalls(inputs)
    handles = []
    for name, layer in module.named_modules():
        children = [child for child, _ in layer.named_children()]
        # What computes a layer's weights is part of the layer.
        if "parametrizations" in name.split(".") or set(children) - {"parametrizations"}:
            continue
        # Hooks of the user's are inside of ours.
        handles.append(layer.register_forward_pre_hook(calls.enter, prepend=True))
        handles.append(
            layer.register_forward_hook(
                lambda layer, args, output, name=name: calls.leave(name, layer, output)
            )
        )
    try:
        with torch.set_grad_enabled(inputs.requires_grad):
            calls.finish(module(inputs))
    finally:
        for handle in handles:
            handle.remove()
    return calls
