"""What a data set shows of a network between its rows: slopes and the constants they force."""

from dataclasses import dataclass

import torch

from sharpfit.analysers.jacobian_space import AnalysedFunction
from sharpfit.bridge import Problem
from sharpfit.jacobian import (
    JacobianNorms,
    UnboundedLossError,
    empirical_margin_constant,
    slope_bound,
    slopes,
)

# Beyond this many rows, pairs are those with the nearest neighbours.
_ALL_PAIRS = 20_000
_NEIGHBOURS = 10


@dataclass(frozen=True)
class BetweenRows:
    """Slopes between rows and the Lipschitz constants that they force.

    Attributes
    ----------
    slope_bound_ : float
        Largest slope of the logits, probabilities or predictions.
    n_duplicate_pairs_ : int
        Pairs of equal rows.
    n_conflicting_pairs_ : int or None
        Those with different targets; None without targets.
    margin_constant_ : float or None
        Empirical constant of the margin; None without labels.
    margin_contradicted_ : bool or None
        Whether slopes of the margin exceed its gradients at the rows; None without labels.
    loss_slope_bound_ : float or None
        What the losses alone force; None without targets and where nothing follows.
    """

    slope_bound_: float
    n_duplicate_pairs_: int
    n_conflicting_pairs_: int | None = None
    margin_constant_: float | None = None
    margin_contradicted_: bool | None = None
    loss_slope_bound_: float | None = None


def between_rows(
    problem: Problem, function: AnalysedFunction, norms: JacobianNorms, *, output: str
) -> BetweenRows:
    """Look at the pairs of rows of a problem.

    Parameters
    ----------
    problem : Problem
    function : AnalysedFunction
        The space in which distances are taken.
    norms : JacobianNorms
        Of the logits, with the margins of the labels where there are any.
    output : {"logits", "probabilities"}
        Whose slopes are taken.

    Returns
    -------
    BetweenRows
    """
    logits = function.outputs()
    values = _probabilities(logits) if output == "probabilities" else logits
    points = function.inputs.detach().cpu().numpy()
    n_neighbours = None if len(points) <= _ALL_PAIRS else _NEIGHBOURS
    targets = None if problem.targets is None else problem.targets.cpu().numpy()
    found = slopes(values.cpu().numpy(), points, targets=targets, n_neighbours=n_neighbours)
    result = {"slope_bound_": found.largest, "n_duplicate_pairs_": found.n_duplicate_pairs}
    if problem.targets is None:
        return BetweenRows(**result)
    result["n_conflicting_pairs_"] = found.n_conflicting_pairs
    if problem.labels is not None:
        assert norms.margin is not None
        gradients = norms.largest_margin_gradient
        constant = empirical_margin_constant(
            norms.margin,
            problem.labels,
            points,
            norms.margin_gradient if gradients is None else gradients,
            n_neighbours=n_neighbours,
        )
        result["margin_constant_"] = constant.value
        result["margin_contradicted_"] = constant.contradicts_gradients
    if problem.loss is not None:
        try:
            bound = slope_bound(
                problem.loss,
                problem.loss.values(logits, problem.targets),
                problem.targets,
                points,
                n_outputs=logits.shape[1],
                n_neighbours=n_neighbours,
            )
        except UnboundedLossError:
            return BetweenRows(**result)
        result["loss_slope_bound_"] = bound.value
    return BetweenRows(**result)


def _probabilities(logits: torch.Tensor) -> torch.Tensor:
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)
