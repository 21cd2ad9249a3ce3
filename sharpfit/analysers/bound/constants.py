"""Outputs of a network and the Lipschitz constant of its margin, in the metric of a bound."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sharpfit.analysers.bound.assumptions import Assumption
from sharpfit.analysers.bound.metric import MetricSpace
from sharpfit.bridge import Problem
from sharpfit.jacobian import (
    Certificate,
    certified_radii,
    empirical_margin_constant,
    jacobian_norms,
    lipschitz_certificate,
    slopes,
)

__all__ = ["LipschitzResult", "exact_outputs", "lipschitz_result"]

_BATCH_ROWS = 4096
_MOST_ROWS_ALL_PAIRS = 20_000
_NEIGHBOURS = 32


@dataclass(frozen=True, eq=False)
class LipschitzResult:
    """A Lipschitz constant, or certified radii, in units of the metric.

    Attributes
    ----------
    constant : float or None
        Of the margin (classification) or of the prediction (regression); None with ``radii``.
    radii : ndarray of shape (n,) or None
        Certified radii from a callable.
    slack : ndarray of shape (n,)
        Bound on the rounding error of every row's margin or prediction.
    assumption : Assumption
        Where the constant comes from.
    certified : bool
        Whether the constant bounds the network everywhere.
    """

    constant: float | None
    radii: np.ndarray | None
    slack: np.ndarray
    assumption: Assumption
    certified: bool


class _AffineInput(nn.Module):
    """A network as a function of the rows in front of its affine preprocessing."""

    def __init__(self, module: nn.Module, matrix: Tensor, offset: Tensor, shape: torch.Size):
        super().__init__()
        self.module = module
        self.matrix = nn.Parameter(matrix, requires_grad=False)
        self.offset = nn.Parameter(offset, requires_grad=False)
        self.shape = shape

    def forward(self, rows: Tensor) -> Tensor:
        inputs = rows @ self.matrix.T + self.offset
        return self.module(inputs.reshape(len(rows), *self.shape))


def exact_outputs(problem: Problem) -> np.ndarray:
    """Compute the outputs of the network in double precision.

    Parameters
    ----------
    problem : Problem
        The network and its inputs.

    Returns
    -------
    ndarray of float64 of shape (n, n_outputs)

    Raises
    ------
    ValueError
        If an output is not finite.
    """
    module = copy.deepcopy(problem.module).double()
    inputs = problem.inputs
    if not inputs.is_floating_point():
        raise TypeError(
            f"The network's inputs are {inputs.dtype}; distances and Lipschitz constants need "
            "real inputs. Analyse the network behind its embedding."
        )
    with torch.no_grad():
        parts = [
            module(inputs[start : start + _BATCH_ROWS].double())
            for start in range(0, len(inputs), _BATCH_ROWS)
        ]
    outputs = torch.cat(parts).cpu().numpy()
    bad = int(np.count_nonzero(~np.isfinite(outputs).all(axis=1)))
    if bad:
        raise ValueError(
            f"The network's outputs are not finite on {bad} of {len(outputs)} rows: its training "
            "has diverged. Use a smaller learning rate."
        )
    return outputs.reshape(len(outputs), -1)


def lipschitz_result(
    problem: Problem,
    space: MetricSpace,
    lipschitz: str | Callable[..., Any],
    values: np.ndarray,
    target_factor: float,
) -> LipschitzResult:
    """Bound or estimate how fast the margin or the prediction moves with the metric.

    Parameters
    ----------
    problem : Problem
        The network.
    space : MetricSpace
        Where distances are taken.
    lipschitz : "empirical", "certified" or callable
        See :class:`~sharpfit.GeneralisationBound`.
    values : ndarray of shape (n,) or (n, k)
        Margins, or predictions in units of the targets.
    target_factor : float
        Units of the target per unit of the network's output; 1 for classification.

    Returns
    -------
    LipschitzResult
    """
    if lipschitz == "empirical":
        constant, reason = _empirical(problem, space, values, target_factor)
        status = Assumption(
            "assumed",
            f"the constant is the largest variation seen on the sample ({reason}); the true one "
            "may be larger, so the number is an estimate",
            "lipschitz='certified'",
        )
        slack = np.zeros(len(problem.inputs))
        return LipschitzResult(constant, None, slack, status, certified=False)
    stretch = 1.0 if space.affine is None else space.affine.norm
    if callable(lipschitz):
        given, status = _called(problem, lipschitz)
    else:
        given = lipschitz_certificate(problem.module, tuple(problem.inputs.shape[1:]))
        folded = "" if space.affine is None else f", times {stretch:.3g} for preprocessing"
        status = Assumption("holds", f"{given.method} of the layers' constants{folded}")
    if isinstance(given, Certificate):
        classification = problem.task == "classification"
        given = given.margin_constant if classification else given.constant
    shift = _input_rounding(problem, space)
    if np.ndim(given) == 0:
        constant = float(given) * target_factor
        slack = constant * shift + _output_rounding(problem, constant, values)
        return LipschitzResult(constant * stretch, None, slack, status, certified=True)
    # A ball around the row lies within a larger one around the rounded row.
    with np.errstate(divide="ignore", invalid="ignore"):
        radii = np.where(given > shift, (given - shift) / stretch, 0.0)
    return LipschitzResult(None, radii, np.zeros(len(radii)), status, certified=True)


def _called(problem: Problem, function: Callable[..., Any]) -> tuple[Any, Assumption]:
    """Return the constant, radii or certificate of a callable, checked, and their status."""
    name = getattr(function, "__name__", type(function).__name__)
    if isinstance(function, partial):
        name = getattr(function.func, "__name__", type(function.func).__name__)
    classification = problem.task == "classification"
    targets = torch.as_tensor(problem.labels) if classification else problem.targets
    given = function(problem.module, problem.inputs, targets)
    if isinstance(given, Certificate):
        return given, Assumption("assumed", f"{name} returns a certificate of the network")
    n_rows = len(problem.inputs)
    try:
        numbers = np.asarray(given.detach().cpu() if isinstance(given, Tensor) else given, float)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"lipschitz={name} returned a {type(given).__name__}; it must return one constant or "
            f"{n_rows} certified radii."
        ) from error
    if numbers.ndim == 0:
        if not 0.0 <= numbers < np.inf:
            raise ValueError(
                f"lipschitz={name} returned {given!r}; a constant must be finite and not negative."
            )
    elif numbers.shape != (n_rows,) or np.isnan(numbers).any():
        raise ValueError(
            f"lipschitz={name} returned shape {numbers.shape}; it must return one constant or "
            f"{n_rows} certified radii without NaN, in the network's input space."
        )
    elif not classification:
        raise ValueError(
            f"lipschitz={name} returned certified radii, which bound a classifier only; return a "
            "constant for a regression."
        )
    proved = function is certified_radii or getattr(function, "func", None) is certified_radii
    return numbers, Assumption(
        "holds" if proved else "assumed", f"{name} certifies what it returns"
    )


def _empirical(
    problem: Problem, space: MetricSpace, values: np.ndarray, target_factor: float
) -> tuple[float, str]:
    module, rows = _in_metric(problem, space)
    n_neighbours = None if len(rows) <= _MOST_ROWS_ALL_PAIRS else _NEIGHBOURS
    pairs = "all pairs" if n_neighbours is None else f"{n_neighbours} nearest neighbours"
    if problem.task == "classification":
        norms = jacobian_norms(
            module, rows, output="margin", targets=torch.as_tensor(problem.labels)
        )
        found = empirical_margin_constant(
            values,
            problem.labels,
            space.features,
            norms.margin_gradient,
            n_neighbours=n_neighbours,
        )
        contradiction = (
            "; the sample itself contradicts its Jacobian" if found.contradicts_gradients else ""
        )
        return float(found), f"margin gradients and slopes over {pairs}{contradiction}"
    gradient = float(jacobian_norms(module, rows).spectral.max()) * target_factor
    slope = slopes(values, space.features, n_neighbours=n_neighbours).largest
    return max(gradient, slope), f"Jacobian norms and slopes over {pairs}"


def _in_metric(problem: Problem, space: MetricSpace) -> tuple[nn.Module, Tensor]:
    """Return the network as a function of the rows of the metric, and these rows."""
    if space.affine is None:
        return problem.module, problem.inputs
    like = {"dtype": problem.inputs.dtype, "device": problem.inputs.device}
    module = _AffineInput(
        problem.module,
        torch.as_tensor(space.affine.matrix, **like),
        torch.as_tensor(space.affine.offset, **like),
        problem.inputs.shape[1:],
    )
    return module.eval(), torch.as_tensor(space.features, **like)


def _input_rounding(problem: Problem, space: MetricSpace) -> np.ndarray:
    """Distance of what the network saw from the exact image of each row of the metric.

    Preprocessing and the network take the rows in their own precision, often a single one; what
    that changed is measured in double precision.
    """
    rows, seen = space.features, problem.inputs.double().flatten(1).cpu().numpy()
    if space.affine is None:
        return np.linalg.norm(rows - seen, axis=1)
    terms = rows.shape[1] + 1
    sizes = space.affine.norm * np.linalg.norm(rows, axis=1) + np.linalg.norm(space.affine.offset)
    remaining = 4 * terms * np.finfo(np.float64).eps * sizes
    return np.linalg.norm(space.affine(rows) - seen, axis=1) + remaining


def _output_rounding(problem: Problem, constant: float, values: np.ndarray) -> np.ndarray:
    """Bound, to first order, the rounding of margins or predictions in double precision.

    Each of the sums behind an output has as many terms as a weight has columns.
    """
    terms = sum(p.shape[1:].numel() + 1 for p in problem.module.parameters() if p.ndim)
    sizes = torch.linalg.vector_norm(problem.inputs.double().flatten(1), dim=1).cpu().numpy()
    magnitudes = np.abs(values).reshape(len(sizes), -1).max(axis=1)
    return 4 * terms * np.finfo(np.float64).eps * (constant * sizes + magnitudes)
