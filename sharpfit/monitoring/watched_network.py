"""The Hessian of a network in training, kept between measurements."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sharpfit.curvature import HessianOperator
from sharpfit.objective import RowwiseLoss, SampleLoss, as_sample_loss, split_head
from sharpfit.objective.first_outputs import first_outputs

_HALF = (torch.float16, torch.bfloat16)
_PLAIN = (bool, int, float, str, tuple, type(None))


class WatchedNetwork:
    """Set up the Hessian once; later, where only values have changed, copy those.

    Chunks, the way products are computed and the loss stay as long as the module's layers and
    their settings, the trained parameters and the criterion do.

    Parameters
    ----------
    inputs : Tensor of shape (n, ...)
        Rows.
    targets : Tensor of shape (n, ...)
        Their targets.
    sample_weight : Tensor of shape (n,) or None
        Weights in the loss.
    scale : float, default=1.0
        What a loss that is a sum is multiplied by, where the rows stand for more.
    batch_size : int or "auto"
        Rows of a chunk.
    memory_budget : int
        Bytes of what the Hessian keeps between products.
    """

    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        sample_weight: Tensor | None,
        *,
        scale: float = 1.0,
        batch_size: int | str,
        memory_budget: int,
    ) -> None:
        self._scale = scale
        self._inputs = inputs
        self._targets = targets
        self._sample_weight = sample_weight
        self._batch_size = batch_size
        self._memory_budget = memory_budget
        self._operator: HessianOperator | None = None
        self._setting: Any = None

    def load(
        self,
        module: nn.Module,
        criterion: nn.Module | SampleLoss,
        parameters: Sequence[str],
        *,
        criterion_takes_log: bool = False,
    ) -> HessianOperator:
        """Return the Hessian at the module's present values.

        Parameters
        ----------
        module : torch.nn.Module
            In any mode; a copy in evaluation mode is differentiated, in float32 if it has less.
        criterion : torch.nn.Module or SampleLoss
            Criterion, or the loss of the logits; a copy is evaluated.
        parameters : sequence of str
            Names of the trained parameters.
        criterion_takes_log : bool, default=False
            See `sharpfit.objective.split_head`.

        Returns
        -------
        HessianOperator
        """
        setting = (_structure(module), tuple(parameters), _state(criterion), criterion_takes_log)
        if self._operator is not None and _same(setting, self._setting):
            kept = self._operator.loss
            # A criterion may change its state when it is evaluated, the copy's among them.
            if not isinstance(kept, RowwiseLoss) or _same(_state(kept.criterion), setting[2]):
                self._operator.reload(module)
                return self._operator
        self._operator = None
        analysed, loss = self._split(module, criterion, criterion_takes_log)
        dtype = next(analysed.parameters()).dtype
        inputs = self._inputs.to(dtype) if self._inputs.is_floating_point() else self._inputs
        self._operator = HessianOperator(
            analysed,
            loss,
            inputs,
            self._targets,
            parameters=parameters,
            sample_weight=self._weights(loss),
            batch_size=self._batch_size,
            memory_budget=self._memory_budget,
            process_group=None,
        )
        self._setting = setting
        return self._operator

    def row_weights(self, loss: SampleLoss) -> Tensor:
        """Return the weights of the rows in the loss.

        Parameters
        ----------
        loss : SampleLoss

        Returns
        -------
        Tensor of shape (n,), float64
        """
        return loss.row_weights(self._targets, self._weights(loss))

    def release(self) -> None:
        """Let go of what products keep, until the next measurement."""
        if self._operator is not None:
            self._operator.release()

    def _weights(self, loss: SampleLoss) -> Tensor | None:
        if self._scale == 1.0 or loss.reduction == "mean":
            return self._sample_weight
        ones = torch.ones(len(self._targets), dtype=torch.float64, device=self._targets.device)
        return self._scale * (ones if self._sample_weight is None else self._sample_weight)

    def _split(
        self, module: nn.Module, criterion: nn.Module | SampleLoss, takes_log: bool
    ) -> tuple[nn.Module, SampleLoss]:
        plain = copy.deepcopy(module).eval()
        if any(p.dtype in _HALF for p in plain.parameters()):
            plain = plain.float()
        example = self._inputs[:8]
        if example.is_floating_point():
            example = example.to(next(plain.parameters()).dtype)
        if isinstance(criterion, SampleLoss):
            first_outputs(plain, example)
            return plain, criterion
        analysed, split = split_head(
            plain, copy.deepcopy(criterion), example, criterion_takes_log=takes_log
        )
        return analysed, as_sample_loss(split)


def _structure(module: nn.Module) -> list[Any]:
    """Return what has to stay for a module's values alone to describe it."""
    layers = [(name, type(layer), _settings(layer)) for name, layer in module.named_modules()]
    tensors = [
        (name, p.shape, p.dtype, p.device, p.requires_grad) for name, p in module.named_parameters()
    ]
    return [layers, tensors]


def _settings(layer: nn.Module) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(layer).items()
        if name != "training" and isinstance(value, _PLAIN)
    }


def _state(criterion: nn.Module | SampleLoss) -> Any:
    """Return a criterion's settings and values; some change during training."""
    if isinstance(criterion, SampleLoss):
        return criterion
    values = {name: tensor.clone() for name, tensor in criterion.state_dict().items()}
    return [(type(layer), _settings(layer)) for layer in criterion.modules()], values


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    return bool(one == other)
