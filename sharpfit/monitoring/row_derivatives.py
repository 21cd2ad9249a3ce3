"""Derivatives of a network at single rows: in its input and at its linear layers."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class DenseLayer:
    """What makes the curvature of a dense layer that is used once, on rows.

    Attributes
    ----------
    layer : torch.nn.Linear
        The layer.
    features : Tensor of shape (n, d)
        What enters it.
    backward : Tensor of shape (n, C, m)
        Derivatives of the outputs in what leaves it.
    """

    layer: nn.Linear
    features: Tensor
    backward: Tensor


@dataclass(frozen=True)
class ConvolutionLayer:
    """The same of a convolution, at the `T` places where its kernel is applied.

    Attributes
    ----------
    patches : Tensor of shape (n, d, T)
        What enters it at every place.
    backward : Tensor of shape (n, C, m, T)
        Derivatives of the outputs in what leaves it there.
    """

    patches: Tensor
    backward: Tensor

    def squared_derivatives(self, root: Tensor, bias: float) -> Tensor:
        """Return squared Frobenius norms of the rows' derivatives in weight and bias.

        Places add up before squaring, unlike energies, which are sums of squares.

        Parameters
        ----------
        root : Tensor of shape (n, C, k)
            Combinations of the outputs that are differentiated.
        bias : float
            1 if the bias counts, 0 if not.

        Returns
        -------
        Tensor of shape (n,), float64
        """
        entering = F.pad(self.patches, (0, 0, 0, 1), value=bias)
        # Of all combinations, (n, k m, T): as large as the derivatives themselves.
        stacked = (root.mT @ self.backward.flatten(2)).view(len(root), -1, entering.shape[2])
        if entering.shape[2] <= entering.shape[1]:  # few places
            return ((stacked.mT @ stacked) * (entering.mT @ entering)).sum(dim=(1, 2)).double()
        return torch.linalg.vector_norm(stacked @ entering.mT, dim=(1, 2)).double().square()


@dataclass(frozen=True)
class FirstLayer:
    """The linear layer that the input enters.

    Attributes
    ----------
    name : str
        Dotted name of the layer.
    layer : torch.nn.Linear or convolution
        The layer.
    along : Tensor of shape (n, C)
        Derivative of the outputs along the layer's own weight.
    """

    name: str
    layer: Any
    along: Tensor


@dataclass(frozen=True)
class RowDerivatives:
    """Derivatives of a network's outputs at some rows.

    Attributes
    ----------
    inputs : Tensor of shape (n, ...)
        The rows.
    outputs : Tensor of shape (n, C)
        The outputs.
    jacobian : Tensor of shape (n, C, d)
        Their derivatives in the flattened input.
    layers : dict of str to DenseLayer
        Dense layers that are used once, on rows, by name.
    convolutions : dict of str to ConvolutionLayer
        Convolutions of signals or images, in one group, that are used once.
    first : FirstLayer or None
        The linear layer that the input enters, if it is used once.
    """

    inputs: Tensor
    outputs: Tensor
    jacobian: Tensor
    layers: dict[str, DenseLayer]
    convolutions: dict[str, ConvolutionLayer]
    first: FirstLayer | None


def row_derivatives(module: nn.Module, inputs: Tensor) -> RowDerivatives:
    """Differentiate the outputs in inputs and layers, one backward pass an output.

    Parameters
    ----------
    module : torch.nn.Module
        In evaluation mode; returns logits or predictions of shape (n, C).
    inputs : Tensor of shape (n, ...)
        Floating rows.

    Returns
    -------
    RowDerivatives
    """
    rows = inputs.detach().requires_grad_()
    with torch.enable_grad():
        outputs, calls = _forward(module, rows)
    dense = {
        name: call
        for name, call in calls.items()
        if type(call.layer) is nn.Linear and call.features.ndim == 2
    }
    convolved = {name: call for name, call in calls.items() if _is_read(call.layer)}
    entered = [name for name, call in calls.items() if call.enters_input]
    first = entered[0] if len(entered) == 1 else None
    called = [*dense.values(), *convolved.values()]
    points = [rows, *(call.leaving for call in called)]
    if first is not None:
        points.append(calls[first].leaving)
    count, width = outputs.shape
    columns: list[list[Tensor]] = [[] for _ in points]
    for column in outputs.unbind(1):
        found = torch.autograd.grad(
            column.sum(), points, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        for place, gradient in enumerate(found):
            if place > len(called):
                gradient = _along_weight(calls[first or ""], gradient)
            columns[place].append(gradient)
    jacobian, *parts = (torch.stack(place, dim=1) for place in columns)
    layers = {
        name: DenseLayer(call.layer, call.features, backward)
        for (name, call), backward in zip(dense.items(), parts, strict=False)
    }
    convolutions = {
        name: ConvolutionLayer(_patches(call.layer, call.features), backward.flatten(3))
        for (name, call), backward in zip(convolved.items(), parts[len(dense) :], strict=False)
    }
    return RowDerivatives(
        inputs=inputs,
        outputs=outputs.detach(),
        jacobian=jacobian.view(count, width, -1),
        layers=layers,
        convolutions=convolutions,
        first=None
        if first is None
        else FirstLayer(first, calls[first].layer, parts[-1].view(count, width)),
    )


def _is_read(layer: Any) -> bool:
    return type(layer) in (nn.Conv1d, nn.Conv2d) and layer.groups == 1


def _patches(layer: Any, inputs: Tensor) -> Tensor:
    """Return what the kernel of a convolution sees at every place, as torch pads it."""
    padding = layer._reversed_padding_repeated_twice
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = F.pad(inputs, padding, mode=mode)
    if type(layer) is nn.Conv2d:
        return F.unfold(padded, layer.kernel_size, dilation=layer.dilation, stride=layer.stride)
    sizes = ((1, *size) for size in (layer.kernel_size, layer.dilation, layer.stride))
    kernel, dilation, stride = sizes
    return F.unfold(padded.unsqueeze(2), kernel, dilation=dilation, stride=stride)


@dataclass
class _Call:
    """A call of a linear layer."""

    layer: Any
    features: Tensor
    leaving: Tensor
    enters_input: bool
    versions: tuple[int, int]

    def was_overwritten(self) -> bool:
        """Whether a later operation worked in place on what entered or left."""
        return (self.features._version, self.leaving._version) != self.versions


def _forward(module: nn.Module, rows: Tensor) -> tuple[Tensor, dict[str, _Call]]:
    """Run the module; return the linear layers that were called once."""
    outputs, calls = _recorded(module, rows, copied=False)
    if any(call.was_overwritten() for call in calls.values()):
        outputs, calls = _recorded(module, rows, copied=True)
    return outputs, calls


def _recorded(module: nn.Module, rows: Tensor, *, copied: bool) -> tuple[Tensor, dict[str, _Call]]:
    """Run the module, handing on what linear layers return or copies of it."""
    calls: dict[str, _Call] = {}
    repeated: set[str] = set()

    def record(
        name: str, layer: nn.Module, entering: tuple[Any, ...], leaving: Any
    ) -> Tensor | None:
        if name in calls or not entering:
            repeated.add(name)
            return None
        features = entering[0].detach()
        same = features.data_ptr() == rows.data_ptr() and features.numel() == rows.numel()
        if copied:
            features = features.clone()
        versions = features._version, leaving._version
        calls[name] = _Call(layer, features, leaving, same, versions)
        return leaving.clone() if copied else None

    hooks = [
        layer.register_forward_hook(
            lambda layer, entering, leaving, name=name: record(name, layer, entering, leaving)
        )
        for name, layer in module.named_modules()
        if type(layer) is nn.Linear or type(layer) in _CONVOLUTIONS
    ]
    try:
        outputs = module(rows)
    finally:
        for hook in hooks:
            hook.remove()
    return outputs, {name: call for name, call in calls.items() if name not in repeated}


def _along_weight(call: _Call, gradient: Tensor) -> Tensor:
    """Return every row's derivative along the weight, the inner product with ``W * x``."""
    moved = call.leaving.detach()
    if call.layer.bias is not None:
        axis = 1 if type(call.layer) in _CONVOLUTIONS else -1
        shape = [1] * moved.ndim
        shape[axis] = -1
        moved = moved - call.layer.bias.detach().view(shape)
    return (gradient * moved).flatten(1).sum(dim=1)
