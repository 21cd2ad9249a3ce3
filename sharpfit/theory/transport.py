"""Transport of one sample onto another, within classes, with a capacity at every target.

The cost between two points of one class is ``min(1, s d)`` with a scale ``s`` and a distance
``d``, and 1 between classes. A source point may always be left unmatched at cost 1, because no
pair costs more and the capacities sum to at least the mass of the sources. The cheapest plan is
therefore the one with the largest *gain* ``sum mass (1 - s d)_+`` over same-class pairs, and the
problem falls apart into one small matching problem per class.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment, linprog
from scipy.sparse import coo_matrix, csr_matrix, vstack
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from scipy.spatial.distance import cdist

__all__ = ["Plan", "optimal_plan", "transport_cost"]

# Above this many admissible pairs the linear program for masses that do not divide each other is
# replaced by a rounded assignment. For halves of h and h + 1 points it costs at most 1/h more.
_LARGEST_LINEAR_PROGRAM = 2500
_MOST_COPIES = 4
# Below this share of admissible pairs the sparse assignment solver is the faster one.
_SPARSE_DENSITY = 0.04


@dataclass(frozen=True)
class Plan:
    """A feasible partial transport plan between two sets of points.

    Attributes
    ----------
    sources, targets : ndarray of int
        Matched pairs.
    masses : ndarray of float64
        Mass moved along each pair.
    optimal : bool
        Whether no feasible plan gains more; a plan that is only feasible still gives a valid, but
        larger, cost.
    """

    sources: np.ndarray
    targets: np.ndarray
    masses: np.ndarray
    optimal: bool

    def gain(self, gains: np.ndarray) -> float:
        """Return the gain of this plan when pair (i, j) gains ``gains[i, j]`` per unit of mass."""
        return float(self.masses @ gains[self.sources, self.targets])

    def reversed(self) -> "Plan":
        """Return the same plan with sources and targets exchanged."""
        return Plan(self.targets, self.sources, self.masses, self.optimal)


def optimal_plan(gains: np.ndarray, source_mass: float, target_capacity: float) -> Plan:
    """Plan of largest gain between sources of equal mass and targets of equal capacity.

    Maximises ``sum_ij x_ij gains_ij`` over ``x >= 0`` with row sums at most ``source_mass`` and
    column sums at most ``target_capacity``. Where one of the two divides the other (equal halves
    and whole capacities) an assignment problem on copies of the points solves this exactly; small
    problems with other ratios are solved as a linear program; large ones by the assignment with
    the nearest ratio, its overfull targets scaled down until the plan is feasible.

    Parameters
    ----------
    gains : ndarray of shape (n_sources, n_targets)
        Gain of each pair per unit of mass, not negative.
    source_mass : float
        Mass of every source, positive.
    target_capacity : float
        Capacity of every target, positive; infinity removes the constraint.

    Returns
    -------
    Plan
        The pairs with positive gain that carry mass.

    Examples
    --------
    >>> gains = np.array([[0.9, 0.0], [0.8, 0.1]])
    >>> round(optimal_plan(gains, 0.5, 0.5).gain(gains), 3)
    0.5
    >>> round(optimal_plan(gains, 0.5, np.inf).gain(gains), 3)
    0.85
    """
    ratio = target_capacity / source_mass
    if not np.any(gains > 0):
        empty = np.empty(0, dtype=np.intp)
        return Plan(empty, empty, np.empty(0), optimal=True)
    nearest = gains.argmax(axis=1)
    wanted = gains[np.arange(len(nearest)), nearest] > 0
    if np.bincount(nearest[wanted]).max() <= ratio:
        sources = np.flatnonzero(wanted)
        return Plan(sources, nearest[wanted], np.full(len(sources), source_mass), optimal=True)
    copies, places, exact = _copies(ratio, gains.shape)
    if not exact and np.count_nonzero(gains) <= _LARGEST_LINEAR_PROGRAM:
        return _linear_program(gains, source_mass, target_capacity)
    sources, targets = _assignment(gains, copies, places)
    masses = np.full(len(sources), source_mass / copies)
    load = np.bincount(targets, weights=masses, minlength=gains.shape[1])
    overfull = np.maximum(load / target_capacity, 1.0)
    if not exact:
        masses = masses / overfull[targets]
    return Plan(sources, targets, masses, optimal=exact)


def _copies(ratio: float, shape: tuple[int, int]) -> tuple[int, int, bool]:
    """Numbers of copies of a source and of a target whose quotient is nearest to ``ratio``."""
    most = min(_MOST_COPIES * max(1, shape[1] // shape[0]), 5 * _MOST_COPIES)
    candidates = range(1, most + 1)
    best = min(candidates, key=lambda c: round(abs(max(round(c * ratio), 1) / c / ratio - 1), 9))
    places = max(round(best * ratio), 1)
    return best, places, bool(np.isclose(places / best, ratio, rtol=1e-12, atol=0.0))


def _assignment(gains: np.ndarray, copies: int, places: int) -> tuple[np.ndarray, np.ndarray]:
    n_sources, n_targets = gains.shape
    if np.count_nonzero(gains) < _SPARSE_DENSITY * gains.size:
        sources, targets = _sparse_assignment(gains, copies, places)
    else:
        tiled = np.tile(gains, (copies, places))
        sources, targets = linear_sum_assignment(tiled, maximize=True)
    sources, targets = sources % n_sources, targets % n_targets
    used = gains[sources, targets] > 0
    return sources[used], targets[used]


def _sparse_assignment(gains: np.ndarray, copies: int, places: int) -> tuple[np.ndarray, ...]:
    """Assign over the pairs with positive gain; a private dummy takes an unmatched source."""
    n_sources, n_targets = gains.shape
    rows, columns = np.nonzero(gains)
    costs = 2.0 - gains[rows, columns]
    rows = (rows[:, None, None] + n_sources * np.arange(copies)[:, None]) + np.zeros(
        places, dtype=np.intp
    )
    columns = np.broadcast_to(
        columns[:, None, None] + n_targets * np.arange(places), rows.shape
    ).ravel()
    costs = np.repeat(costs, copies * places)
    dummies = np.arange(n_sources * copies)
    n_places = n_targets * places
    graph = csr_matrix(
        (
            np.concatenate([costs, np.full(len(dummies), 2.0)]),
            (
                np.concatenate([rows.ravel(), dummies]),
                np.concatenate([columns, n_places + dummies]),
            ),
        ),
        shape=(len(dummies), n_places + len(dummies)),
    )
    sources, targets = min_weight_full_bipartite_matching(graph)
    matched = targets < n_places
    return sources[matched], targets[matched]


def _linear_program(gains: np.ndarray, source_mass: float, target_capacity: float) -> Plan:
    rows, columns = np.nonzero(gains)
    pairs = np.arange(len(rows))
    row_sums = coo_matrix((np.ones(len(rows)), (rows, pairs)), shape=(gains.shape[0], len(rows)))
    column_sums = coo_matrix(
        (np.ones(len(rows)), (columns, pairs)), shape=(gains.shape[1], len(rows))
    )
    limits = np.concatenate(
        [np.ones(gains.shape[0]), np.full(gains.shape[1], target_capacity / source_mass)]
    )
    solution = linprog(
        -gains[rows, columns],
        A_ub=vstack([row_sums, column_sums]).tocsr(),
        b_ub=limits,
        bounds=(0, None),
        method="highs-ds",
    )
    if not solution.success:
        raise RuntimeError(f"The transport problem could not be solved: {solution.message}")
    masses = np.maximum(solution.x, 0.0)
    # The solver meets its constraints to a tolerance; scaling makes the plan truly feasible.
    load = np.bincount(rows, weights=masses, minlength=gains.shape[0])[rows]
    masses = masses / np.maximum(load, 1.0)
    load = np.bincount(columns, weights=masses, minlength=gains.shape[1])[columns]
    masses = masses / np.maximum(load * source_mass / target_capacity, 1.0)
    used = masses > 0
    return Plan(rows[used], columns[used], source_mass * masses[used], optimal=True)


def transport_cost(
    source_features: np.ndarray,
    source_labels: np.ndarray,
    target_features: np.ndarray,
    target_labels: np.ndarray,
    *,
    scale: float,
    capacity: float = 1.0,
) -> float:
    """Cheapest transport of one sample onto another when targets hold ``capacity`` times theirs.

    With the cost ``min(1, scale |x - x'|)`` between points of one class and 1 between classes,
    every source carries mass ``1 / n_sources`` and every target receives at most
    ``capacity / n_targets``. Capacity 1 is optimal transport; infinite capacity is the mean cost
    of the nearest target. For every function ``g`` with values in [0, 1] that is 1-Lipschitz for
    this cost, ``mean g(sources) <= capacity * mean g(targets) + cost`` (weak duality).

    Parameters
    ----------
    source_features, target_features : ndarray of shape (n, d)
        Points; distances are Euclidean.
    source_labels, target_labels : ndarray of shape (n,)
        Classes.
    scale : float
        Inverse length ``s``, not negative.
    capacity : float, default=1.0
        At least 1.

    Returns
    -------
    float
        A cost in [0, 1].

    Raises
    ------
    ValueError
        If ``capacity`` is below 1.

    Examples
    --------
    >>> zeros = np.zeros((10, 1))
    >>> sources, targets = [0] * 2 + [1] * 5 + [2] * 3, [0] * 5 + [1] * 3 + [2] * 2
    >>> round(transport_cost(zeros, sources, zeros, targets, scale=1.0), 7)
    0.3
    """
    if capacity < 1:
        raise ValueError(f"capacity={capacity!r} must be at least 1.")
    source_labels, target_labels = np.asarray(source_labels), np.asarray(target_labels)
    n_sources, n_targets = len(source_labels), len(target_labels)
    gain = 0.0
    for label in np.intersect1d(source_labels, target_labels):
        distances = cdist(
            source_features[source_labels == label], target_features[target_labels == label]
        )
        gains = np.maximum(1.0 - scale * distances, 0.0)
        gain += optimal_plan(gains, 1.0 / n_sources, capacity / n_targets).gain(gains)
    return max(0.0, 1.0 - gain)
