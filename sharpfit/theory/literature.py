"""Bounds of the literature, to put a bound of this package beside."""

import numpy as np
from numpy.typing import ArrayLike

from sharpfit.theory.confidence import check_delta, clopper_pearson_upper, kl_inverse
from sharpfit.theory.ramp import ramp_loss

__all__ = ["held_out_bound", "pac_bayes_bound", "spectral_margin_bound"]


def held_out_bound(
    n_errors: ArrayLike, n_rows: int, *, n_candidates: int = 1, delta: float = 0.05
) -> np.ndarray:
    """Bound the error of a network by its errors on rows set aside.

    Clopper and Pearson's exact binomial limit. If the network was chosen among ``n_candidates``
    by looking at the same rows, each gets its share of ``delta``. Where rows can be set aside this
    is usually the tightest certificate; its price is the rows.

    Parameters
    ----------
    n_errors : array-like of int
        Errors on the rows set aside.
    n_rows : int
        Number of these rows.
    n_candidates : int, default=1
        Number of networks among which the rows were used to choose.
    delta : float, default=0.05
        Probability of failure.

    Returns
    -------
    ndarray of float64
        One bound per count.

    Examples
    --------
    >>> float(held_out_bound(5, 280).round(4))
    0.0372
    >>> float(held_out_bound(5, 280, n_candidates=50).round(4))
    0.0576
    """
    return clopper_pearson_upper(n_errors, n_rows, check_delta(delta) / n_candidates)


def pac_bayes_bound(
    empirical_error: ArrayLike, divergence: ArrayLike, n_samples: int, *, delta: float = 0.05
) -> np.ndarray:
    r"""Bound the error of a randomised network (Seeger, 2002; Maurer, 2004).

    With probability at least ``1 - delta``, for all distributions ``Q`` over networks, and a
    ``P`` fixed before the sample is seen,

    .. math:: \mathrm{kl}(\hat e(Q) \,\|\, e(Q)) \le
              \frac{\mathrm{KL}(Q \| P) + \log(2 \sqrt n / \delta)}{n}.

    The statement is on a network drawn from ``Q``, not on its centre.

    Parameters
    ----------
    empirical_error : array-like of float
        Mean training error under ``Q``; an estimate from draws has to be an upper limit.
    divergence : array-like of float
        Kullback-Leibler divergence of ``Q`` from ``P``, in nats.
    n_samples : int
        Number of rows, at least 8.
    delta : float, default=0.05
        Probability of failure.

    Returns
    -------
    ndarray of float64
        Bounds in [0, 1].

    Examples
    --------
    >>> float(pac_bayes_bound(0.02, 50.0, 1000).round(3))
    0.107
    """
    if n_samples < 8:
        raise ValueError(f"n_samples={n_samples!r} must be at least 8.")
    price = np.asarray(divergence, dtype=np.float64) + np.log(
        2.0 * np.sqrt(n_samples) / check_delta(delta)
    )
    return kl_inverse(empirical_error, price / n_samples)


def spectral_margin_bound(
    margins: np.ndarray,
    weights: list[np.ndarray],
    inputs: np.ndarray,
    *,
    delta: float = 0.05,
    activation_constant: float = 1.0,
) -> float:
    r"""Bound the error by margins and weight norms (Bartlett, Foster and Telgarsky, 2017).

    For a network of dense layers ``A_1, ..., A_L`` without skip connections the empirical
    Rademacher complexity of its ramp losses of width ``gamma`` is at most

    .. math:: \frac{4}{n^{3/2}} + \frac{36 \|X\|_F \sqrt{\log(2 W^2)} \log n}{\gamma n}
              \prod_l \rho \|A_l\|_2
              \Bigl(\sum_l (\|A_l^T\|_{2,1} / \|A_l\|_2)^{2/3}\Bigr)^{3/2},

    and the error exceeds the mean ramp by at most twice that and
    ``3 sqrt(log(2/delta) / (2 n))``. Returned is the minimum over the ramp widths at a grid of
    quantiles of the margins, without the price of choosing the width and the norms after looking,
    which is in favour of this bound.

    Parameters
    ----------
    margins : ndarray of shape (n_samples,)
        Margins of the true classes.
    weights : list of ndarray
        Weight matrices, each of shape (n_outputs, n_inputs).
    inputs : ndarray of shape (n_samples, ...)
        The network's inputs.
    delta : float, default=0.05
        Probability of failure.
    activation_constant : float, default=1.0
        Lipschitz constant of the activation functions.

    Returns
    -------
    float
        The bound, not clipped.

    Examples
    --------
    >>> rows = np.ones((100, 2))
    >>> spectral_margin_bound(np.ones(100), [np.eye(2)], rows) > 1
    True
    """
    n_samples = len(margins)
    spectral = np.array([np.linalg.norm(weight, 2) for weight in weights])
    # The group norm of the transpose sums the Euclidean norms of the rows of the weight.
    grouped = np.array([np.linalg.norm(weight, axis=1).sum() for weight in weights])
    width = max(max(weight.shape) for weight in weights)
    size = (
        np.prod(activation_constant * spectral)
        * np.sum((grouped / spectral) ** (2.0 / 3.0)) ** 1.5
        * np.linalg.norm(inputs)
    )
    factor = 36.0 * size * np.sqrt(np.log(2.0 * width**2)) * np.log(n_samples) / n_samples
    positive = margins[margins > 0]
    ramps = np.quantile(positive, np.linspace(0.05, 1.0, 20)) if len(positive) else np.ones(1)
    deviation = 3.0 * np.sqrt(np.log(2.0 / check_delta(delta)) / (2.0 * n_samples))
    values = [
        ramp_loss(margins, gamma).mean() + 2.0 * (4.0 / n_samples**1.5 + factor / gamma) + deviation
        for gamma in ramps
    ]
    return float(min(values))
