"""The generalisation bound by transport between two halves of the sample."""

import numpy as np

from sharpfit.theory.confidence import hoeffding_deviation
from sharpfit.theory.form import FormCurve
from sharpfit.theory.geometry import Geometry

__all__ = ["one_sided_form", "transport_form", "weighted_risk"]


def transport_form(geometry: Geometry, risks: np.ndarray, delta: float) -> FormCurve:
    r"""Bound the error by the ramp loss on the sample and a transport cost between its halves.

    Let ``m(x, y)`` be the margin of a classifier, let ``Lambda`` bound the Lipschitz constant of
    ``x -> m(x, y)`` between points of one class, and let ``gamma = Lambda / s``. With probability
    at least ``1 - delta``, for every classifier, however it was trained or chosen on the same
    rows, and for every scale ``s`` and capacity ``lam`` of the grid,

    .. math:: P(m \le 0) \le \lambda \frac1n \sum_i \phi_\gamma(m_i) + \hat C_{s,\lambda}
              + \sqrt{\frac{\log(N/\delta)}{2 \lfloor n/2 \rfloor}},

    with ``N`` pairs in the grid, the ramp ``phi``, and ``Chat`` the cost of carrying each half
    onto the other (weighted by the sizes ``|U|/n`` for ``V`` onto ``U`` and ``|V|/n`` for the way
    back), averaged over splits that were drawn without looking at the data.

    Proof: the ramp of the margin takes values in [0, 1] and is 1-Lipschitz for the cost
    ``min(1, s |x - x'|)`` within classes and 1 across. Weak duality bounds its expectation by
    ``lam`` times its mean on a half plus the cost of carrying the distribution onto that half.
    An optimal potential of that cost, which depends on the receiving half alone, is one fixed
    function with values in [0, 1]; its mean over the other half deviates from its expectation
    with the moment bound ``exp(t^2 / (8 m))``, ``m`` the size of that half, and replacing it by
    the cost of carrying that half only makes the bound larger. The exponential being convex, the
    same moment bound with ``m = floor(n/2)`` holds for the average over halves and splits;
    Chernoff's inequality and a union over the grid give the result.

    For a regression the ramp is replaced by ``1 - min(1, s b / Lambda) (1 - loss)`` with the loss
    ``min(1, |f(x) - y| / b)``: the loss itself at scales from ``Lambda / b`` on, and a majorant of
    it that is flat enough at smaller ones.

    Parameters
    ----------
    geometry : Geometry
        With the two-sided costs.
    risks : ndarray of shape (n_scales,)
        Mean loss over all rows at each scale.
    delta : float
        Probability of failure.

    Returns
    -------
    FormCurve
    """
    if geometry.transport_costs is None:
        raise ValueError(
            "The transport form needs distances that do not depend on the sample; the reference "
            "half was given because a metric was fitted on it. Use method='one_sided'."
        )
    n_pairs = geometry.transport_costs.size
    deviation = hoeffding_deviation(geometry.n_samples // 2, delta / n_pairs)
    return _curve("transport", geometry, geometry.transport_costs, risks, deviation)


def one_sided_form(geometry: Geometry, risks: np.ndarray, delta: float) -> FormCurve:
    r"""Bound the error by the ramp loss on ``U`` and the cost of carrying ``V`` onto ``U``.

    With probability at least ``1 - delta``, for all classifiers and all ``N`` pairs of the grid,

    .. math:: P(m \le 0) \le \lambda \frac{1}{|U|} \sum_{u \in U} \phi_\gamma(m_u)
              + C_{s,\lambda}(P_V, P_U) + \sqrt{\frac{\log(N/\delta)}{2 |V|}}.

    The statement is conditional on ``U``: everything that depends on ``U`` only is fixed. The
    metric, a scaler, a feature network or the grid may therefore be fitted on ``U``, while the
    classifier, a function of those features, is trained on all rows.

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
    costs = geometry.one_sided_costs
    deviation = hoeffding_deviation(geometry.n_test, delta / costs.size)
    return _curve("one_sided", geometry, costs, risks, deviation)


def weighted_risk(capacities: np.ndarray, risks: np.ndarray) -> np.ndarray:
    """Product of every risk with every capacity, where infinite capacity times zero risk is zero.

    Parameters
    ----------
    capacities : ndarray of shape (n_capacities,)
        Capacities, possibly infinite.
    risks : ndarray of shape (n_scales,)
        Mean losses.

    Returns
    -------
    ndarray of shape (n_scales, n_capacities)
    """
    with np.errstate(invalid="ignore"):
        products = risks[:, None] * capacities[None, :]
    return np.where(risks[:, None] == 0, 0.0, products)


def _curve(
    form: str, geometry: Geometry, costs: np.ndarray, risks: np.ndarray, deviation: float
) -> FormCurve:
    totals = weighted_risk(geometry.capacities, risks) + costs + deviation
    # Where a perfect network gets below 1 at some capacity, the others say nothing.
    telling = costs + deviation < 1.0
    column = np.where(telling | ~telling.any(axis=1, keepdims=True), totals, np.inf).argmin(axis=1)
    rows = np.arange(len(geometry.scales))
    return FormCurve(
        form=form,
        scales=geometry.scales,
        radii=np.full(len(rows), np.nan),
        capacities=geometry.capacities[column],
        risks=risks,
        geometry=costs[rows, column],
        deviations=np.full(len(rows), deviation),
        values=totals[rows, column],
        exceptions=np.zeros(len(rows), dtype=np.int64),
        saturates=False,
    )
