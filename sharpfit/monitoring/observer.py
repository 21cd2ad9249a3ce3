"""One measurement of a network in training, on fixed rows."""

import copy
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sharpfit.curvature import HessianOperator
from sharpfit.jacobian import jacobian_norms, slope_bound, slopes
from sharpfit.linalg import (
    CongruentOperator,
    DiagonalOperator,
    Eigenpairs,
    LinearCombination,
    SymmetricOperator,
)
from sharpfit.monitoring.stability import StabilityCondition, stability_condition
from sharpfit.monitoring.tracker import EigenvalueTracker
from sharpfit.objective import SampleLoss, as_sample_loss, split_head

MEASURED = (
    "loss",
    "gradient_norm",
    "sharpness",
    "sharpness_error",
    "gauss_newton_part",
    "residual_part",
    "trained_sharpness",
    "trained_sharpness_error",
    "stability_limit",
    "jacobian_max",
    "jacobian_mean",
    "jacobian_mean_error",
    "slope_bound",
    "loss_slope_bound",
)


class Observer:
    """Measure a module on the same rows again and again, starting from the last measurement.

    Parameters
    ----------
    inputs : Tensor of shape (n, ...)
        Rows.
    targets : Tensor of shape (n, ...)
        Their targets.
    sample_weight : Tensor of shape (n,), optional
        Weights in the loss.
    n_eigenvalues : int, default=1
        Eigenvalues of the Hessian to follow.
    tol : float, default=1e-2
        Their relative accuracy.
    n_jacobian_rows : int, default=256
        Rows at which Jacobians are measured: all, or a fixed random part.
    batch_size : int or "auto", default="auto"
        Rows of a chunk of the Hessian.
    memory_budget : int, default=2**28
        Bytes of what the Hessian keeps between products.
    random_state : int, default=0
        Seed of the rows of the Jacobian and of the eigensolver's noise.
    """

    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        sample_weight: Tensor | None = None,
        *,
        n_eigenvalues: int = 1,
        tol: float = 1e-2,
        n_jacobian_rows: int = 256,
        batch_size: int | str = "auto",
        memory_budget: int = 2**28,
        random_state: int = 0,
    ) -> None:
        self.inputs = inputs
        self.targets = targets
        self.sample_weight = sample_weight
        self.n_eigenvalues = n_eigenvalues
        self.batch_size = batch_size
        self.memory_budget = memory_budget
        self._tracker = EigenvalueTracker(n_eigenvalues, tol=tol, random_state=random_state)
        self._trained = EigenvalueTracker(1, tol=tol, random_state=random_state)
        generator = torch.Generator().manual_seed(random_state)
        order = torch.randperm(len(inputs), generator=generator)[:n_jacobian_rows]
        self._rows = order.sort().values.to(inputs.device)
        self._succeeded = False

    def measure(
        self,
        module: nn.Module,
        loss: nn.Module | SampleLoss,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        criterion_takes_log: bool = False,
    ) -> dict[str, Any]:
        """Measure the module as it is now; it, its gradients and all random states stay.

        Parameters
        ----------
        module : nn.Module
            In any mode; a copy in evaluation mode is measured, in float32 if it has less.
        loss : nn.Module or SampleLoss
            Criterion, or the loss of the logits.
        optimizer : torch.optim.Optimizer, optional
            For the stability limit, and the parameters that move.
        criterion_takes_log : bool, default=False
            See `sharpfit.objective.split_head`.

        Returns
        -------
        dict
            Floats by name, ``n_products``, ``seconds``, and ``problem``: empty, or why the values
            that are NaN are missing.
        """
        start = time.perf_counter()
        record: dict[str, Any] = dict.fromkeys(MEASURED, math.nan) | {"n_products": 0}
        problem = ""
        device = self.inputs.device
        devices = [device] if device.type == "cuda" else []
        with (
            torch.random.fork_rng(devices=devices),
            torch.enable_grad(),
            torch.autocast(device.type, enabled=False),
            np.errstate(over="ignore", invalid="ignore"),
        ):
            try:
                self._measure(module, loss, optimizer, criterion_takes_log, record)
                self._succeeded = True
            except (FloatingPointError, ValueError, np.linalg.LinAlgError) as error:
                # A network that could be measured before has gone astray; others are refused.
                if not self._succeeded and not isinstance(error, FloatingPointError):
                    raise
                problem = str(error)
            except torch.OutOfMemoryError:
                problem = "out of memory; give a smaller memory_budget or batch_size"
        if problem:
            self._tracker.reset()
            self._trained.reset()
        record["problem"] = problem
        record["seconds"] = time.perf_counter() - start
        return record

    def _measure(
        self,
        module: nn.Module,
        loss: nn.Module | SampleLoss,
        optimizer: torch.optim.Optimizer | None,
        criterion_takes_log: bool,
        record: dict[str, Any],
    ) -> None:
        names, moved = _moved_parameters(module, optimizer)
        analysed, sample_loss = self._snapshot(module, loss, criterion_takes_log)
        outputs = self._outputs(analysed)
        losses = sample_loss.values(outputs, self.targets)
        weights = sample_loss.row_weights(self.targets, self.sample_weight)
        record["loss"] = float(weights @ losses.double())
        if not math.isfinite(record["loss"]):
            raise FloatingPointError(f"the loss is {record['loss']}")
        operator = HessianOperator(
            analysed,
            sample_loss,
            self._inputs(analysed),
            self.targets,
            parameters=names,
            sample_weight=self.sample_weight,
            batch_size=self.batch_size,
            memory_budget=self.memory_budget,
        )
        self.batch_size = operator.batch_size
        record["gradient_norm"] = float(operator.gradient().double().norm())
        pairs = self._tracker.measure(operator)
        record["n_products"] = pairs.n_products
        record["sharpness"], record["sharpness_error"] = _with_error(pairs, self._tracker.tol)
        for place in range(1, min(self.n_eigenvalues, len(pairs.values))):
            record[f"eigenvalue_{place + 1}"] = float(pairs.values[place])
        record["gauss_newton_part"] = operator.gauss_newton_form(pairs.vectors[:, 0])
        record["residual_part"] = record["sharpness"] - record["gauss_newton_part"]
        if optimizer is not None:
            self._measure_stability(operator, stability_condition(optimizer, moved), record)
        self._measure_jacobian(analysed, sample_loss, outputs, losses, record)

    def _measure_stability(
        self, operator: SymmetricOperator, condition: StabilityCondition, record: dict[str, Any]
    ) -> None:
        record["stability_limit"] = condition.limit
        trained = _trained_operator(operator, condition)
        if trained is operator:
            record["trained_sharpness"] = record["sharpness"]
            record["trained_sharpness_error"] = record["sharpness_error"]
            return
        pairs = self._trained.measure(trained)
        record["n_products"] += pairs.n_products
        value, error = _with_error(pairs, self._trained.tol)
        record["trained_sharpness"], record["trained_sharpness_error"] = value, error

    def _measure_jacobian(
        self,
        module: nn.Module,
        loss: SampleLoss,
        outputs: Tensor,
        losses: Tensor,
        record: dict[str, Any],
    ) -> None:
        rows = self._rows
        inputs = self._inputs(module)
        if not inputs.is_floating_point():
            return  # no derivative in discrete inputs
        spectral = jacobian_norms(module, inputs[rows]).spectral
        record["jacobian_max"] = float(spectral.max())
        record["jacobian_mean"] = float(spectral.mean())
        if len(rows) == len(inputs):
            record["jacobian_mean_error"] = 0.0
        elif len(rows) > 1:
            # Without replacement, the error falls with the part of the rows that is seen.
            unseen = 1 - len(rows) / len(inputs)
            record["jacobian_mean_error"] = float(
                spectral.std(ddof=1) * math.sqrt(unseen / len(rows))
            )
        if len(rows) < 2:
            return
        points = inputs[rows].flatten(1).cpu().numpy()
        record["slope_bound"] = slopes(outputs[rows].cpu().numpy(), points).largest
        try:
            bound = slope_bound(
                loss, losses[rows], self.targets[rows], points, n_outputs=outputs.shape[1]
            )
        except (TypeError, ValueError):
            return  # not every loss confines the outputs
        record["loss_slope_bound"] = bound.value

    def _snapshot(
        self, module: nn.Module, loss: nn.Module | SampleLoss, criterion_takes_log: bool
    ) -> tuple[nn.Module, SampleLoss]:
        plain = copy.deepcopy(getattr(module, "_orig_mod", module)).eval()
        plain.zero_grad(set_to_none=True)
        if any(p.dtype in (torch.float16, torch.bfloat16) for p in plain.parameters()):
            plain = plain.float()
        if isinstance(loss, SampleLoss):
            return plain, loss
        analysed, criterion = split_head(
            plain, loss, self._inputs(plain)[:8], criterion_takes_log=criterion_takes_log
        )
        return analysed, as_sample_loss(criterion)

    def _inputs(self, module: nn.Module) -> Tensor:
        if not self.inputs.is_floating_point():
            return self.inputs
        return self.inputs.to(next(module.parameters()).dtype)

    def _outputs(self, module: nn.Module) -> Tensor:
        size = 1024 if self.batch_size == "auto" else int(self.batch_size)
        with torch.no_grad():
            return torch.cat([module(part) for part in self._inputs(module).split(size)])


def _moved_parameters(
    module: nn.Module, optimizer: torch.optim.Optimizer | None
) -> tuple[Sequence[str] | None, list[nn.Parameter]]:
    """Return the names and tensors of the trainable parameters the optimiser holds."""
    plain = getattr(module, "_orig_mod", module)
    named = [(name, p) for name, p in plain.named_parameters() if p.requires_grad]
    if optimizer is None:
        return None, [p for _, p in named]
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    kept = [(name, p) for name, p in named if id(p) in held]
    return [name for name, _ in kept], [p for _, p in kept]


def _trained_operator(
    operator: SymmetricOperator, condition: StabilityCondition
) -> SymmetricOperator:
    """Return the matrix whose largest eigenvalue the stability limit concerns."""
    trained = operator
    if condition.weight_decay is not None:
        decay = condition.weight_decay.to(operator.device, operator.dtype)
        trained = LinearCombination([trained, DiagonalOperator(decay)])
    if condition.preconditioner is not None:
        scaling = condition.preconditioner.to(operator.device, torch.float64).rsqrt()
        trained = CongruentOperator(trained, scaling)
    return trained


def _with_error(pairs: Eigenpairs, tol: float) -> tuple[float, float]:
    value, bound = float(pairs.values[0]), float(pairs.error_bounds[0])
    return value, max(bound, tol * abs(value))
