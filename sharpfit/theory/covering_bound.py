"""Bounds by covering: fresh points lie within a certified radius of reference points."""

import numpy as np

from sharpfit.theory.confidence import clopper_pearson_upper, dkw_deviation
from sharpfit.theory.form import FormCurve
from sharpfit.theory.geometry import Geometry

__all__ = ["covering_form", "exception_levels", "exceptions_form"]


def covering_form(geometry: Geometry, radii: np.ndarray, delta: float) -> FormCurve:
    r"""Bound the error by the frequency of points without a reference point within its radius.

    Let ``r_u`` be a certified radius of the reference point ``u``: the classifier gives the class
    of ``u`` everywhere within ``r_u`` of it (for example margin over Lipschitz constant, 0 for
    an error). Let ``d_v`` be the distance from ``v`` to the nearest reference point of its class.
    With probability at least ``1 - delta``, for every classifier and all radii,

    .. math:: P(\mathrm{error}) \le \#\{v \in V : d_v \ge \min_u r_u\} / |V|
              + \sqrt{\log(1/\delta) / (2 |V|)}.

    Proof: an error at ``x`` means that no reference point of its class is nearer than its radius,
    so ``d_x >= min r_u``. The distances of fresh points to ``U`` are independent given ``U``; the
    inequality of Dvoretzky, Kiefer and Wolfowitz with Massart's constant, which is proved for
    ``delta <= 1/2`` and taken at 1/2 for larger ones, holds at all radii.

    Parameters
    ----------
    geometry : Geometry
        Of a classification.
    radii : ndarray of shape (n_reference,)
        Certified radii of the reference points.
    delta : float
        Probability of failure.

    Returns
    -------
    FormCurve
        With a single point, the smallest radius.
    """
    radius = max(float(np.min(radii)), 0.0)
    distances = geometry.nearest_distances
    uncovered = (len(distances) - np.searchsorted(distances, radius, side="left")) / len(distances)
    deviation = dkw_deviation(len(distances), min(delta, 0.5))
    return _curve(
        "covering",
        np.array([radius]),
        uncovered=np.array([uncovered]),
        spoilt=np.array([uncovered]),
        values=np.minimum(np.array([uncovered + deviation]), 1.0),
        exceptions=np.zeros(1, dtype=np.int64),
    )


def exceptions_form(geometry: Geometry, radii: np.ndarray, delta: float) -> FormCurve:
    r"""Bound the error by covering when some reference points lack the radius.

    Fix a radius ``r``. A fresh point is covered by the reference points of its class found within
    ``r``; let ``W(q)`` be the most test points that ``q`` reference points can spoil (see
    :func:`~sharpfit.theory.neighbours.exception_counts`). With probability at least
    ``1 - delta``, every classifier for which at most ``q`` reference points have a certified
    radius below ``r`` errs with probability at most

    .. math:: \mathrm{ClopperPearson}(W(q),\ |V|,\ \delta).

    Proof: an error at a fresh point means that all its coverers are among the bad points, or that
    it has none. The set of ``q`` points for which this is likeliest depends on ``U`` only; the
    number of test points it spoils is binomial and at most ``W(q)``. The radii of the grid share
    ``delta`` equally. Half of it is shared among the numbers of exceptions by the weights
    ``1 / ((q+1)(q+2))``, the other half equally among the levels of :func:`exception_levels`, to
    which a number may be rounded up; the smaller of the two limits is taken.

    Parameters
    ----------
    geometry : Geometry
        Of a classification.
    radii : ndarray of shape (n_reference,)
        Certified radii of the reference points.
    delta : float
        Probability of failure.

    Returns
    -------
    FormCurve
        One point per radius of the grid.
    """
    n_bad = np.searchsorted(np.sort(radii), geometry.radii, side="left")
    levels = exception_levels(len(radii))
    rounded = levels[np.searchsorted(levels, n_bad)]
    share = delta / len(geometry.radii) / 2.0
    exact_share = share / ((n_bad + 1.0) * (n_bad + 2.0))
    n_test = geometry.n_test
    spoilt = _spoilt(geometry.exceptions, n_bad)
    exact = clopper_pearson_upper(spoilt, n_test, exact_share)
    coarse = clopper_pearson_upper(
        _spoilt(geometry.exceptions, rounded), n_test, share / len(levels)
    )
    uncovered = np.array([counts[0] for counts in geometry.exceptions])
    return _curve(
        "exceptions",
        geometry.radii,
        uncovered=uncovered / n_test,
        spoilt=spoilt / n_test,
        values=np.minimum(exact, coarse),
        exceptions=n_bad,
    )


def exception_levels(n_reference: int) -> np.ndarray:
    """Numbers of exceptions that share half of the failure probability equally.

    Parameters
    ----------
    n_reference : int
        Size of the reference half.

    Returns
    -------
    ndarray of int
        0, 1, 2, ... and, from 20 on, in steps of at most a tenth, up to ``n_reference``.

    Examples
    --------
    >>> exception_levels(13)
    array([ 0,  1,  2,  3,  4,  5,  6,  7,  8,  9, 10, 11, 12, 13])
    """
    levels = [0]
    while levels[-1] < n_reference:
        levels.append(min(levels[-1] + max(levels[-1] // 10, 1), n_reference))
    return np.array(levels)


def _spoilt(exceptions: tuple[np.ndarray, ...], n_bad: np.ndarray) -> np.ndarray:
    """Count the test points that may be spoilt, for each radius and number of exceptions."""
    return np.array(
        [counts[min(q, len(counts) - 1)] for q, counts in zip(n_bad, exceptions, strict=True)]
    )


def _curve(
    form: str,
    radii: np.ndarray,
    *,
    uncovered: np.ndarray,
    spoilt: np.ndarray,
    values: np.ndarray,
    exceptions: np.ndarray,
) -> FormCurve:
    return FormCurve(
        form=form,
        scales=np.full(len(radii), np.nan),
        radii=radii,
        capacities=np.ones(len(radii)),
        risks=spoilt - uncovered,
        geometry=uncovered,
        deviations=values - spoilt,
        values=values,
        exceptions=exceptions,
        saturates=True,
    )
