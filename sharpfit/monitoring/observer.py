"""One measurement of a network in training, on fixed rows."""

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sharpfit.curvature import HessianOperator
from sharpfit.curvature.recorded_tangents import RecordedTangents
from sharpfit.linalg import SymmetricOperator
from sharpfit.linalg.matrix_products import plain_products
from sharpfit.monitoring.fixed_rows import FixedRows
from sharpfit.monitoring.record_names import measured, unmeasured
from sharpfit.monitoring.rough_start import RoughStart
from sharpfit.monitoring.stability import StabilityCondition, stability_condition
from sharpfit.monitoring.subsample import Subsample
from sharpfit.monitoring.tracker import EigenvalueTracker, TrackedEigenpairs
from sharpfit.monitoring.watched_network import WatchedNetwork
from sharpfit.objective import SampleLoss

# Parts of the memory budget that rows leave: one is the Hessian's, one the eigensolver's, and the
# rest what passes during a product, which takes several times what is kept of a chunk.
_SHARES = 7
# Bytes below which products do without kernels that are compiled, and kept, for their shapes, and
# a rough start with a fourth of the Hessian's share, in shorter and slower chunks.
_FRUGAL = 2**26
_EXPECTED_PRODUCTS = 16
_QUICK, _QUICK_FROM_START = 8, 3  # products


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
    n_rows : int, optional
        Measure a fixed random part of this size, and say what that leaves open.
    n_jacobian_rows : int, default=256
        Rows at which Jacobians are measured: all, or a fixed random part; none for 0.
    layers : bool, default=True
        Whether to split sharpness over layers, and that of dense ones and convolutions in factors.
    alignment : bool, default=False
        Whether to measure how far the layers' Jacobians line up.
    local_variation : bool, default=False
        Whether to measure Jacobians near the rows.
    batch_size : int or "auto", default="auto"
        Rows of a chunk of the Hessian.
    memory_budget : int, default=2**28
        Bytes for the rows and what a measurement keeps: of what the rows leave, half the budget
        at least, a seventh is for what the Hessian keeps between products, a seventh for the
        eigensolver's basis, and the rest for what passes.
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
        n_rows: int | None = None,
        n_jacobian_rows: int = 256,
        layers: bool = True,
        alignment: bool = False,
        local_variation: bool = False,
        batch_size: int | str = "auto",
        memory_budget: int = 2**28,
        random_state: int = 0,
    ) -> None:
        self.n_eigenvalues = n_eigenvalues
        self.layers = layers
        self._device = inputs.device
        self._frugal = memory_budget < _FRUGAL
        self._part = None
        if n_rows is not None and n_rows < len(inputs):
            self._part = Subsample(inputs, targets, sample_weight, n_rows, int(random_state))
            inputs, targets, sample_weight = self._part.measured
        held = sum(t.nbytes for t in (inputs, targets))
        left = max(memory_budget - held, memory_budget // 2)
        self._network = WatchedNetwork(
            inputs,
            targets,
            sample_weight,
            scale=1.0 if self._part is None else self._part.scale,
            batch_size=batch_size,
            memory_budget=left // _SHARES,
        )
        self._rough = RoughStart(
            inputs,
            targets,
            sample_weight,
            memory_budget=left // _SHARES // (4 if self._frugal else 1),
            random_state=int(random_state),
        )
        solver = {"tol": tol, "memory_budget": left // _SHARES, "random_state": int(random_state)}
        self._tracker = EigenvalueTracker(n_eigenvalues, **solver)
        self._trained = EigenvalueTracker(1, **solver)
        generator = torch.Generator().manual_seed(int(random_state))
        order = torch.randperm(len(inputs), generator=generator)[:n_jacobian_rows]
        self._rows = None
        # Discrete inputs have no derivatives.
        if inputs.is_floating_point() and len(order):
            self._rows = FixedRows(
                inputs,
                targets,
                order.sort().values.to(inputs.device),
                layers=layers,
                alignment=alignment,
                local_variation=local_variation,
            )
        self._names = measured(
            part=self._part is not None,
            jacobian=self._rows is not None,
            alignment=alignment,
            local_variation=local_variation,
            n_eigenvalues=n_eigenvalues,
        )
        self._succeeded = False

    def measure(
        self,
        module: nn.Module,
        loss: nn.Module | SampleLoss,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        criterion_takes_log: bool = False,
        quick: bool = False,
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
        quick : bool, default=False
            Whether few products have to do, and the sharpness is as accurate as these make it:
            three, where they can start from an eigenvector on an eighth of the rows, or eight.

        Returns
        -------
        dict
            Floats by name, ``n_products``, ``seconds``, and ``problem``: empty, or why the values
            that are NaN are missing.
        """
        start = time.perf_counter()
        record = unmeasured(self._names, "")
        problem = ""
        device = self._device
        devices = [device] if device.type == "cuda" else []
        with (
            torch.random.fork_rng(devices=devices),
            torch.enable_grad(),
            torch.autocast(device.type, enabled=False),
            np.errstate(over="ignore", invalid="ignore"),
            plain_products() if self._frugal else nullcontext(),
        ):
            try:
                self._measure(module, loss, optimizer, criterion_takes_log, quick, record)
                self._succeeded = True
            except (FloatingPointError, ValueError, np.linalg.LinAlgError) as error:
                # A network that could be measured before has gone astray; others are refused.
                if not self._succeeded and not isinstance(error, FloatingPointError):
                    raise
                problem = str(error)
            except torch.OutOfMemoryError:
                problem = "out of memory; give a smaller memory_budget or batch_size"
            finally:
                self._network.release()
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
        quick: bool,
        record: dict[str, Any],
    ) -> None:
        plain = getattr(module, "_orig_mod", module)
        names, moved = _moved_parameters(plain, optimizer)
        operator = self._network.load(plain, loss, names, criterion_takes_log=criterion_takes_log)
        outputs, losses, gradient = _first_order(operator)
        weights = self._network.row_weights(operator.loss)
        record["loss"] = float(weights @ losses.double())
        record["gradient_norm"] = float(gradient.double().norm())
        recorded = RecordedTangents(operator, _EXPECTED_PRODUCTS)
        start = None
        if quick and self.n_eigenvalues == 1 and self._tracker.is_new:
            start = self._rough.vector(
                *(plain, loss, names, weights, gradient), criterion_takes_log=criterion_takes_log
            )
        limit = None if not quick else _QUICK if start is None else _QUICK_FROM_START
        pairs = self._tracker.measure(recorded, gradient, rough=start, max_products=limit)
        record["n_products"] = pairs.n_products
        if start is not None:
            record["n_products"] += self._rough.n_products
        for place in range(min(self.n_eigenvalues, len(pairs.values))):
            name = f"eigenvalue_{place + 1}" if place else "sharpness"
            record[name], record[f"{name}_error"] = _with_error(pairs, place, self._tracker.tol)
        vector = pairs.vectors[:, 0]
        record["gauss_newton_part"] = recorded.gauss_newton_form(vector, pairs.coefficients)
        del recorded
        record["residual_part"] = record["sharpness"] - record["gauss_newton_part"]
        if self.layers:
            record["layers"] = _layer_shares(operator, vector)
        if self._part is not None:
            record |= self._part.errors(operator, vector)
        if optimizer is not None:
            condition = stability_condition(optimizer, moved)
            if any(isinstance(layer, _BatchNorm) for layer in plain.modules()):
                condition = condition.without_resting()
            self._measure_stability(operator, condition, gradient, record)
        if self._rows is not None:
            self._rows.measure(operator, outputs, losses, weights, record)

    def _measure_stability(
        self,
        operator: SymmetricOperator,
        condition: StabilityCondition,
        gradient: Tensor,
        record: dict[str, Any],
    ) -> None:
        record["stability_limit"] = condition.limit
        record["stability_statement"] = condition.statement
        if math.isnan(condition.limit):
            return
        if condition.shift is not None:
            record["trained_sharpness"] = record["sharpness"] + condition.shift
            record["trained_sharpness_error"] = record["sharpness_error"]
            return
        pairs = self._trained.measure(condition.trained_matrix(operator), gradient)
        record["n_products"] += pairs.n_products
        value, error = _with_error(pairs, 0, self._trained.tol)
        record["trained_sharpness"], record["trained_sharpness_error"] = value, error


def _first_order(operator: HessianOperator) -> tuple[Tensor, Tensor, Tensor]:
    """Return the outputs and losses of all rows and the gradient of the loss, from one pass."""
    gradient = torch.zeros(operator.size, dtype=operator.dtype, device=operator.device)
    parts, outputs, losses = operator.selection.split(gradient), [], []
    with torch.no_grad():
        try:
            for linearisation in operator.linearisations():
                outputs.append(linearisation.outputs)
                losses.append(linearisation.losses)
                linearisation.add_gradient(parts)
        except ValueError as error:
            raise FloatingPointError(f"the loss is not finite: {error}") from error
    return torch.cat(outputs), torch.cat(losses), gradient


def _layer_shares(operator: HessianOperator, vector: Tensor) -> dict[str, dict[str, float]]:
    """Return the part of the top eigenvector's squared length in every layer."""
    shares: dict[str, dict[str, float]] = {}
    squares = vector.double().square()
    for name, part in zip(
        operator.selection.names, operator.selection.split(squares / squares.sum()), strict=True
    ):
        layer = shares.setdefault(name.rpartition(".")[0], {"share": 0.0})
        layer["share"] += float(part.sum())
    return shares


def _moved_parameters(
    module: nn.Module, optimizer: torch.optim.Optimizer | None
) -> tuple[Sequence[str], list[nn.Parameter]]:
    """Return the names and tensors of the trainable parameters the optimiser holds."""
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    if optimizer is not None:
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        named = [(name, p) for name, p in named if id(p) in held]
    return [name for name, _ in named], [p for _, p in named]


def _with_error(pairs: TrackedEigenpairs, place: int, tol: float) -> tuple[float, float]:
    value, bound = float(pairs.values[place]), float(pairs.error_bounds[place])
    return value, max(bound, tol * abs(value))
