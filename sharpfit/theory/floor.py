"""What no network can get below, from each form of the bound, before any training."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from sharpfit.theory.bound import FORM_WEIGHTS, available_forms
from sharpfit.theory.covering_bound import covering_form, exceptions_form
from sharpfit.theory.geometry import Geometry
from sharpfit.theory.transport_bound import one_sided_form, transport_form
from sharpfit.theory.variance_bound import variance_form

__all__ = ["bound_floor", "conflict_radii", "least_risks"]

_CHUNK_ROWS = 1500
_NEIGHBOURS = 10


def bound_floor(
    geometry: Geometry,
    features: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    targets: ArrayLike | None = None,
    confidence: float = 0.95,
) -> dict[str, float]:
    """Smallest bound that any network can get on these rows, for each form.

    A network with Lipschitz constant ``Lambda`` of its margin cannot have large margins on both
    of two close points of different classes: ``m_i + m_j <= Lambda |x_i - x_j|``. This limits the
    mean ramp from below at every scale, and the radii that the points can have, whatever the
    network. A floor of 1 or more says that the form, on this grid and in this metric, cannot give
    a bound below 1; other forms or another metric may. An *estimate* below the floor proves that
    its Lipschitz constant was too small.

    Parameters
    ----------
    geometry : Geometry
        Of these rows.
    features : array-like of shape (n_samples, d)
        The rows it was computed from.
    labels : array-like of shape (n_samples,), optional
        Classes, for classification.
    targets : array-like of shape (n_samples,) or (n_samples, k), optional
        Targets, for regression.
    confidence : float, default=0.95
        Confidence of the bound.

    Returns
    -------
    dict of str to float
        One floor per form used alone, and ``"best"`` for the forms that share the confidence.

    Examples
    --------
    >>> from sharpfit.theory import fit_geometry
    >>> features, labels = np.arange(40.0).reshape(-1, 1), np.arange(40) % 2
    >>> geometry = fit_geometry(features, labels)
    >>> bound_floor(geometry, features, labels)["transport"] > 1
    True
    """
    features = np.asarray(features, dtype=np.float64)
    features = features.reshape(len(features), -1)
    delta = 1.0 - confidence
    forms = available_forms(geometry)
    total = sum(FORM_WEIGHTS[form] for form in forms)
    outcomes = _outcomes(geometry, labels, targets)
    half = geometry.reference
    on_half = least_risks(features[half], outcomes[half], geometry.scales, task=geometry.task)
    on_all = (
        least_risks(features, outcomes, geometry.scales, task=geometry.task)
        if "transport" in forms
        else on_half
    )
    radii = conflict_radii(features[half], outcomes[half]) if "covering" in forms else on_half

    def floor(form: str, delta: float) -> float:
        if form == "transport":
            curve = transport_form(geometry, on_all, delta)
        elif form == "one_sided":
            curve = one_sided_form(geometry, on_half, delta)
        elif form == "variance":
            curve = variance_form(geometry, on_half, delta)
        elif form == "covering":
            curve = covering_form(geometry, radii, delta)
        else:
            curve = exceptions_form(geometry, radii, delta)
        return float(curve.values.min())

    floors = {form: floor(form, delta) for form in forms}
    floors["best"] = min(floor(form, delta * FORM_WEIGHTS[form] / total) for form in forms)
    return floors


def least_risks(
    features: np.ndarray, outcomes: np.ndarray, scales: np.ndarray, *, task: str
) -> np.ndarray:
    """Lower bound on the mean loss of any network, at every scale.

    For points of different classes the ramp losses satisfy
    ``phi_i + phi_j >= min(1, 2 - s |x_i - x_j|)``. For a regression with ``a = |y_i - y_j| / b``
    the clipped losses, flattened where the network is too steep for the scale, satisfy
    ``l_i + l_j >= min(1, (a - s |x_i - x_j|) min(1, 2 / a))``. The least sum of losses under these
    constraints is a linear program whose dual is a fractional matching of the points, which an
    assignment of the points to themselves solves. Samples of more than 1500 rows are cut into
    chunks: constraints between chunks are left out and the value is still a lower bound.

    With more than two classes pairs alone would let every loss be 1/2. Of ``k`` points of
    different classes at mutual distances of at most ``D``, either all but one are errors, or
    those that are none satisfy the pairwise inequality without its minimum, so that the losses
    sum to at least ``min(k - 1, k (1 - s D / 2))``. Disjoint groups of this kind give a second
    lower bound; the larger of the two is returned.

    Parameters
    ----------
    features : ndarray of shape (n, d)
        Points.
    outcomes : ndarray of shape (n,) or (n, k)
        Classes, or targets divided by the clipping residual.
    scales : ndarray of shape (n_scales,)
        Inverse lengths.
    task : {"classification", "regression"}
        Kind of outcomes.

    Returns
    -------
    ndarray of shape (n_scales,)
    """
    sums, groups = np.zeros(len(scales)), np.zeros(len(scales))
    order = np.random.default_rng(0).permutation(len(features))
    for rows in np.array_split(order, -(-len(features) // _CHUNK_ROWS)):
        distances = cdist(features[rows], features[rows])
        if task == "classification":
            apart = 2.0 * (outcomes[rows][:, None] != outcomes[rows][None, :])
            groups += _group_losses(distances, outcomes[rows], scales)
        else:
            apart = cdist(outcomes[rows], outcomes[rows])
        kept = 2.0 / np.maximum(apart, 2.0)
        for index, scale in enumerate(scales):
            needed = np.clip(kept * (apart - scale * distances), 0.0, 1.0)
            if not needed.any():
                break
            pairs = linear_sum_assignment(needed, maximize=True)
            sums[index] += needed[pairs].sum() / 2.0
    return np.maximum(sums, groups) / len(features)


def _group_losses(distances: np.ndarray, labels: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Least sum of losses of disjoint groups with at most one point of each class."""
    members = [list(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    losses = np.zeros(len(scales))
    while len(members) > 1:
        group = [points.pop() for points in members]
        widest = distances[np.ix_(group, group)].max()
        size = len(group)
        losses += np.clip(size * (1.0 - scales * widest / 2.0), 0.0, size - 1.0)
        members = [points for points in members if points]
    return losses


def conflict_radii(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Radii that bound from below how many points must lack any given radius.

    Certified balls around points of different classes do not overlap, so of two such points
    nearer than ``2 r`` one has a radius below ``r``. A matching of near points of different
    classes, taken greedily by distance, counts disjoint conflicts.

    Parameters
    ----------
    features : ndarray of shape (n, d)
        Points.
    labels : ndarray of shape (n,)
        Classes.

    Returns
    -------
    ndarray of shape (n,)
        Half the distance at one point of each matched pair, infinity elsewhere: at least as many
        points of any network have a radius below ``r`` as entries are below ``r``.

    Examples
    --------
    >>> conflict_radii(np.array([[0.0], [1.0], [5.0]]), np.array([0, 1, 1]))
    array([0.5, inf, inf])
    """
    radii = np.full(len(features), np.inf)
    first, second, distances = [], [], []
    for label in np.unique(labels):
        inside, outside = np.flatnonzero(labels == label), np.flatnonzero(labels != label)
        if len(outside) == 0:
            return radii
        search = NearestNeighbors(n_neighbors=min(_NEIGHBOURS, len(outside)))
        found = outside[search.fit(features[outside]).kneighbors(features[inside])[1]]
        first.append(np.repeat(inside, found.shape[1]))
        second.append(found.ravel())
        distances.append(np.linalg.norm(features[first[-1]] - features[second[-1]], axis=1))
    pairs = np.stack([np.concatenate(first), np.concatenate(second)], axis=1)
    lengths = np.concatenate(distances)
    free = np.ones(len(features), dtype=bool)
    for position in np.argsort(lengths, kind="stable"):
        i, j = pairs[position]
        if free[i] and free[j]:
            free[[i, j]] = False
            radii[min(i, j)] = lengths[position] / 2.0
    return radii


def _outcomes(
    geometry: Geometry, labels: ArrayLike | None, targets: ArrayLike | None
) -> np.ndarray:
    if geometry.loss_bound is None:
        return np.asarray(labels)
    values = np.asarray(targets, dtype=np.float64)
    return values.reshape(len(values), -1) / geometry.loss_bound
