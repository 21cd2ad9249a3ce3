"""What rows, targets and weights have to be before any long work begins."""

from dataclasses import replace
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor, nn

from sharpfit.curvature.data import Rows, Source, collect_targets
from sharpfit.curvature.network import Network
from sharpfit.curvature.sharding import global_weights
from sharpfit.objective import BinaryCrossEntropy, CrossEntropy, SampleLoss, SquaredError
from sharpfit.objective.first_outputs import are_equal, first_outputs, require_rows_apart

_PROBE_ROWS = 8
_EXPECTED: dict[type[SampleLoss], str] = {
    CrossEntropy: "; expected class numbers of shape (n,) and dtype torch.int64, or real "
    "probabilities of the outputs' shape",
    BinaryCrossEntropy: "; expected real numbers from 0 to 1, of the outputs' shape",
    SquaredError: "; expected real numbers of the outputs' shape",
}


def prepare_rows(
    network: Network,
    loss: SampleLoss,
    inputs: Source,
    targets: Tensor | None,
    sample_weight: Tensor | None,
    dtype: torch.dtype | None,
    group: distributed.ProcessGroup | None,
) -> Rows:
    """Check inputs, targets and weights against each other and the network.

    Parameters
    ----------
    network : Network
    loss : SampleLoss
    inputs : Tensor of shape (n, ...), Dataset or DataLoader
    targets : Tensor of shape (n, ...) or None
    sample_weight : Tensor of shape (n,) or None
    dtype : torch.dtype or None
        The dtype the user asked for; without it the inputs' dtype must be the network's.
    group : ProcessGroup or None
        Processes that share the loss.

    Returns
    -------
    Rows

    Raises
    ------
    TypeError
        If targets or weights are no tensors.
    ValueError
        If the module does not run on the rows, is random, or mixes them; a data set yields others
        when it is read again; the loss does not take the targets; lengths, dtypes or
        shapes do not fit, weights are negative or not finite, or class numbers are out of range.
    """
    targets = _targets_of(inputs, targets)
    count = inputs.shape[0] if isinstance(inputs, Tensor) else targets.shape[0]
    if count == 0 or targets.ndim == 0 or targets.shape[0] != count:
        raise ValueError(
            f"inputs has {count} rows and targets has shape {tuple(targets.shape)}; expected at "
            "least one row and as many targets"
        )
    if sample_weight is not None:
        sample_weight = _as_weights(sample_weight)
        if sample_weight.shape != (count,):
            raise ValueError(
                f"sample_weight has shape {tuple(sample_weight.shape)}, expected ({count},)"
            )
        if not bool((sample_weight >= 0).all() and sample_weight.isfinite().all()):
            raise ValueError("sample_weight must be non-negative and finite in every entry")
    rows = Rows(inputs, targets, torch.empty(0), network.device, network.dtype)
    example = rows.source_example()
    if dtype is None and example.is_floating_point() and example.dtype != network.dtype:
        raise ValueError(
            f"inputs has dtype {example.dtype} but the module's parameters have {network.dtype}; "
            "convert one of them, or pass dtype= to convert both"
        )
    outputs = _first_outputs(network.module, rows)
    targets = rows.targets[: len(outputs)].to(network.device)
    if isinstance(loss, CrossEntropy) and not rows.targets.is_floating_point():
        _check_classes(loss, rows.targets, outputs.shape[1])
    _check_targets(loss, outputs, targets)
    weights = loss.row_weights(rows.targets, sample_weight)
    if loss.reduction == "mean":
        weights = global_weights(group, weights, sample_weight)
    return replace(rows, weights=weights)


def _targets_of(inputs: Source, targets: Tensor | None) -> Tensor:
    """Return the targets of a tensor of inputs, or those that a data set yields."""
    if isinstance(inputs, Tensor):
        if targets is None:
            raise ValueError("targets is missing: inputs is a tensor, which holds no targets")
        if not isinstance(targets, Tensor):
            raise TypeError(
                f"targets must be a Tensor, got {type(targets).__name__}; convert it by "
                "torch.as_tensor"
            )
        if inputs.ndim == 0:
            raise ValueError("inputs has no rows: it is one number; expected shape (n, ...)")
        return targets
    if targets is not None:
        raise ValueError(
            "targets must not be given when inputs is a data set that yields them, which "
            f"{type(inputs).__name__} is taken for; convert arrays by torch.as_tensor"
        )
    if isinstance(inputs, tuple | list) and any(isinstance(part, Tensor) for part in inputs):
        raise ValueError(
            f"inputs is a {type(inputs).__name__} of {len(inputs)} tensors; give rows and their "
            "targets as two arguments, inputs and targets"
        )
    return collect_targets(inputs)


def _as_weights(sample_weight: Any) -> Tensor:
    try:
        return torch.as_tensor(sample_weight, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"sample_weight must be a Tensor of shape (n,), got {sample_weight!r}"
        ) from error


def _first_outputs(module: nn.Module, rows: Rows) -> Tensor:
    """Return the outputs of a few rows, once they are known to be a function of each row."""
    probe = rows.first(_PROBE_ROWS)
    if not isinstance(rows.source, Tensor) and not are_equal(probe, rows.first(_PROBE_ROWS)):
        raise ValueError(
            f"inputs is {type(rows.source).__name__}, which yields other rows when it is read "
            "again, and products read it many times; switch random augmentation off"
        )
    outputs = first_outputs(module, probe)
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or outputs.shape[0] != len(probe):
        found = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(
            f"module {type(module).__name__} returns {found} for {len(probe)} rows; expected a "
            f"Tensor of shape ({len(probe)}, C): one row of logits or predictions a sample"
        )
    require_rows_apart(module, probe, outputs)
    return outputs


def _check_targets(loss: SampleLoss, outputs: Tensor, targets: Tensor) -> None:
    """Refuse targets that the loss does not take."""
    if targets.is_floating_point():
        targets = targets.to(outputs.dtype)
    try:
        with torch.no_grad():
            found = tuple(loss.values(outputs, targets).shape)
        reason = f"it returns shape {found} for them"
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        found, reason = None, str(error)
    if found != (len(outputs),):
        raise ValueError(
            f"{loss} does not take targets of shape {tuple(targets.shape)} and dtype "
            f"{targets.dtype} for outputs of shape {tuple(outputs.shape)} "
            f"({reason}){_EXPECTED.get(type(loss), '')}"
        )


def _check_classes(loss: CrossEntropy, targets: Tensor, n_classes: int) -> None:
    counted = targets != loss.ignore_index
    outside = counted & ((targets < 0) | (targets >= n_classes))
    if bool(outside.any()):
        row = int(outside.nonzero()[0, 0])
        raise ValueError(
            f"targets[{row}] is {targets[row].tolist()}, but the module has {n_classes} outputs; "
            f"expected class numbers from 0 to {n_classes - 1}"
        )
