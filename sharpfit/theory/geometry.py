"""Everything a bound needs to know about the data, and nothing about the network."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist

from sharpfit.theory.chunks import chunks
from sharpfit.theory.neighbours import class_distance, exception_counts, same_class_neighbours
from sharpfit.theory.splits import random_halves
from sharpfit.theory.transport import optimal_plan

__all__ = ["DEFAULT_CAPACITIES", "DEFAULT_SCALES", "Geometry", "fit_geometry"]

# A grid is part of the statement: it may not depend on the rows. This one covers distances from
# 1/65536 to 65536 in steps of the square root of two and costs log 65 over a single scale.
DEFAULT_SCALES = tuple(2.0 ** (k / 2) for k in range(-32, 33))
DEFAULT_CAPACITIES = (1.0, 2.0, 4.0, np.inf)
# Grids that one-sided forms may take relative to the reference half: powers of two, dense near half
# the distance between classes, where the radii of good networks lie, and down to 1/65536 of it.
_ANCHORED_GRID = 2.0 ** -np.concatenate([np.arange(-0.5, 4.0, 0.25), np.arange(4.0, 17.0)])
_MOST_NEIGHBOURS = 64
_LARGEST_EXACT, _CHUNK_ROWS = 5000, 500
_NEIGHBOUR_ENTRIES = 20_000_000


@dataclass(frozen=True, eq=False)
class Geometry:
    """Transport costs and neighbour counts of one data set, shared by every network.

    Attributes
    ----------
    task : {"classification", "regression"}
        What the labels are.
    n_samples : int
        Number of rows.
    n_repeated : int
        Number of rows whose features repeat those of another row.
    reference : ndarray of bool of shape (n_samples,)
        The reference half ``U`` of the one-sided forms; the other rows are the test half ``V``.
    reference_given : bool
        Whether ``U`` was given (a metric was fitted on it), which leaves the one-sided forms only.
    scales : ndarray of shape (n_scales,)
        Inverse lengths ``s``, increasing.
    capacities : ndarray of shape (n_capacities,)
        Capacities ``lam``, increasing, the last possibly infinite.
    transport_costs : ndarray of shape (n_scales, n_capacities) or None
        Cost of carrying each half onto the other, weighted by their sizes and averaged over the
        splits; None when ``U`` was given.
    one_sided_costs : ndarray of shape (n_scales, n_capacities)
        Cost of carrying the test half onto the reference half of the first split.
    radii : ndarray of shape (n_radii,)
        Radii of the covering form with exceptions.
    nearest_distances : ndarray of shape (n_test,)
        Sorted distances from the test half to the nearest reference point of the same class.
    exceptions : tuple of ndarray of int
        One array per radius, see :func:`~sharpfit.theory.neighbours.exception_counts`.
    loss_bound : float or None
        Residual at which the loss of a regression is clipped.
    n_splits : int
        Number of splits behind ``transport_costs``.
    optimal : bool
        Whether every plan is optimal; costs of merely feasible plans are larger, yet valid.
    n_chunks : int
        Largest number of chunks into which a class was cut.
    """

    task: str
    n_samples: int
    n_repeated: int
    reference: np.ndarray
    reference_given: bool
    scales: np.ndarray
    capacities: np.ndarray
    transport_costs: np.ndarray | None
    one_sided_costs: np.ndarray
    radii: np.ndarray
    nearest_distances: np.ndarray
    exceptions: tuple[np.ndarray, ...]
    loss_bound: float | None
    n_splits: int
    optimal: bool
    n_chunks: int

    @property
    def n_reference(self) -> int:
        """Number of rows of the reference half."""
        return int(self.reference.sum())

    @property
    def n_test(self) -> int:
        """Number of rows of the test half."""
        return self.n_samples - self.n_reference


def fit_geometry(
    features: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    targets: ArrayLike | None = None,
    loss_bound: float | None = None,
    scales: Sequence[float] | np.ndarray | None = None,
    capacities: Sequence[float] | np.ndarray = DEFAULT_CAPACITIES,
    radii: Sequence[float] | np.ndarray | None = None,
    reference: np.ndarray | None = None,
    n_splits: int = 1,
    chunk_size: int | str = "auto",
    random_state: int = 0,
    n_jobs: int | None = None,
    verbose: int = 0,
) -> Geometry:
    """Compute what a generalisation bound needs of a data set.

    The sample is split at random into halves ``U`` and ``V``. For classification the distance of
    two points is Euclidean within a class; for regression the cost of a pair is
    ``min(1, s |x - x'| + |y - y'| / loss_bound)``. See
    :func:`~sharpfit.theory.transport.transport_cost` for the costs.

    Parameters
    ----------
    features : array-like of shape (n_samples, d)
        Points of the space in which distances are taken. The space must be fixed before the
        sample is seen, or be a function of the reference half only, which then is ``reference``.
    labels : array-like of shape (n_samples,), optional
        Classes, for classification.
    targets : array-like of shape (n_samples,) or (n_samples, k), optional
        Targets, for regression.
    loss_bound : float, optional
        Residual at which the loss of a regression is clipped, fixed in advance, in units of the
        targets.
    scales : sequence of float, optional
        Inverse lengths. The default is a geometric grid over 32 powers of two or, when
        ``reference`` is given, a grid relative to the distance between its classes.
    capacities : sequence of float, default=(1, 2, 4, inf)
        Capacities, each at least 1.
    radii : sequence of float, optional
        Radii of the covering form with exceptions. The default is a grid relative to the distance
        between the classes of the reference half, of which it may be a function.
    reference : ndarray of bool of shape (n_samples,), optional
        The reference half, if a metric was fitted on it. It must have been drawn at random.
    n_splits : int, default=1
        Number of random splits over which the two-sided costs are averaged.
    chunk_size : int or "auto", default="auto"
        Classes with more rows per half are cut into chunks of at most this size. A plan within
        chunks is feasible: the cost grows, the statement stays valid. "auto" is exact up to 5000
        rows of one class and half (all of a regression's rows are one class) and takes chunks of
        500 beyond.
    random_state : int, default=0
        Seed of the splits.
    n_jobs : int or None, default=None
        Number of parallel workers, as in joblib.
    verbose : int, default=0
        Verbosity of joblib's progress messages.

    Returns
    -------
    Geometry

    Raises
    ------
    ValueError
        If an argument is out of its range or the rows do not match.

    Examples
    --------
    >>> geometry = fit_geometry(np.zeros((100, 1)), np.zeros(100), scales=[1.0], capacities=[1.0])
    >>> float(geometry.transport_costs[0, 0].round(12))
    0.0
    """
    features = _check_features(features)
    n_samples = len(features)
    outcomes, offsets, task = _check_outcomes(n_samples, labels, targets, loss_bound)
    halves = (
        random_halves(n_samples, n_splits, random_state)
        if reference is None
        else _check_reference(reference, n_samples)[None]
    )
    half = halves[0]
    anchor = class_distance(features[half], outcomes[half]) / 2.0
    if scales is None:
        scales = DEFAULT_SCALES if reference is None else 1.0 / (2.0 * anchor * _ANCHORED_GRID)
    scales = check_grid("scales", scales, smallest=0.0)
    capacities = check_grid("capacities", capacities, smallest=1.0, infinite=True)
    radii = check_grid("radii", _ANCHORED_GRID * anchor if radii is None else radii, smallest=0.0)
    if chunk_size != "auto" and not (isinstance(chunk_size, int | np.integer) and chunk_size >= 1):
        raise ValueError(f"chunk_size={chunk_size!r} must be 'auto' or a positive integer.")

    blocks = [
        (split, sources, destinations)
        for split, mask in enumerate(halves)
        for sources, destinations in _blocks(features, outcomes, mask, chunk_size)
    ]
    tables = Parallel(n_jobs=n_jobs, verbose=verbose)(
        delayed(_block_gains)(
            features[sources],
            features[destinations],
            None if offsets is None else cdist(offsets[sources], offsets[destinations]),
            scales,
            capacities,
            1.0 / np.count_nonzero(~halves[split]),
            1.0 / np.count_nonzero(halves[split]),
            reference is None,
        )
        for split, sources, destinations in blocks
    )
    one_sided = np.zeros((len(scales), len(capacities)))
    averaged = np.zeros_like(one_sided)
    share = np.count_nonzero(half) / n_samples
    for (split, _, _), (forward, backward, _) in zip(blocks, tables, strict=True):
        averaged += (share * forward + (1.0 - share) * backward) / len(halves)
        if split == 0:
            one_sided += forward
    nearest, exceptions = _covering(features, outcomes, half, radii, task, n_jobs)
    pieces = np.bincount([outcomes[sources[0]] for _, sources, _ in blocks], minlength=1)
    n_chunks = max(1, int(pieces.max()) // len(halves))
    return Geometry(
        task=task,
        n_samples=n_samples,
        n_repeated=n_samples - len({row.tobytes() for row in features}),
        reference=half,
        reference_given=reference is not None,
        scales=scales,
        capacities=capacities,
        transport_costs=np.maximum(1.0 - averaged, 0.0) if reference is None else None,
        one_sided_costs=np.maximum(1.0 - one_sided, 0.0),
        radii=radii,
        nearest_distances=nearest,
        exceptions=exceptions,
        loss_bound=loss_bound,
        n_splits=len(halves),
        optimal=n_chunks == 1 and all(optimal for _, _, optimal in tables),
        n_chunks=n_chunks,
    )


def _blocks(
    features: np.ndarray, outcomes: np.ndarray, reference: np.ndarray, chunk_size: int | str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows of the test half and of the reference half that may be matched to each other."""
    for label in np.unique(outcomes):
        members = np.flatnonzero(outcomes == label)
        sources, destinations = members[~reference[members]], members[reference[members]]
        largest = max(len(sources), len(destinations))
        limit = chunk_size
        if isinstance(limit, str):
            limit = _LARGEST_EXACT if largest <= _LARGEST_EXACT else _CHUNK_ROWS
        if len(sources) and len(destinations):
            yield from chunks(features, sources, destinations, limit)


def _block_gains(
    features: np.ndarray,
    reference_features: np.ndarray,
    offsets: np.ndarray | None,
    scales: np.ndarray,
    capacities: np.ndarray,
    mass: float,
    reference_mass: float,
    both_ways: bool,
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Gains of one block on the whole grid, onto the reference rows and back."""
    distances = cdist(features, reference_features)
    forward = np.zeros((len(scales), len(capacities)))
    backward = np.zeros_like(forward)
    optimal = True
    # While every pair is nearer than 1/s the best plan does not depend on s.
    frozen = float(distances.max()) if offsets is None else np.inf
    kept: list = [None] * len(capacities)
    for row, scale in enumerate(scales):
        gains = 1.0 - scale * distances
        if offsets is not None:
            gains -= offsets
        np.maximum(gains, 0.0, out=gains)
        if not gains.any():
            break
        for column, capacity in enumerate(capacities):
            if scale * frozen <= 1.0 and kept[column] is not None:
                there, back = kept[column]
            else:
                there = optimal_plan(gains, mass, capacity * reference_mass)
                back = there
                if both_ways and capacity > 1.0:
                    back = optimal_plan(gains.T, reference_mass, capacity * mass).reversed()
                kept[column] = (there, back)
            forward[row, column] = there.gain(gains)
            backward[row, column] = back.gain(gains)
            optimal = optimal and there.optimal and back.optimal
    return forward, backward, optimal


def _covering(
    features: np.ndarray,
    outcomes: np.ndarray,
    half: np.ndarray,
    radii: np.ndarray,
    task: str,
    n_jobs: int | None,
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    if task == "regression":
        return np.empty(0), ()
    n_test = int(np.count_nonzero(~half))
    n_neighbours = max(1, min(_MOST_NEIGHBOURS, _NEIGHBOUR_ENTRIES // n_test))
    distances, indices = same_class_neighbours(
        features[~half],
        outcomes[~half],
        features[half],
        outcomes[half],
        n_neighbours=n_neighbours,
        n_jobs=n_jobs,
    )
    exceptions = tuple(exception_counts(distances, indices, radius) for radius in radii)
    return np.sort(distances[:, 0]), exceptions


def _check_features(features: ArrayLike) -> np.ndarray:
    array = np.asarray(features, dtype=np.float64)
    if array.ndim < 2:
        raise ValueError(f"features of shape {array.shape} must have one row per sample.")
    array = array.reshape(len(array), -1)
    if not np.isfinite(array).all():
        raise ValueError("features contain NaN or infinity: distances need finite coordinates.")
    return array


def _check_outcomes(
    n_samples: int,
    labels: ArrayLike | None,
    targets: ArrayLike | None,
    loss_bound: float | None,
) -> tuple[np.ndarray, np.ndarray | None, str]:
    """Return encoded classes (zero for a regression), scaled targets, and the task."""
    if (labels is None) == (targets is None):
        raise ValueError("Give labels for a classification or targets for a regression, not both.")
    if labels is not None:
        given = np.asarray(labels)
        if given.dtype.kind == "f" and np.isnan(given).any():
            raise ValueError("labels contain NaN; rows without a class have no place in the bound.")
        encoded = np.unique(given, return_inverse=True)[1]
        if encoded.shape != (n_samples,):
            raise ValueError(f"labels of shape {encoded.shape} must have shape ({n_samples},).")
        return encoded.astype(np.intp), None, "classification"
    if loss_bound is None or not 0 < loss_bound < np.inf:
        raise ValueError(
            f"loss_bound={loss_bound!r} must be a positive number in units of the targets, fixed "
            "before looking at them: the bound is on the loss min(1, |f(x) - y| / loss_bound)."
        )
    values = np.asarray(targets, dtype=np.float64)
    if len(values) != n_samples or not np.isfinite(values).all():
        raise ValueError(f"targets must be {n_samples} finite rows; got shape {values.shape}.")
    return (
        np.zeros(n_samples, dtype=np.intp),
        values.reshape(n_samples, -1) / loss_bound,
        "regression",
    )


def _check_reference(reference: np.ndarray, n_samples: int) -> np.ndarray:
    mask = np.asarray(reference)
    if mask.dtype != bool or mask.shape != (n_samples,):
        raise ValueError(
            f"reference must be a boolean mask of shape ({n_samples},); got {mask.dtype} of shape "
            f"{mask.shape}."
        )
    if mask.all() or not mask.any():
        raise ValueError("reference must leave rows on both sides.")
    return mask


def check_grid(
    name: str, values: Sequence[float] | np.ndarray, *, smallest: float, infinite: bool = False
) -> np.ndarray:
    """Return a grid as a sorted array without repetitions, or say what is wrong with it."""
    try:
        grid = np.unique(np.asarray(values, dtype=np.float64))
    except (TypeError, ValueError):
        grid = np.empty(0)
    in_range = (grid >= smallest) if smallest > 0 else (grid > smallest)
    if not infinite:
        in_range &= np.isfinite(grid)
    if grid.size == 0 or not in_range.all():
        least = f"at least {smallest:g}" if smallest > 0 else "positive"
        raise ValueError(f"{name}={values!r} must be a non-empty sequence of numbers, {least}.")
    return grid
