"""Closed-form Jacobians of chains of dense layers and elementwise activations."""

from typing import Any

import torch
from torch import Tensor, nn

from sharpfit.jacobian.layer_kinds import ELEMENTWISE, IDENTITIES, is_plain
from sharpfit.jacobian.linearisation import FrozenModule


class DenseChain:
    """Jacobians of a module whose forward pass is a chain of known layers.

    The chain is the one that each forward pass takes, read off by hooks: every layer's input
    must be the tensor that the layer before it returned, unchanged.

    Parameters
    ----------
    module : FrozenModule
    """

    def __init__(self, module: FrozenModule):
        self._module = module.module
        leaves = [part for part in self._module.modules() if not any(part.children())]
        self._leaves = leaves if all(_is_known(leaf) for leaf in leaves) else []
        self._recorder = _ChainRecorder()
        for leaf in self._leaves:
            leaf.register_forward_pre_hook(self._recorder.enter)
            leaf.register_forward_hook(self._recorder.leave)
        self._buffers: dict[int, Tensor] = {}
        self._products: dict[tuple[int, nn.Module], Tensor] = {}

    def __call__(self, inputs: Tensor) -> tuple[Tensor, Tensor] | None:
        """Compute outputs and Jacobians, or return None if the pass is no such chain.

        Parameters
        ----------
        inputs : Tensor of shape (n, ...)

        Returns
        -------
        outputs : Tensor of shape (n, C)
        jacobians : Tensor of shape (n, C, d)
            In memory that the next call reuses.
        """
        recorded = self._record(inputs)
        return None if recorded is None else (recorded[0], self._propagate(*recorded))

    def row_bytes(self, inputs: Tensor) -> int | None:
        """Count the bytes that the work on one row takes, or return None if there is no chain.

        Parameters
        ----------
        inputs : Tensor of shape (n, ...)
            A few rows.

        Returns
        -------
        int or None
        """
        recorded = self._record(inputs)
        if recorded is None:
            return None
        outputs, steps = recorded
        width = max(layer.in_features for layer, _ in steps if isinstance(layer, nn.Linear))
        return 2 * outputs.element_size() * outputs.shape[1] * width

    def _record(self, inputs: Tensor) -> tuple[Tensor, list[tuple[nn.Module, Tensor]]] | None:
        if not self._leaves:
            return None
        self._recorder.start(inputs.detach())
        with torch.no_grad():
            outputs = self._module(self._recorder.last)
        steps = self._recorder.finish(outputs)
        return None if steps is None else (outputs, steps)

    def _propagate(self, outputs: Tensor, steps: list[tuple[nn.Module, Tensor]]) -> Tensor:
        jacobians: Tensor | None = None
        slope: Tensor | None = None  # diagonal waiting for the next product
        place = 0
        for layer, entering in reversed(steps):
            if not isinstance(layer, nn.Linear):
                here = elementwise_derivative(layer, entering)
                slope = here if slope is None else slope * here
                continue
            if jacobians is None:
                # The same for all rows until a slope tells them apart: not written out.
                jacobians = layer.weight.expand(*outputs.shape, layer.in_features)
                if slope is not None:
                    jacobians = jacobians * slope.unsqueeze(2)
            else:
                target = self._buffer(1 - place, outputs, layer.in_features)
                if slope is not None and _is_shared(jacobians) and len(target) >= target.shape[2]:
                    # Fewer products of weights with weights than of slopes with weights.
                    torch.mm(slope, self._outer(jacobians[0], layer), out=target.flatten(1))
                else:
                    if slope is not None:
                        jacobians = self._scaled(jacobians, slope, place)
                    torch.mm(jacobians.flatten(0, 1), layer.weight, out=target.flatten(0, 1))
                jacobians, place = target, 1 - place
            slope = None
        assert jacobians is not None
        return jacobians if slope is None else self._scaled(jacobians, slope, place)

    def _outer(self, after: Tensor, layer: nn.Linear) -> Tensor:
        """Return kept products of weights of shape (width, C * in_features), one a path."""
        key = (after.data_ptr(), layer)
        if key not in self._products:
            self._products[key] = (after.T.unsqueeze(2) * layer.weight.unsqueeze(1)).flatten(1)
        return self._products[key]

    def _scaled(self, jacobians: Tensor, slope: Tensor, place: int) -> Tensor:
        """Multiply by a diagonal, in place where the factors are in that buffer already."""
        target = self._buffer(place, jacobians[:, :, 0], jacobians.shape[2])
        return torch.mul(jacobians, slope.unsqueeze(1), out=target)

    def _buffer(self, number: int, outputs: Tensor, width: int) -> Tensor:
        """Return kept memory of shape (n, C, width); fresh memory would cost page faults."""
        shape = (*outputs.shape, width)
        size = outputs.numel() * width
        kept = self._buffers.get(number)
        if kept is None or kept.numel() < size:
            kept = self._buffers[number] = outputs.new_empty(size)
        return kept[:size].view(shape)


def _is_shared(jacobians: Tensor) -> bool:
    """Say whether all rows have one Jacobian, in the memory of one."""
    return jacobians.stride(0) == 0


def _is_known(leaf: nn.Module) -> bool:
    if type(leaf) is nn.Flatten:
        return is_plain(leaf, IDENTITIES) and leaf.start_dim == 1 and leaf.end_dim == -1
    if isinstance(leaf, nn.modules.batchnorm._BatchNorm) and leaf.running_var is None:
        return False
    return is_plain(leaf, (nn.Linear, *ELEMENTWISE, *IDENTITIES))


class _ChainRecorder:
    """Follows a tensor through the leaves; `last` is None once the chain is broken."""

    last: Any = None

    def start(self, inputs: Tensor) -> None:
        self._steps: list[tuple[nn.Module, Tensor]] = []
        self._follow(inputs)

    def _follow(self, tensor: Tensor) -> None:
        self.last = tensor
        self._version = tensor._version

    def enter(self, leaf: nn.Module, args: tuple[Any, ...]) -> None:
        # The version tells an in-place operation between two layers.
        follows = len(args) == 1 and args[0] is self.last
        if not follows or self.last._version != self._version:
            self.last = None
            return
        if type(leaf) is nn.Linear or type(leaf) in ELEMENTWISE:
            if self.last.ndim != 2:
                self.last = None
                return
            kept = self.last.clone() if getattr(leaf, "inplace", False) else self.last
            self._steps.append((leaf, kept))

    def leave(self, leaf: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        if self.last is not None:
            self._follow(output)

    def finish(self, outputs: Any) -> list[tuple[nn.Module, Tensor]] | None:
        unchanged = outputs is self.last and outputs._version == self._version
        self.last = None
        if unchanged and any(type(layer) is nn.Linear for layer, _ in self._steps):
            return self._steps
        return None


def elementwise_derivative(layer: nn.Module, entering: Tensor) -> Tensor:
    """Differentiate an elementwise layer at the values that enter it.

    Parameters
    ----------
    layer : torch.nn.Module
        One of `ELEMENTWISE`.
    entering : Tensor

    Returns
    -------
    Tensor of the same shape
        The diagonal of the layer's Jacobian.
    """
    if type(layer) is nn.ReLU:
        return torch.gt(entering, 0, out=torch.empty_like(entering))
    with torch.enable_grad():
        variable = entering.detach().requires_grad_()
        values = layer(variable.clone())
        (slope,) = torch.autograd.grad(values.sum(), variable)
    return slope
