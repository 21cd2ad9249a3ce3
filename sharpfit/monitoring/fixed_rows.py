"""What is measured at fixed rows: Jacobians, slopes between them, and the floors they imply."""

import math
from typing import Any

import torch
from torch import Tensor

from sharpfit.curvature import HessianOperator
from sharpfit.jacobian import jacobian_norms, layer_norms
from sharpfit.monitoring.input_slopes import RowSlopes, variation
from sharpfit.monitoring.row_terms import RowTerms, row_terms

# More outputs than this would take as many backward passes for the whole Jacobian.
_MOST_OUTPUTS = 64
# Of a row's activations, for every output: their derivatives, and what is made of them.
_COPIES = 3


class FixedRows:
    """Measure the network as a function of its inputs, at the same rows every time.

    Parameters
    ----------
    inputs : Tensor of shape (n, ...)
        All rows, floating.
    targets : Tensor of shape (n, ...)
        Their targets.
    rows : Tensor of shape (m,), int64
        Those to measure at.
    layers : bool
        Whether to record the factors of layers.
    alignment : bool
        Whether to measure how far the layers' Jacobians line up.
    local_variation : bool
        Whether to measure Jacobians near the rows.
    """

    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        rows: Tensor,
        *,
        layers: bool,
        alignment: bool,
        local_variation: bool,
    ) -> None:
        self._rows = rows
        self._inputs = inputs[rows]
        self._targets = targets[rows]
        self._layers = layers
        self._alignment = alignment
        self._local_variation = local_variation
        self._slopes = RowSlopes(self._inputs, self._targets) if len(rows) > 1 else None

    def measure(
        self,
        operator: HessianOperator,
        outputs: Tensor,
        losses: Tensor,
        weights: Tensor,
        record: dict[str, Any],
    ) -> None:
        """Add what is measured to a record.

        Parameters
        ----------
        operator : HessianOperator
            Gives the network, the loss and the trained parameters.
        outputs : Tensor of shape (n, C)
            Outputs at all rows.
        losses : Tensor of shape (n,)
            Losses of all rows.
        weights : Tensor of shape (n,), float64
            Weights of all rows in the loss.
        record : dict
            Gets the values.
        """
        rows, module, loss = self._rows, operator.network.module, operator.loss
        inputs = self._inputs.to(operator.dtype)
        terms = None
        if outputs.shape[1] <= _MOST_OUTPUTS:
            terms = row_terms(
                module,
                loss,
                inputs,
                self._targets,
                weights[rows],
                n_rows=len(outputs),
                total_weight=float(weights.sum()),
                moved=operator.selection.names,
                batch_size=operator.rows_within_budget(_COPIES * outputs.shape[1]),
            )
            norms = terms.jacobian
            record["response_jacobian_max"] = terms.response_jacobian_max
            record["sharpness_floor"] = terms.jacobian_floor
            record["sharpness_floor_error"] = terms.jacobian_floor_error
            record["loss_curvature"] = terms.loss_curvature
            for name, factors in terms.layers.items() if self._layers else ():
                record["layers"].setdefault(name, {}).update(vars(factors))
        else:
            norms = torch.as_tensor(jacobian_norms(module, inputs).spectral)
        record["jacobian_max"], record["jacobian_mean"] = float(norms.max()), float(norms.mean())
        if len(rows) == len(outputs):
            record["jacobian_mean_error"] = 0.0
        elif len(rows) > 1:
            # Without replacement, the error falls with the part of the rows that is seen.
            unseen = 1 - len(rows) / len(outputs)
            record["jacobian_mean_error"] = float(norms.std()) * math.sqrt(unseen / len(rows))
        if self._alignment and (lined_up := layer_norms(module, inputs).alignment) is not None:
            record["layer_alignment"] = float(lined_up.mean())
        if self._slopes is not None:
            if self._local_variation:
                record |= variation(module, loss, inputs)
            record |= self._slopes.measure(loss, outputs[rows])
            self._measure_implied(terms, operator, losses[rows], outputs.shape[1], record)

    def _measure_implied(
        self,
        terms: RowTerms | None,
        operator: HessianOperator,
        losses: Tensor,
        n_outputs: int,
        record: dict[str, Any],
    ) -> None:
        """Record what follows from the losses alone."""
        assert self._slopes is not None
        bound = self._slopes.implied(operator.loss, losses, n_outputs)
        if bound is None:
            return
        record["loss_slope_bound"] = bound.value
        if terms is None:
            return
        distance = self._slopes.distance(bound.pair)
        record["loss_sharpness_floor"] = terms.loss_floor(bound, distance, 0.0)
        if self._local_variation:
            record["smooth_loss_sharpness_floor"] = terms.loss_floor(
                bound, distance, record["jacobian_rate"]
            )
