"""The one-sided transport bound with a variance-sensitive deviation."""

import numpy as np

from sharpfit.theory.confidence import check_delta, kl_inverse
from sharpfit.theory.form import FormCurve
from sharpfit.theory.geometry import Geometry
from sharpfit.theory.transport_bound import weighted_risk

__all__ = ["risk_levels", "variance_form"]

_LEVEL_RATIO = 1.25


def risk_levels(n_reference: int) -> np.ndarray:
    """Levels to which the risk on the reference half is rounded up, fixed by its size.

    Parameters
    ----------
    n_reference : int
        Size of the reference half.

    Returns
    -------
    ndarray
        0 and a geometric grid of ratio 1.25 from below ``1 / n_reference`` to 1, increasing.

    Examples
    --------
    >>> risk_levels(2).round(2)
    array([0.  , 0.41, 0.51, 0.64, 0.8 , 1.  ])
    """
    steps = int(np.ceil(np.log(n_reference) / np.log(_LEVEL_RATIO)))
    return np.concatenate([[0.0], _LEVEL_RATIO ** -np.arange(steps, -1.0, -1.0)])


def variance_form(geometry: Geometry, risks: np.ndarray, delta: float) -> FormCurve:
    r"""Bound the error through the relative entropy, sharp where the terms are small.

    Fix a scale ``s`` and a level ``r``, and let ``Psi_r`` be the smallest value of
    ``lam r + C_{s,lam}(P_V, P_U)`` over capacities. With probability at least ``1 - delta``,
    every classifier whose mean ramp on ``U`` is at most ``r`` has an error of at most

    .. math:: \mathrm{kl}^{-1}\left(\Psi_r;\ \log(1/\delta) / |V|\right).

    Proof: among the functions with values in [0, 1] that are 1-Lipschitz for the cost and have
    mean at most ``r`` on ``U``, one has the largest expectation; it depends on ``U`` only. Its
    mean over ``V`` is at most ``Psi_r`` by weak duality, whatever the capacity, so any capacity
    may be chosen after looking. Chernoff's inequality for variables in [0, 1] ends the proof. The
    scales and the levels share ``delta`` equally; a risk is rounded up to the next level.

    Parameters
    ----------
    geometry : Geometry
        With the one-sided costs.
    risks : ndarray of shape (n_scales,)
        Mean loss over the reference half at each scale.
    delta : float
        Probability of failure.

    Returns
    -------
    FormCurve
    """
    levels = risk_levels(geometry.n_reference)
    rounded = levels[np.searchsorted(levels, np.minimum(risks, 1.0))]
    costs = geometry.one_sided_costs
    totals = weighted_risk(geometry.capacities, rounded) + costs
    column = totals.argmin(axis=1)
    rows = np.arange(len(geometry.scales))
    psi = totals[rows, column]
    n_statements = len(geometry.scales) * len(levels)
    budget = -np.log(check_delta(delta) / n_statements) / geometry.n_test
    limits = kl_inverse(psi, budget)
    telling = psi < 1.0
    return FormCurve(
        form="variance",
        scales=geometry.scales,
        radii=np.full(len(rows), np.nan),
        capacities=geometry.capacities[column],
        risks=rounded,
        geometry=costs[rows, column],
        deviations=np.where(telling, limits - np.minimum(psi, 1.0), 0.0),
        values=np.where(telling, limits, psi),
        exceptions=np.zeros(len(rows), dtype=np.int64),
        saturates=True,
    )
