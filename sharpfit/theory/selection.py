"""Ranking networks by their training rows: margins and residuals against the slopes between rows.

Everything here is an *estimate* made for ranking; no statement about fresh rows is proved.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.neighbors import NearestNeighbors

from sharpfit.theory.neighbours import typical_spacing

__all__ = [
    "Neighbourhood",
    "find_neighbourhood",
    "margin_shortfall",
    "margins_of_class",
    "residual_excess",
]


@dataclass(frozen=True)
class Neighbourhood:
    """The nearest rows of every row.

    Attributes
    ----------
    indices : ndarray of shape (n, k), int64
        Nearest other rows, nearest first.
    distances : ndarray of shape (n, k), float64
        Their Euclidean distances.
    spacing : float
        Typical distance at which fresh rows arrive: the median distance from a row to the nearest
        other row of its class.
    """

    indices: np.ndarray
    distances: np.ndarray
    spacing: float


def find_neighbourhood(
    rows: np.ndarray, labels: np.ndarray | None = None, *, n_neighbours: int = 10
) -> Neighbourhood:
    """Find the nearest rows of every row.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
        At least two rows.
    labels : ndarray of shape (n,), optional
        Classes; all rows are of one class without them.
    n_neighbours : int, default=10
        Neighbours of each row, fewer where there are not so many rows.

    Returns
    -------
    Neighbourhood

    Examples
    --------
    >>> import numpy as np
    >>> find_neighbourhood(np.array([[0.0], [1.0], [3.0]]), n_neighbours=1).indices.ravel()
    array([1, 0, 1])
    """
    n = len(rows)
    if n < 2:
        raise ValueError(f"rows has {n} row(s), but slopes between rows need at least 2")
    k = min(n_neighbours, n - 1)
    distances, indices = NearestNeighbors(n_neighbors=k).fit(rows).kneighbors()
    spacing = typical_spacing(rows, np.zeros(n, dtype=int) if labels is None else labels)
    return Neighbourhood(indices, distances, spacing)


def margins_of_class(logits: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Margins of given classes: their logit minus the largest other one.

    Parameters
    ----------
    logits : ndarray of shape (n, C)
        A single column is the logit of class 1 against class 0.
    classes : ndarray of shape (n,) or (n, k), int
        Class numbers; with k columns, several classes are asked of each row.

    Returns
    -------
    ndarray of the shape of `classes`

    Examples
    --------
    >>> import numpy as np
    >>> margins_of_class(np.array([[3.0, 1.0, 0.0]]), np.array([[0, 1, 2]]))
    array([[ 2., -2., -3.]])
    """
    if logits.shape[1] == 1:
        sign = 2.0 * classes - 1.0
        return sign * (logits if classes.ndim == 2 else logits[:, 0])
    asked = classes if classes.ndim == 2 else classes[:, None]
    order = np.argsort(-logits, axis=1, kind="stable")[:, :2]
    best, second = np.take_along_axis(logits, order, axis=1).T
    rival = np.where(asked == order[:, :1], second[:, None], best[:, None])
    margins = np.take_along_axis(logits, asked, axis=1) - rival
    return margins if classes.ndim == 2 else margins[:, 0]


def margin_shortfall(logits: np.ndarray, labels: np.ndarray, neighbourhood: Neighbourhood) -> float:
    """Mean ramp of the margins in units of the largest slope between neighbours.

    With margins ``m_i``, the largest slope ``L`` of a margin between neighbouring rows and the
    spacing ``r`` of the rows, the value is the mean of ``clip(1 - m_i / (r L / 2), 0, 1)``: the
    share of rows whose distance to the decision boundary, ``m_i / L``, falls short of half the
    distance at which fresh rows arrive. It is an estimate: ``L`` is measured between rows of the
    sample only.

    Parameters
    ----------
    logits : ndarray of shape (n, C)
        Of the rows; their scale does not matter.
    labels : ndarray of shape (n,), int
        Class numbers.
    neighbourhood : Neighbourhood
        Of the rows; the scale of their features does not matter.

    Returns
    -------
    float
        Between 0 and 1; smaller is better.

    Examples
    --------
    >>> import numpy as np
    >>> rows = np.array([[-3.0], [-1.0], [1.0], [3.0]])
    >>> labels = np.array([0, 0, 1, 1])
    >>> margin_shortfall(rows, labels, find_neighbourhood(rows, labels, n_neighbours=1))
    0.0
    """
    margins = margins_of_class(logits, labels)
    there = np.stack(
        [margins_of_class(logits[column], labels) for column in neighbourhood.indices.T], axis=1
    )
    largest = _largest_slope(np.abs(margins[:, None] - there), neighbourhood)
    required = 0.5 * neighbourhood.spacing * largest
    if required == 0:  # a constant network: no distance to the boundary is defined
        return float(np.mean(margins <= 0))
    return float(np.mean(np.clip(1 - margins / required, 0, 1)))


def residual_excess(
    predictions: np.ndarray, targets: np.ndarray, neighbourhood: Neighbourhood
) -> float:
    """Mean distance to the targets plus what the steepest slope adds on the way to fresh rows.

    With the largest slope ``L`` of the predictions between neighbouring rows and the spacing ``r``
    of the rows: ``mean |f(x_i) - y_i| + r L / 2``, in units of the targets. The bound
    ``|f(x) - y| <= |f(x_i) - y_i| + L |x - x_i| + |y - y_i|`` is its reason; ``L`` is an estimate.

    Parameters
    ----------
    predictions, targets : ndarray of shape (n, k)
    neighbourhood : Neighbourhood
        Of the rows.

    Returns
    -------
    float
        Smaller is better.

    Examples
    --------
    >>> import numpy as np
    >>> rows = np.array([[0.0], [1.0], [2.0]])
    >>> residual_excess(2 * rows, 2 * rows, find_neighbourhood(rows, n_neighbours=1))
    1.0
    """
    residual = np.linalg.norm(predictions - targets, axis=1).mean()
    steps = np.linalg.norm(predictions[:, None] - predictions[neighbourhood.indices], axis=2)
    return float(residual + 0.5 * neighbourhood.spacing * _largest_slope(steps, neighbourhood))


def _largest_slope(steps: np.ndarray, neighbourhood: Neighbourhood) -> float:
    apart = neighbourhood.distances > 0  # duplicates have no slope
    if not apart.any():
        return 0.0
    return float((steps[apart] / neighbourhood.distances[apart]).max())
