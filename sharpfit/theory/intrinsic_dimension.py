"""Intrinsic dimension of a sample, with an interval."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

__all__ = ["IntrinsicDimension", "intrinsic_dimension"]


@dataclass(frozen=True)
class IntrinsicDimension:
    """An estimate of the intrinsic dimension.

    Attributes
    ----------
    value : float
        The estimate from all distinct rows.
    std_error : float
        Its standard error, by the delete-half jackknife.
    lower, upper : float
        Ends of the interval. It covers the spread of the estimate from sample to sample, not
        the estimator's bias, which grows with the dimension.
    confidence : float
        Nominal confidence of the interval.
    """

    value: float
    std_error: float
    lower: float
    upper: float
    confidence: float

    def __float__(self) -> float:
        return self.value


def intrinsic_dimension(
    inputs: ArrayLike,
    *,
    estimator: Any = None,
    confidence: float = 0.95,
    n_subsamples: int = 40,
    random_state: int = 0,
) -> IntrinsicDimension:
    """Estimate the intrinsic dimension of the distribution of the inputs.

    The estimators are those of scikit-dimension. The interval comes from random halves of
    the rows: their variance is that of the whole sample's estimate (the delete-half jackknife).
    It is an estimate throughout; no bound rests on it.

    Parameters
    ----------
    inputs : array-like of shape (n, ...)
        At least 20 distinct rows; repeated rows count once.
    estimator : scikit-dimension estimator, optional
        An instance with ``fit(X).dimension_``; ``skdim.id.TwoNN()`` by default.
    confidence : float, default=0.95
        Confidence of the (normal) interval.
    n_subsamples : int, default=40
        Number of random halves.
    random_state : int, default=0
        Seed of the halves.

    Returns
    -------
    IntrinsicDimension

    Raises
    ------
    ImportError
        If scikit-dimension is not installed.
    ValueError
        If there are too few distinct rows, or an argument does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> plane = np.random.default_rng(0).normal(size=(400, 2)) @ np.eye(2, 9)
    >>> 1.5 < float(intrinsic_dimension(plane)) < 2.5
    True
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence={confidence!r} must lie in (0, 1).")
    if n_subsamples < 2:
        raise ValueError(f"n_subsamples={n_subsamples!r} must be at least 2.")
    points = np.asarray(inputs, dtype=np.float64)
    points = np.unique(points.reshape(len(points), -1), axis=0)
    if not np.isfinite(points).all():
        raise ValueError("inputs contain NaN or infinity; remove or impute these rows first.")
    if len(points) < 20:
        raise ValueError(f"inputs has {len(points)} distinct rows; at least 20 are needed.")
    if estimator is None:
        estimator = _two_nearest_neighbours()
    value = float(estimator.fit(points).dimension_)
    generator = np.random.default_rng(random_state)
    halves = [generator.permutation(len(points))[: len(points) // 2] for _ in range(n_subsamples)]
    estimates = [float(estimator.fit(points[half]).dimension_) for half in halves]
    std_error = float(np.std(estimates, ddof=1))
    reach = float(norm.isf((1.0 - confidence) / 2.0)) * std_error
    return IntrinsicDimension(value, std_error, max(value - reach, 0.0), value + reach, confidence)


def _two_nearest_neighbours() -> Any:
    try:
        import skdim
    except ImportError as error:
        raise ImportError(
            "intrinsic_dimension needs scikit-dimension: pip install scikit-dimension"
        ) from error
    return skdim.id.TwoNN()
