"""Where the network stops and the loss begins: modules that return logits."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sharpfit.objective.first_outputs import first_outputs


def split_head(
    module: nn.Module,
    criterion: nn.Module,
    example_inputs: Tensor,
    *,
    criterion_takes_log: bool = False,
) -> tuple[nn.Module, nn.Module]:
    r"""Move a final softmax or sigmoid from the network into the loss.

    A network that ends in a softmax and is trained with `NLLLoss` has the same loss as
    its logits under `CrossEntropyLoss`, but taken literally its Gauss-Newton matrix is
    another one. The split used throughout is at the logits: a final `Softmax`,
    `LogSoftmax` or `Sigmoid` layer is removed; where the module computes them in its
    ``forward``, their logarithm is taken, which equals the logits up to a constant per
    sample that the loss and its curvature do not see.

    Parameters
    ----------
    module : torch.nn.Module
        In evaluation mode; never modified.
    criterion : torch.nn.Module
        The criterion the module was trained with.
    example_inputs : Tensor of shape (m, ...)
        A few inputs, to see what the module returns.
    criterion_takes_log : bool, default=False
        Whether the trainer takes the logarithm of the outputs before `NLLLoss`, as
        skorch's ``NeuralNetClassifier`` does.

    Returns
    -------
    module : torch.nn.Module
        A deep copy whose outputs are logits or predictions of shape (m, C).
    criterion : torch.nn.Module
        The criterion on those outputs.

    Raises
    ------
    ValueError
        If the outputs are not what the criterion expects, or not of shape (m,) or (m, C).

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from sharpfit.objective import split_head
    >>> network = nn.Sequential(nn.Linear(3, 2), nn.LogSoftmax(dim=1)).eval()
    >>> split_head(network, nn.NLLLoss(), torch.ones(1, 3))
    (Sequential(
      (0): Linear(in_features=3, out_features=2, bias=True)
      (1): Identity()
    ), CrossEntropyLoss())
    """
    snapshot = copy.deepcopy(module)
    first_outputs(snapshot, example_inputs)
    if isinstance(criterion, nn.NLLLoss):
        snapshot = _strip_softmax(snapshot, example_inputs, criterion_takes_log)
        criterion = _copy_reduction(
            nn.CrossEntropyLoss(weight=criterion.weight, ignore_index=criterion.ignore_index),
            criterion,
        )
    elif isinstance(criterion, nn.BCELoss):
        snapshot = _strip_sigmoid(snapshot, example_inputs)
        criterion = _copy_reduction(nn.BCEWithLogitsLoss(weight=criterion.weight), criterion)
    with torch.no_grad():
        outputs = snapshot(example_inputs)
    if not isinstance(outputs, Tensor):
        raise ValueError(
            f"module {type(module).__name__} returns {type(outputs).__name__}, expected one "
            "Tensor; wrap it in a module that returns the logits or predictions alone"
        )
    if outputs.ndim == 1 and outputs.shape[0] == example_inputs.shape[0]:
        snapshot = _then(snapshot, _add_output_axis)
    elif outputs.ndim != 2:
        raise ValueError(
            f"module {type(module).__name__} returns outputs of shape {tuple(outputs.shape)} for "
            f"{example_inputs.shape[0]} samples; expected (samples,) or (samples, outputs)"
        )
    return snapshot, criterion


def _copy_reduction(new: nn.Module, old: nn.Module) -> nn.Module:
    new.reduction = old.reduction
    return new


def _strip_softmax(module: nn.Module, example_inputs: Tensor, takes_log: bool) -> nn.Module:
    with torch.no_grad():
        outputs = module(example_inputs)
    name = type(module).__name__
    totals = outputs.double().exp().sum(dim=1) if outputs.ndim == 2 else None
    if totals is not None and bool((totals - 1).abs().max() < 1e-3) and not takes_log:
        stripped = _replace_last_layer(module, (nn.LogSoftmax,), example_inputs)
        return stripped if stripped is not None else module
    is_distribution = (
        outputs.ndim == 2
        and bool((outputs >= 0).all())
        and bool((outputs.double().sum(dim=1) - 1).abs().max() < 1e-3)
    )
    if not is_distribution:
        expected = "probabilities" if takes_log else "log-probabilities"
        raise ValueError(
            f"criterion NLLLoss needs {expected}, but module {name} returns rows that are none; "
            "use CrossEntropyLoss with logits, or end the module in a "
            f"{'softmax' if takes_log else 'log-softmax'}"
        )
    if not takes_log:
        raise ValueError(
            f"module {name} returns probabilities and criterion NLLLoss expects log-probabilities; "
            "use CrossEntropyLoss with logits"
        )
    stripped = _replace_last_layer(module, (nn.Softmax,), example_inputs)
    return stripped if stripped is not None else _then(module, _log)


def _strip_sigmoid(module: nn.Module, example_inputs: Tensor) -> nn.Module:
    with torch.no_grad():
        outputs = module(example_inputs)
    if bool((outputs < 0).any()) or bool((outputs > 1).any()):
        raise ValueError(
            f"criterion BCELoss needs probabilities, but module {type(module).__name__} returns "
            "values outside [0, 1]; use BCEWithLogitsLoss with logits"
        )
    stripped = _replace_last_layer(module, (nn.Sigmoid,), example_inputs)
    return stripped if stripped is not None else _then(module, _logit)


def _replace_last_layer(
    module: nn.Module, kinds: tuple[type[nn.Module], ...], example_inputs: Tensor
) -> nn.Module | None:
    """Replace the layer that returns the module's output, if it is of `kinds` and used once."""
    calls: list[tuple[nn.Module, Any]] = []
    layers = [layer for layer in module.modules() if isinstance(layer, kinds)]
    hooks = [
        layer.register_forward_hook(lambda layer, _, output: calls.append((layer, output)))
        for layer in layers
    ]
    try:
        with torch.no_grad():
            outputs = module(example_inputs)
    finally:
        for hook in hooks:
            hook.remove()
    last = [layer for layer, output in calls if output is outputs]
    if not last or sum(layer is last[0] for layer, _ in calls) != 1:
        return None
    if last[0] is module:
        return nn.Identity()
    for name, layer in module.named_modules():
        if layer is last[0]:
            module.set_submodule(name, nn.Identity())
    return module


def _then(module: nn.Module, tail: Callable[[Tensor], Tensor]) -> nn.Module:
    """Make `module` apply `tail` to what it returns."""
    kind = type(module)

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        return tail(kind.forward(self, *args, **kwargs))

    # A subclass rather than a wrapper keeps the names of the parameters, which users
    # select by, and rather than a hook lets graph tracers see the tail.
    module.__class__ = type(kind.__name__, (kind,), {"forward": forward})
    return module


def _add_output_axis(outputs: Tensor) -> Tensor:
    return outputs.unsqueeze(-1)


def _log(probabilities: Tensor) -> Tensor:
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()


def _logit(probabilities: Tensor) -> Tensor:
    return _log(probabilities) - _log(1 - probabilities)
