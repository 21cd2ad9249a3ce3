"""Everything that is known of a network's Jacobian at rows and of its slopes between them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sharpfit.analysers.jacobian_space import AnalysedFunction
from sharpfit.analysers.row_norms import logit_norms, output_norms
from sharpfit.bridge import Problem
from sharpfit.jacobian import (
    JacobianNorms,
    MarginConstant,
    SlopeBound,
    Slopes,
    UnboundedLossError,
    empirical_margin_constant,
    slope_bound,
    slopes,
)

QUANTILE_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
# Beyond this many rows, pairs are those with the nearest neighbours.
_ALL_PAIRS = 20_000
_NEIGHBOURS = 10


@dataclass(frozen=True)
class RowProfile:
    """Norms at rows, and slopes between them.

    Attributes
    ----------
    norms : JacobianNorms
        Of the output that was asked for.
    logits : JacobianNorms
        Of the logits or predictions; for classifiers with margins of the labels (their gradients
        to all other classes), or of the predicted classes where there are no labels.
    slopes : Slopes
        Of the probabilities or the margin of the predicted class if these were asked for, of the
        logits or predictions otherwise.
    margin_constant : MarginConstant or None
        Empirical Lipschitz constant of the margin; None without labels.
    loss_slope_bound : SlopeBound or None
        What the losses alone force; None without targets and where nothing follows.
    """

    norms: JacobianNorms
    logits: JacobianNorms
    slopes: Slopes
    margin_constant: MarginConstant | None
    loss_slope_bound: SlopeBound | None

    def summary(self, has_targets: bool) -> dict[str, Any]:
        """Return the fitted attributes that follow, None for those that do not exist.

        Parameters
        ----------
        has_targets : bool
            Whether pairs of equal rows with different targets could be counted.

        Returns
        -------
        dict of str to ndarray, float, int, bool or None
        """
        spectral, margin, loss = self.norms.spectral, self.margin_constant, self.loss_slope_bound
        gradients = self.logits.margin_gradient
        return {
            "_gradient_scale": 0.0 if gradients is None else float(gradients.max()),
            "norms_": spectral,
            "max_norm_": float(spectral.max()),
            "mean_norm_": float(spectral.mean()),
            "norm_error_": float(self.norms.spectral_error.max()),
            "quantiles_": np.quantile(spectral, QUANTILE_LEVELS),
            "slope_bound_": self.slopes.largest,
            "n_duplicate_pairs_": self.slopes.n_duplicate_pairs,
            "n_conflicting_pairs_": self.slopes.n_conflicting_pairs if has_targets else None,
            "margin_constant_": None if margin is None else margin.value,
            "margin_contradicted_": None if margin is None else margin.contradicts_gradients,
            "loss_slope_bound_": None if loss is None else loss.value,
        }


def row_profile(
    problem: Problem,
    function: AnalysedFunction,
    output: str,
    *,
    verbose: int = 0,
    **settings: Any,
) -> RowProfile:
    """Look at the rows of a problem and at the pairs of them.

    Parameters
    ----------
    problem : Problem
    function : AnalysedFunction
        The space in which derivatives and distances are taken.
    output : {"logits", "probabilities", "margin", "loss"}
    verbose : int, default=0
        Print one line per this many chunks of rows.
    **settings
        Passed to `sharpfit.jacobian.jacobian_norms`.

    Returns
    -------
    RowProfile
    """
    norms = of_logits = logit_norms(problem, function, verbose=verbose, **settings)
    if output != "logits":
        norms = output_norms(problem, function, output, verbose=verbose, **settings)
    logits = function.outputs()
    values: torch.Tensor | NDArray[np.float64] | None = logits
    if output == "probabilities":
        values = _probabilities(logits)
    elif output == "margin":
        values = norms.margin
    points = function.inputs.detach().double().cpu().numpy()
    pairs: dict[str, Any] = {"verbose": verbose}
    if len(points) > _ALL_PAIRS:
        pairs["n_neighbours"] = _NEIGHBOURS
    targets = None if problem.targets is None else problem.targets.cpu().numpy()
    constant = None
    if problem.labels is not None:
        constant = empirical_margin_constant(
            of_logits.margin, problem.labels, points, _gradients_of_margins(of_logits), **pairs
        )
    return RowProfile(
        norms=norms,
        logits=of_logits,
        slopes=slopes(values, points, targets=targets, **pairs),
        margin_constant=constant,
        loss_slope_bound=_loss_slope_bound(problem, logits, points, pairs),
    )


def _gradients_of_margins(logits: JacobianNorms) -> NDArray[np.float64]:
    """Return the largest gradient norm of a margin at each row.

    Where the row's class is the predicted one, minus its differences to the others are the
    margins of these. Elsewhere such a difference is no class's margin and may be steeper.
    """
    assert logits.margin is not None
    assert logits.margin_gradient is not None
    assert logits.largest_margin_gradient is not None
    return np.where(logits.margin > 0, logits.largest_margin_gradient, logits.margin_gradient)


def _loss_slope_bound(
    problem: Problem, logits: torch.Tensor, points: Any, pairs: dict[str, Any]
) -> SlopeBound | None:
    if problem.loss is None or problem.targets is None:
        return None
    losses = problem.loss.values(logits, problem.targets)
    n_outputs = logits.shape[1]
    try:
        return slope_bound(
            problem.loss, losses, problem.targets, points, n_outputs=n_outputs, **pairs
        )
    except UnboundedLossError:
        return None


def _probabilities(logits: torch.Tensor) -> torch.Tensor:
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)
