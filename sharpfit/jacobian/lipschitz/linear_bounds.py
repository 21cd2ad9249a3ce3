"""Lower bounds on affine functions of a dense chain over Euclidean balls.

Every activation is enclosed between two lines on the interval its argument can take in the ball;
an affine function of the activations is then bounded below by choosing, by the sign of every
coefficient, the line below or above, and so on back to the start, where the least value of
``a^T x + b`` over a ball is ``a^T x_0 + b - radius |a|`` (Zhang et al., 2018, "CROWN"). Rounding
is covered by a multiple of the sums of absolute values that occur.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sharpfit.jacobian.lipschitz.chain import AffineMap, DenseChain, Stage
from sharpfit.jacobian.lipschitz.relaxation import Lines, lines_around
from sharpfit.jacobian.lipschitz.rounding import accumulated_error

# Lines and their offsets may add up to this many times the activation they enclose.
_LINE_GROWTH = 4.0


@dataclass(frozen=True)
class Ball:
    """Euclidean balls, one a sample.

    Attributes
    ----------
    centres : Tensor of shape (n_samples, n_features), float64
    radii : Tensor of shape (n_samples,), float64
    """

    centres: Tensor
    radii: Tensor


def _lower_bound(
    coefficients: Tensor, constants: Tensor, stages: Sequence[Stage], lines: Sequence[Lines],
    ball: Ball,
) -> Tensor:  # fmt: skip
    """Least value over the ball of affine functions of the values behind the last stage.

    `coefficients` has shape (n_samples or 1, n_functions, n_neurons).
    """
    for stage, line in zip(reversed(stages), reversed(lines), strict=True):
        positive, negative = coefficients.clamp_min(0.0), coefficients.clamp_max(0.0)
        constants = constants + (
            positive @ line.lower_offsets[..., None] + negative @ line.upper_offsets[..., None]
        ).squeeze(-1)
        coefficients = positive * line.lower_slopes[:, None]
        coefficients.addcmul_(negative, line.upper_slopes[:, None])
        constants = constants + coefficients @ stage.affine.offset
        coefficients = coefficients @ stage.affine.matrix
    values = (coefficients @ ball.centres[..., None]).squeeze(-1) + constants
    return values - ball.radii[:, None] * coefficients.norm(dim=-1)


def _magnitudes(before: Tensor, affine: AffineMap) -> Tensor:
    return before @ affine.envelope.T + affine.offset.abs()


def lowest_margins(chain: DenseChain, labels: Tensor, ball: Ball) -> Tensor:
    """Lower bounds on the margins of a dense chain over balls around its start.

    Parameters
    ----------
    chain : DenseChain
    labels : Tensor of shape (n_samples,), int64
        Index of the correct output; of a single output, 1 where it should be positive.
    ball : Ball
        In the space the chain starts from.

    Returns
    -------
    Tensor of shape (n_samples,), float64
        No input in the ball has a smaller margin ``f_y - max_{k != y} f_k``.
    """
    error = 0.0
    magnitude = ball.centres.abs() + ball.radii[:, None]
    lines: list[Lines] = []
    for index, stage in enumerate(chain.stages):
        affine = stage.affine
        error += 4 * (accumulated_error(affine.matrix.shape[1] + 16) + affine.relative_error)
        magnitude = _magnitudes(magnitude, affine)
        both = torch.cat([affine.matrix, -affine.matrix])[None]
        offsets = torch.cat([affine.offset, -affine.offset])
        bounds = _lower_bound(both, offsets, chain.stages[:index], lines, ball)
        low, negative_high = bounds.chunk(2, dim=1)
        slack = error * magnitude
        low = torch.maximum(low - slack, -magnitude)
        high = torch.minimum(-negative_high + slack, magnitude)
        lines.append(lines_around(stage, low, torch.maximum(low, high)))
        at_zero = stage.activation(torch.zeros_like(low)).abs()
        steepest = max(abs(stage.low), abs(stage.high))
        magnitude = _LINE_GROWTH * (steepest * magnitude + at_zero)
    head = chain.head
    error += 4 * (accumulated_error(head.matrix.shape[1] + 16) + head.relative_error)
    slack = error * _magnitudes(magnitude, head)
    if len(head.matrix) == 1:
        signs = (2 * labels - 1).to(torch.float64)[:, None]
        rows, constants = signs[..., None] * head.matrix, signs * head.offset
        return _lower_bound(rows, constants, chain.stages, lines, ball)[:, 0] - slack[:, 0]
    rows = head.matrix[labels][:, None] - head.matrix
    constants = head.offset[labels][:, None] - head.offset
    margins = _lower_bound(rows, constants, chain.stages, lines, ball)
    margins = margins - slack - slack.gather(1, labels[:, None])
    return margins.scatter(1, labels[:, None], torch.inf).amin(1)
