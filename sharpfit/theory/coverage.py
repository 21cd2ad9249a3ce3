"""What a sample says about the norms of Jacobians at points it has not seen."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from sklearn.neighbors import NearestNeighbors

from sharpfit.theory.confidence import check_delta, clopper_pearson_upper, dkw_deviation
from sharpfit.theory.splits import random_halves

__all__ = ["Coverage", "coverage", "held_out_exceedance", "held_out_maximum"]


@dataclass(frozen=True, eq=False)
class Coverage:
    r"""How much of the distribution lies near a reference half of the sample.

    **Statement.** Let the rows be independent draws of one distribution, let the split
    into the reference half :math:`U` and the test half :math:`V` not depend on them, and let
    :math:`\delta = 1 -` `confidence` :math:`\le 1/2`. With probability at least
    :math:`1 - \delta`, for all :math:`r` at once,

    .. math:: P(\mathrm{dist}(x, U) > r) \le \frac{\#\{v \in V: \mathrm{dist}(v, U) > r\}}{|V|}
              + \sqrt{\frac{\log(1/\delta)}{2|V|}},

    and, as a statement of its own with the same confidence,
    :math:`P(\mathrm{dist}(x, U) > \max_v \mathrm{dist}(v, U)) \le 1 - \delta^{1/|V|}`.

    Proof: given `U`, the distances of the rows of `V` are independent draws; the first is
    Massart's form of the Dvoretzky-Kiefer-Wolfowitz inequality, the second the chance that all
    of them miss a tail of that mass. Only inputs enter, so the statements hold for every model,
    also one trained on all rows. Grouped, duplicated or augmented rows break the assumption.

    Attributes
    ----------
    distances : ndarray of shape (m,)
        Distances from the test half to its nearest reference rows, in increasing order.
    reference : ndarray of bool of shape (n,)
        The reference half.
    confidence : float
        Probability with which each of the statements holds.
    """

    distances: np.ndarray
    reference: np.ndarray
    confidence: float

    @property
    def deviation(self) -> float:
        """What is added to the observed frequency."""
        return dkw_deviation(len(self.distances), 1.0 - self.confidence)

    @property
    def tail_radius(self) -> float:
        """Largest distance observed."""
        return float(self.distances[-1])

    @property
    def tail_mass(self) -> float:
        """Upper limit of the mass farther than `tail_radius`, at the same confidence."""
        return _unseen_mass(len(self.distances), 1.0 - self.confidence)

    def uncovered(self, radius: ArrayLike) -> np.ndarray:
        """Upper limits of the mass farther than `radius` from the reference half.

        Parameters
        ----------
        radius : array-like of float
            In units of the inputs' distances; all of them hold at once.

        Returns
        -------
        ndarray of float64
            Probabilities, at most 1.
        """
        farther = len(self.distances) - np.searchsorted(self.distances, radius, side="right")
        return np.minimum(farther / len(self.distances) + self.deviation, 1.0)

    def radius(self, mass: ArrayLike) -> np.ndarray:
        """Return radii within which at least `mass` is guaranteed to lie.

        Parameters
        ----------
        mass : array-like of float
            Probabilities in [0, 1].

        Returns
        -------
        ndarray of float64
            The smallest such radii; infinite where the sample cannot guarantee the mass.
        """
        mass = np.asarray(mass, dtype=np.float64)
        if np.any(~((mass >= 0) & (mass <= 1))):
            raise ValueError(f"mass={mass} must lie in [0, 1]; it is a probability.")
        guaranteed = 1.0 - self.uncovered(self.distances)
        place = np.searchsorted(guaranteed, mass)
        radii = np.append(self.distances, np.inf)[place]
        return np.where(mass <= 0, 0.0, radii)

    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the curve from radius to guaranteed mass.

        Returns
        -------
        radii : ndarray of shape (k,)
            The distinct observed distances in increasing order.
        masses : ndarray of shape (k,)
            Mass within each radius of the reference half, at least.
        """
        radii = np.unique(self.distances)
        return radii, 1.0 - self.uncovered(radii)

    def jacobian_bound(self, largest_norm: float, smoothness: float, mass: ArrayLike) -> np.ndarray:
        r"""Bound the Jacobian norm on a share `mass` of the distribution.

        If the Jacobian :math:`Dg` is Lipschitz with constant :math:`M` on the segments from
        :math:`x` to its nearest reference row, then
        :math:`|Dg(x)| \le \max_U |Dg| + M\,\mathrm{dist}(x, U)`. For networks with kinks, such
        as ReLU networks, there is no such constant and the statement says nothing. It is as
        certain as `smoothness` is: with an estimated constant it is an estimate.

        Parameters
        ----------
        largest_norm : float
            Largest Jacobian norm over the reference half, or over all rows.
        smoothness : float
            The constant `M`.
        mass : array-like of float
            Probabilities in [0, 1].

        Returns
        -------
        ndarray of float64
            With the confidence of the coverage, a fresh input has a Jacobian norm of at most
            this with probability at least `mass`.
        """
        for name, value in (("largest_norm", largest_norm), ("smoothness", smoothness)):
            if not 0 <= value < np.inf:
                raise ValueError(f"{name}={value!r} must be finite and not negative.")
        return largest_norm + smoothness * self.radius(mass)


def coverage(
    inputs: ArrayLike,
    *,
    confidence: float = 0.95,
    random_state: int = 0,
    reference: ArrayLike | None = None,
) -> Coverage:
    """Measure how densely a sample of inputs covers the distribution it comes from.

    Parameters
    ----------
    inputs : array-like of shape (n, ...)
        Independent draws, at least two; distances are Euclidean, from the differences of the
        rows, in units of the inputs.
    confidence : float, default=0.95
        Probability with which each statement of `Coverage` holds, in [0.5, 1).
    random_state : int, default=0
        Seed of the split into halves.
    reference : array-like of bool of shape (n,), optional
        The reference half, drawn without looking at the rows; random by default.

    Returns
    -------
    Coverage

    Raises
    ------
    ValueError
        If a row is not finite, or the confidence or the reference half does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> found = coverage(np.linspace(0, 1, 2000)[:, None])
    >>> found.distances.shape, round(found.deviation, 4), round(found.tail_mass, 5)
    ((1000,), 0.0387, 0.00299)
    """
    points = np.asarray(inputs, dtype=np.float64)
    points = points.reshape(len(points), -1)
    if not np.isfinite(points).all():
        raise ValueError("inputs contain NaN or infinity; remove or impute these rows first.")
    _failure_probability(confidence, largest=0.5)
    if reference is None:
        half = random_halves(len(points), 1, random_state)[0]
    else:
        half = np.asarray(reference)
        if half.dtype != bool or half.shape != (len(points),) or half.all() or not half.any():
            raise ValueError(
                f"reference must be a boolean mask of shape ({len(points)},) that leaves rows on "
                f"both sides, got {half.dtype} of shape {half.shape}."
            )
    search = NearestNeighbors(n_neighbors=1).fit(points[half])
    found = search.kneighbors(points[~half], return_distance=False)[:, 0]
    distances = np.linalg.norm(points[~half] - points[half][found], axis=1)
    return Coverage(np.sort(distances), half, confidence)


def held_out_exceedance(
    norms: ArrayLike,
    levels: ArrayLike,
    *,
    confidence: float = 0.95,
    simultaneous: bool = False,
) -> np.ndarray:
    r"""Bound the probability that a fresh input's norm exceeds a level.

    **Statement.** Let `norms` belong to `m` independent inputs that neither the function nor
    the levels depend on. For each level by itself, Clopper and Pearson's limit of the observed
    frequency holds with the stated confidence. With ``simultaneous=True`` the frequency plus
    :math:`\sqrt{\log(1/\delta)/(2m)}` holds for all levels at once, also for levels chosen after
    seeing the norms (Massart). No smoothness is needed.

    Parameters
    ----------
    norms : array-like of shape (m,)
        Norms, or any other quantity, at held-out inputs.
    levels : array-like of float
        Levels, in units of the norms.
    confidence : float, default=0.95
        Probability with which the statement holds.
    simultaneous : bool, default=False
        Whether it must hold for all levels at once.

    Returns
    -------
    ndarray of float64
        Upper limits of ``P(norm > level)``.

    Examples
    --------
    >>> float(held_out_exceedance([1.0] * 50, 2.0).round(7))
    0.0581551
    """
    values = _check_norms(norms)
    delta = _failure_probability(confidence)
    exceeding = len(values) - np.searchsorted(np.sort(values), levels, side="right")
    if simultaneous:
        return np.minimum(exceeding / len(values) + dkw_deviation(len(values), delta), 1.0)
    return clopper_pearson_upper(exceeding, len(values), delta)


def held_out_maximum(norms: ArrayLike, *, confidence: float = 0.95) -> tuple[float, float]:
    r"""Bound the probability that a fresh input's norm exceeds the largest one held out.

    **Statement.** For `m` independent inputs that the function does not depend on,
    :math:`P(|Dg(x)| > \max_b |Dg(b)|) \le 1 - \delta^{1/m}` with probability at least
    :math:`1 - \delta`. No smoothness is needed.

    Parameters
    ----------
    norms : array-like of shape (m,)
        Norms, or any other quantity, at held-out inputs.
    confidence : float, default=0.95
        Probability :math:`1 - \delta` with which the statement holds.

    Returns
    -------
    level : float
        The largest norm.
    probability : float
        Upper limit of the probability to exceed it.

    Examples
    --------
    >>> level, probability = held_out_maximum([1.0, 3.0, 2.0] * 100)
    >>> level, round(probability, 5)
    (3.0, 0.00994)
    """
    values = _check_norms(norms)
    return float(values.max()), _unseen_mass(len(values), _failure_probability(confidence))


def _failure_probability(confidence: float, *, largest: float = 1.0) -> float:
    if not 1.0 - largest <= confidence < 1.0:
        raise ValueError(
            f"confidence={confidence!r} must lie in [{1.0 - largest:g}, 1); it is a probability, "
            "for example 0.95."
        )
    return 1.0 - confidence


def _unseen_mass(n_samples: int, delta: float) -> float:
    return float(-np.expm1(np.log(check_delta(delta)) / n_samples))


def _check_norms(norms: ArrayLike) -> np.ndarray:
    values = np.asarray(norms, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0 or np.isnan(values).any():
        raise ValueError(
            f"norms must be a non-empty array of shape (m,) without NaN, got shape {values.shape}."
        )
    return values
