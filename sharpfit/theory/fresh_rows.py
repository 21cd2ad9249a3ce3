"""Stand-ins for fresh rows, and how a network does on them; estimates, nothing is certified."""

import numpy as np

from sharpfit.theory.selection import Neighbourhood

__all__ = ["error_on_stand_ins", "stand_in_rows"]


def stand_in_rows(
    rows: np.ndarray, neighbourhood: Neighbourhood, *, largest_number: int = 2000
) -> np.ndarray:
    """Move rows by differences of their neighbours.

    If a row and its neighbours are draws from one distribution, ``(x_j - x_k) / sqrt(2)`` for two
    of the neighbours has mean zero and the covariance of that distribution: the moved row is a
    draw of a smoothed bootstrap whose noise follows the data, wide along them and narrow across.
    The nearest neighbour is paired with the farthest, the third with the third from the end, and so
    on, with alternating signs. Nothing is random, and the order of the rows does not matter.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
    neighbourhood : Neighbourhood
        Of these rows, k neighbours each.
    largest_number : int, default=2000
        Of rows that are moved; evenly spaced ones where there are more.

    Returns
    -------
    ndarray of shape (min(n, largest_number), m, d), float64
        ``m`` stand-ins for each row: one for every four neighbours, rounded up; the row itself
        where it has a single neighbour.

    Examples
    --------
    >>> import numpy as np
    >>> from sharpfit.theory.selection import find_neighbourhood
    >>> rows = np.array([[0.0], [1.0], [3.0]])
    >>> stand_in_rows(rows, find_neighbourhood(rows, n_neighbours=2))[:, :, 0].round(2)
    array([[-1.41],
           [-1.12],
           [ 3.71]])
    """
    n, k = neighbourhood.indices.shape
    moved = np.unique(np.linspace(0, n - 1, min(n, largest_number)).astype(np.int64))
    origins = np.asarray(rows[moved], float)
    if k < 2:
        return origins[:, None]
    nearest = neighbourhood.indices[moved]
    pairs = [(r, k - 1 - r) if r % 4 == 0 else (k - 1 - r, r) for r in range(0, k // 2, 2)]
    steps = [np.asarray(rows[nearest[:, a]] - rows[nearest[:, b]], float) for a, b in pairs]
    return np.stack([origins + step / np.sqrt(2) for step in steps], axis=1)


def error_on_stand_ins(
    outputs: np.ndarray, reference: np.ndarray, *, classification: bool
) -> float:
    """Error of a network when a reference regression labels the stand-ins.

    Parameters
    ----------
    outputs : ndarray of shape (p, C)
        Of the network at the stand-ins: logits or predictions. A single column of logits is that
        of class 1 against class 0.
    reference : ndarray of shape (p, K)
        Of the regression at the stand-ins; for classes, of their indicators, K of them. What is
        negative counts as zero, and the rest as the shares of the classes.
    classification : bool
        Whether outputs are logits.

    Returns
    -------
    float
        Mean share of the labels that differ from the network's class, or mean squared distance.

    Examples
    --------
    >>> import numpy as np
    >>> shares = np.array([[0.9, 0.1], [1.1, -0.1]])
    >>> error_on_stand_ins(np.array([[2.0], [-1.0]]), shares, classification=True)
    0.45
    """
    if not classification:
        return float(np.square(outputs - reference).sum(axis=1).mean())
    shares = np.maximum(reference, 0)
    shares /= shares.sum(axis=1, keepdims=True)
    classes = (outputs[:, 0] > 0) * 1 if outputs.shape[1] == 1 else outputs.argmax(axis=1)
    return float(1 - np.take_along_axis(shares, classes[:, None], axis=1).mean())
