"""An estimate that ranks classifiers by their training rows: how near is the decision boundary.

It is an *estimate* made for ranking; no statement about fresh rows is proved.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr
from sklearn.neighbors import NearestNeighbors

__all__ = ["Neighbourhood", "crossing_probability", "find_neighbourhood", "margins_of_classes"]


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """The nearest rows of every row.

    Attributes
    ----------
    indices : ndarray of shape (n, k), int64
        Nearest other rows, nearest first.
    distances : ndarray of shape (n, k), float64
        Their Euclidean distances.
    spacing : float
        Typical distance at which a fresh row arrives: the median positive distance from a row to
        the nearest other row; 1 if all rows coincide.
    """

    indices: np.ndarray
    distances: np.ndarray
    spacing: float


def find_neighbourhood(rows: np.ndarray, *, n_neighbours: int = 10) -> Neighbourhood:
    """Find the nearest rows of every row.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
        At least two rows.
    n_neighbours : int, default=10
        Neighbours of each row, fewer where there are not so many rows.

    Returns
    -------
    Neighbourhood

    Raises
    ------
    ValueError
        If there are fewer than two rows.

    Examples
    --------
    >>> import numpy as np
    >>> find_neighbourhood(np.array([[0.0], [1.0], [3.0]]), n_neighbours=1)
    Neighbourhood(indices=array([[1],
           [0],
           [1]]), distances=array([[1.],
           [1.],
           [2.]]), spacing=1.0)
    """
    n = len(rows)
    if n < 2:
        raise ValueError(f"rows has {n} row(s), but neighbours need at least 2; pass more rows")
    search = NearestNeighbors(n_neighbors=min(n_neighbours, n - 1)).fit(rows)
    distances, indices = search.kneighbors()
    positive = distances[:, 0][distances[:, 0] > 0]
    return Neighbourhood(indices, distances, float(np.median(positive)) if len(positive) else 1.0)


def margins_of_classes(logits: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Margins of given classes: their logit minus the largest other one.

    Parameters
    ----------
    logits : ndarray of shape (..., C)
        A single column is the logit of class 1 against class 0.
    classes : ndarray of int, broadcastable to shape (...)
        A class number for each row.

    Returns
    -------
    ndarray of shape (...), float64

    Examples
    --------
    >>> import numpy as np
    >>> logits = np.array([[3.0, 1.0, 0.0], [3.0, 1.0, 0.0]])
    >>> margins_of_classes(logits, np.array([0, 2]))
    array([ 2., -3.])
    """
    if logits.shape[-1] == 1:
        return (2.0 * classes - 1.0) * logits[..., 0]
    asked = np.broadcast_to(classes, logits.shape[:-1])[..., None]
    others = np.array(logits, dtype=np.float64)
    np.put_along_axis(others, asked, -np.inf, axis=-1)
    return np.take_along_axis(logits, asked, axis=-1)[..., 0] - others.max(axis=-1)


def crossing_probability(
    logits: np.ndarray, labels: np.ndarray, neighbourhood: Neighbourhood
) -> float:
    """Estimate how likely a fresh row near a training row falls on the wrong side of the boundary.

    For row ``i`` let ``m_i(x)`` be the margin of *its* class at ``x``. A fresh row of that class
    lies between ``x_i`` and those of its neighbours ``x_j`` that are of the class; half-way, the
    margin interpolates to the mean ``M_i = mean_j (m_i(x_i) + m_i(x_j)) / 2`` over these (and is
    ``m_i(x_i)`` if there are none). On a step towards any neighbour it falls at the steepest by
    ``S_i = max_j (m_i(x_i) - m_i(x_j))_+ / |x_i - x_j|`` per unit of distance. If the step is
    Gaussian with standard deviation ``r``, the spacing of the rows, the boundary is crossed with
    probability ``Phi(-M_i / (r S_i))``. The value is the mean over the rows.

    A network that memorises a wrong label is flat at that row and steep around it: the margins at
    the neighbours make ``S_i`` large. The Jacobian at the row does not see this.
    Margins enter by their ratio to slopes, so the scale of the logits does not matter; distances
    enter by their ratios, so neither does the scale of the inputs.

    Parameters
    ----------
    logits : ndarray of shape (n, C)
        Of all rows; finite.
    labels : ndarray of shape (n,), int
        Class numbers.
    neighbourhood : Neighbourhood
        Of the rows.

    Returns
    -------
    float
        Between 0 and 1; smaller is better. An estimate for ranking: the interpolation and the
        Gaussian step are models, and nothing is certified.

    Examples
    --------
    >>> import numpy as np
    >>> rows = np.array([[-3.0], [-2.0], [2.0], [3.0]])
    >>> near = find_neighbourhood(rows, n_neighbours=1)
    >>> crossing_probability(rows, np.array([0, 0, 1, 1]), near)
    0.003
    >>> crossing_probability(rows, np.array([1, 0, 1, 1]), near)
    0.25
    """
    here = margins_of_classes(logits, labels)
    there = margins_of_classes(logits[neighbourhood.indices], labels[:, None])
    of_its_class = labels[neighbourhood.indices] == labels[:, None]
    mean = here.copy()  # where no neighbour is of the row's class
    np.divide(
        (there * of_its_class).sum(axis=1),
        of_its_class.sum(axis=1),
        out=mean,
        where=of_its_class.any(axis=1),
    )
    between = (here + mean) / 2
    falls = np.maximum(here[:, None] - there, 0)
    apart = neighbourhood.distances > 0  # the margin does not change between duplicates
    slopes = np.divide(falls, neighbourhood.distances, out=np.zeros_like(falls), where=apart)
    step = neighbourhood.spacing * slopes.max(axis=1)
    # A margin that never falls is not crossed, or crossed already.
    steps_away = np.where(between == 0, 0.0, np.copysign(np.inf, between))
    np.divide(between, step, out=steps_away, where=step > 0)
    return float(ndtr(-steps_away).mean())
