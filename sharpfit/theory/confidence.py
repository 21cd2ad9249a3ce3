"""Confidence limits for means and frequencies of independent observations."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betainccinv, xlogy

__all__ = [
    "binary_kl",
    "check_delta",
    "clopper_pearson_lower",
    "clopper_pearson_upper",
    "dkw_deviation",
    "hoeffding_deviation",
    "kl_inverse",
]

_BISECTION_STEPS = 60


def check_delta(delta: float, *, largest: float = 1.0) -> float:
    """Return ``delta`` when it is a probability of failure in (0, ``largest``]."""
    delta = float(delta)
    if not 0.0 < delta <= largest:
        raise ValueError(
            f"delta={delta!r} must lie in (0, {largest:g}]; it is the probability with which the "
            "statement may fail, for example 0.05."
        )
    return delta


def clopper_pearson_upper(successes: ArrayLike, trials: int, delta: ArrayLike) -> np.ndarray:
    """Upper confidence limit of a binomial probability (Clopper and Pearson, 1934).

    If ``successes`` is binomial with ``trials`` trials and probability ``p``, then ``p`` exceeds
    the returned limit with probability at most ``delta``. The limit is exact: it is the largest
    ``p`` under which a count this small still has probability ``delta``.

    Parameters
    ----------
    successes : array-like of int
        Observed counts, between 0 and ``trials``.
    trials : int
        Number of independent trials, at least 1.
    delta : float or array-like of float
        Probability of failure, in (0, 1], one for each count or for all.

    Returns
    -------
    ndarray of float64
        One limit per count; 1 where every trial was a success.

    Raises
    ------
    ValueError
        If a count lies outside ``[0, trials]`` or ``delta`` outside (0, 1].

    Examples
    --------
    >>> float(clopper_pearson_upper(0, 50, 0.05).round(7))
    0.0581551
    """
    counts = _check_counts(successes, trials)
    deltas = np.asarray(delta, dtype=np.float64)
    check_delta(float(deltas.min()))
    check_delta(float(deltas.max()))
    limits = betainccinv(counts + 1.0, np.maximum(trials - counts, 1.0), deltas)
    return np.where(counts >= trials, 1.0, limits)


def clopper_pearson_lower(successes: ArrayLike, trials: int, delta: ArrayLike) -> np.ndarray:
    """Lower confidence limit of a binomial probability (Clopper and Pearson, 1934).

    The mirror image of :func:`clopper_pearson_upper`: the probability lies below the returned
    limit with probability at most ``delta``.

    Parameters
    ----------
    successes : array-like of int
        Observed counts, between 0 and ``trials``.
    trials : int
        Number of independent trials, at least 1.
    delta : float or array-like of float
        Probability of failure, in (0, 1], one for each count or for all.

    Returns
    -------
    ndarray of float64
        One limit per count; 0 where no trial was a success.

    Examples
    --------
    >>> float(clopper_pearson_lower(50, 50, 0.05).round(7))
    0.9418449
    """
    counts = _check_counts(successes, trials)
    return 1.0 - clopper_pearson_upper(trials - counts, trials, delta)


def _check_counts(successes: ArrayLike, trials: int) -> np.ndarray:
    counts = np.asarray(successes, dtype=np.float64)
    if trials < 1:
        raise ValueError(f"trials={trials!r} must be at least 1.")
    if np.any(~((counts >= 0) & (counts <= trials))):
        raise ValueError(f"successes={successes!r} must lie between 0 and trials={trials}.")
    return counts


def binary_kl(q: ArrayLike, p: ArrayLike) -> np.ndarray:
    """Relative entropy ``kl(q || p)`` of two Bernoulli distributions, in nats.

    Parameters
    ----------
    q, p : array-like of float
        Probabilities.

    Returns
    -------
    ndarray of float64
        ``q log(q/p) + (1-q) log((1-q)/(1-p))``; infinite where ``p`` excludes what ``q`` allows.

    Examples
    --------
    >>> float(binary_kl(0.5, 0.5))
    0.0
    """
    q, p = np.asarray(q, dtype=np.float64), np.asarray(p, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return xlogy(q, q) - xlogy(q, p) + xlogy(1.0 - q, 1.0 - q) - xlogy(1.0 - q, 1.0 - p)


def kl_inverse(mean: ArrayLike, budget: ArrayLike) -> np.ndarray:
    """Largest ``p >= mean`` with ``kl(mean || p) <= budget``.

    By Chernoff's inequality the mean of ``m`` independent variables with values in [0, 1] and
    expectation ``p`` satisfies ``p <= kl_inverse(mean, log(1/delta) / m)`` with probability at
    least ``1 - delta``. For small means this is far sharper than Hoeffding's inequality.

    Parameters
    ----------
    mean : array-like of float
        Observed means; values above 1 count as 1.
    budget : array-like of float
        Relative entropy allowed, in nats, not negative.

    Returns
    -------
    ndarray of float64
        Upper limits in [0, 1], rounded upwards to the end of the bracketing interval.

    Raises
    ------
    ValueError
        If a mean or a budget is negative.

    Examples
    --------
    >>> float(kl_inverse(0.1, np.log(20) / 50).round(7))
    0.2337837
    """
    means = np.minimum(np.asarray(mean, dtype=np.float64), 1.0)
    budgets = np.asarray(budget, dtype=np.float64)
    if not np.all(means >= 0) or not np.all(budgets >= 0):
        raise ValueError("mean and budget must not be negative.")
    means, budgets = np.broadcast_arrays(means, budgets)
    low, high = means.copy(), np.ones_like(means)
    for _ in range(_BISECTION_STEPS):
        middle = (low + high) / 2
        inside = binary_kl(means, middle) <= budgets
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return high


def hoeffding_deviation(n_samples: int, delta: float) -> float:
    """One-sided deviation of a mean of variables in [0, 1] (Hoeffding, 1963).

    The expectation exceeds the mean of ``n_samples`` independent observations by more than
    ``sqrt(log(1/delta) / (2 n_samples))`` with probability at most ``delta``.

    Parameters
    ----------
    n_samples : int
        Number of independent observations.
    delta : float
        Probability of failure, in (0, 1].

    Returns
    -------
    float
        The deviation.

    Examples
    --------
    >>> round(hoeffding_deviation(50, 0.05), 7)
    0.1730818
    """
    if n_samples < 1:
        raise ValueError(f"n_samples={n_samples!r} must be at least 1.")
    return float(np.sqrt(-np.log(check_delta(delta)) / (2.0 * n_samples)))


def dkw_deviation(n_samples: int, delta: float) -> float:
    """One-sided uniform deviation of an empirical distribution function (Massart, 1990).

    With probability at least ``1 - delta`` the empirical distribution function exceeds the true
    one by no more than the returned value at any point. The constant is the same as Hoeffding's,
    but the statement is uniform; it needs ``delta <= 1/2``.

    Parameters
    ----------
    n_samples : int
        Number of independent observations.
    delta : float
        Probability of failure, in (0, 1/2].

    Returns
    -------
    float
        The deviation.

    Examples
    --------
    >>> round(dkw_deviation(50, 0.05), 7)
    0.1730818
    """
    return hoeffding_deviation(n_samples, check_delta(delta, largest=0.5))
