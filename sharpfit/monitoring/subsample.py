"""Sharpness on a fixed part of the rows, and what it says of all of them."""

import math

import torch
from torch import Tensor

from sharpfit.curvature import HessianOperator
from sharpfit.curvature.network import differentiable_kernels


class Subsample:
    r"""A fixed part of the rows, and others to check it on.

    For a fixed unit vector, :math:`v^\top H v` is a mean over rows, and its standard error that
    of a mean without replacement: the infinitesimal jackknife of the eigenvalue, whose derivative
    in the weight of a row is :math:`v^\top H_i v`. It does not cover the bias: the eigenvector
    fits the part it was computed on, so the part's largest eigenvalue is too large on average,
    since :math:`\lambda_{\max}` is convex. On other rows the same vector fits nothing, and
    :math:`v^\top H v \le \lambda_{\max}(H)`: on average that is too small. The two together
    bracket the largest eigenvalue over all rows in expectation.

    Parameters
    ----------
    inputs : Tensor of shape (n, ...)
        All rows.
    targets : Tensor of shape (n, ...)
        Their targets.
    sample_weight : Tensor of shape (n,) or None
        Weights in the loss.
    size : int
        Rows to measure.
    random_state : int
        Seed of the draw.

    Attributes
    ----------
    measured : tuple of Tensor, Tensor, Tensor or None
        Inputs, targets and sample weights of the part.
    held_out : tuple of Tensor, Tensor, Tensor or None
        Those of as many other rows, or of all others.
    scale : float
        All rows over those measured.
    """

    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        sample_weight: Tensor | None,
        size: int,
        random_state: int,
    ) -> None:
        self._n = len(inputs)
        generator = torch.Generator().manual_seed(random_state)
        order = torch.randperm(self._n, generator=generator)
        self.measured, self.held_out = (
            (
                inputs[rows],
                targets[rows],
                None if sample_weight is None else torch.as_tensor(sample_weight)[rows],
            )
            for rows in (order[:size].sort().values, order[size : 2 * size].sort().values)
        )
        self.scale = self._n / size

    def errors(self, operator: HessianOperator, vector: Tensor) -> dict[str, float]:
        """Return what the part leaves open.

        Parameters
        ----------
        operator : HessianOperator
            Gives the network, the loss and the trained parameters.
        vector : Tensor of shape (size,)
            Top eigenvector on the part.

        Returns
        -------
        dict
            ``sharpness_sampling_error``, the standard error of the part's ``v^T H v``;
            ``held_out_sharpness``, ``v^T H v`` on the other rows, and
            ``held_out_sharpness_error``.
        """
        value, error = self._quotient(operator, self.held_out, vector)
        return {
            "sharpness_sampling_error": self._quotient(operator, self.measured, vector)[1],
            "held_out_sharpness": value,
            "held_out_sharpness_error": error,
        }

    def _quotient(
        self,
        operator: HessianOperator,
        part: tuple[Tensor, Tensor, Tensor | None],
        vector: Tensor,
    ) -> tuple[float, float]:
        """Return ``v^T H v`` on some rows, and its standard error as a value for all of them."""
        inputs, targets, sample_weight = part
        if inputs.is_floating_point():
            inputs = inputs.to(operator.dtype)
        size, count = operator.batch_size, len(inputs)
        curvatures = torch.cat(
            [
                _row_curvatures(operator, x, y, vector)
                for x, y in zip(inputs.split(size), targets.split(size), strict=True)
            ]
        )
        mean = operator.loss.reduction == "mean"
        weights = operator.loss.row_weights(targets, sample_weight)
        shares = weights * curvatures.double() * (1.0 if mean else self._n / count)
        value = float(shares.sum())
        # A mean with weights is a ratio of two sums; class weights count in the lower one too.
        counts = weights * operator.loss._counts(targets)
        expected = counts * value if mean else shares.mean()
        spread = float((shares - expected).square().sum()) * count / max(count - 1, 1)
        return value, math.sqrt(spread * (1 - count / self._n)) if count > 1 else math.inf


def _row_curvatures(
    operator: HessianOperator, inputs: Tensor, targets: Tensor, vector: Tensor
) -> Tensor:
    """Return ``v^T H_i v`` of every row, as derivatives of ``v^T H v`` in the rows' weights."""
    network, direction = operator.network, operator.selection.split(vector)
    with torch.enable_grad(), differentiable_kernels():
        values = operator.loss.values(network.module(inputs), targets)
        weights = torch.ones_like(values, requires_grad=True)
        form = (weights * values).sum()
        for _ in range(2):
            parts = torch.autograd.grad(
                form, network.parameters, create_graph=True, materialize_grads=True
            )
            form = torch.stack(
                [(part * v).sum() for part, v in zip(parts, direction, strict=True)]
            ).sum()
        # A form that no weight enters any more, as of a linear loss, has no curvature.
        if not form.requires_grad:
            return torch.zeros_like(values)
        return torch.autograd.grad(form, weights, materialize_grads=True)[0]
