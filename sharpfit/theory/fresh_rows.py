"""Stand-ins for fresh rows, and the error of a network there; estimates, nothing is certified."""

import numpy as np
from sklearn.neighbors import NearestNeighbors

__all__ = ["error_against_reference", "shifted_rows", "stand_in_rows"]


def stand_in_rows(
    rows: np.ndarray, indices: np.ndarray | None = None, *, n_neighbours: int = 10
) -> np.ndarray:
    """Move rows by differences of their neighbours.

    If a row and its neighbours are draws from one distribution, ``(x_j - x_k) / sqrt(2)`` for two
    of the neighbours has mean zero and the covariance of that distribution: the moved row is a
    draw of a smoothed bootstrap whose noise follows the data, wide along them and narrow across.
    The second nearest neighbour is paired with the second from the end, the third with the third
    from the end, and so on, with alternating signs. Nothing is random, and the order of the rows
    matters only between neighbours at equal distance.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
        At least two rows.
    indices : ndarray of shape (p,), int, optional
        Of the rows that are moved; all by default. Neighbours are searched among all rows.
    n_neighbours : int, default=10
        Neighbours of each row, fewer where there are not so many rows.

    Returns
    -------
    ndarray of shape (p, m, d), float64
        With k neighbours, ``m = k // 2 - 1`` stand-ins for each row. One where that is less: by the
        first neighbour and the last, or the row itself where it has a single neighbour.

    Raises
    ------
    ValueError
        If there are fewer than two rows.

    Examples
    --------
    >>> import numpy as np
    >>> rows = np.array([[0.0], [1.0], [3.0]])
    >>> stand_in_rows(rows)[:, :, 0].round(2)
    array([[-1.41],
           [-1.12],
           [ 3.71]])
    """
    n = len(rows)
    if n < 2:
        raise ValueError(f"rows has {n} row(s), but neighbours need at least 2; pass more rows")
    rows = np.asarray(rows, float)
    moved = np.arange(n) if indices is None else indices
    k = min(n_neighbours, n - 1)
    if k < 2:
        return rows[moved][:, None]
    search = NearestNeighbors(n_neighbors=k).fit(rows)
    # Each row is the nearest to itself, among its duplicates in any place.
    found = search.kneighbors(rows[moved], n_neighbors=k + 1, return_distance=False)
    own = found == moved[:, None]
    own[:, -1] |= ~own.any(axis=1)
    nearest = found[~own].reshape(-1, k)
    # The difference of the nearest and the farthest is mostly the farthest, so that it points away
    # from the data; it is used only where there is no other.
    ranks = range(1, k // 2) if k >= 4 else range(1)
    pairs = [(r, k - 1 - r) if r % 2 == 0 else (k - 1 - r, r) for r in ranks]
    steps = [(rows[nearest[:, a]] - rows[nearest[:, b]]) / np.sqrt(2) for a, b in pairs]
    return np.stack([rows[moved] + step for step in steps], axis=1)


def shifted_rows(rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Move what signals or images show by one place along each axis, both ways.

    Where the same things occur in many places, fresh rows show them in others, and differences of
    rows, of which `stand_in_rows` makes use, show several things at once.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
        Signals or images, flattened.
    shape : tuple of int
        Of each: channels, then the lengths of the spatial axes; d is their product.

    Returns
    -------
    ndarray of shape (n, m, d), float64
        Two for each spatial axis that is longer than one. The edge that is laid bare is repeated.

    Examples
    --------
    >>> import numpy as np
    >>> shifted_rows(np.array([[1.0, 2.0, 5.0]]), (1, 3))
    array([[[2., 5., 5.],
            [1., 1., 2.]]])
    """
    images = np.asarray(rows, float).reshape(-1, *shape)
    shifted = [
        np.take(images, np.clip(np.arange(length) + step, 0, length - 1), axis=axis)
        for axis, length in enumerate(images.shape)
        if axis >= 2 and length > 1
        for step in (1, -1)
    ]
    return np.stack(shifted, axis=1).reshape(len(images), len(shifted), -1)


def error_against_reference(
    outputs: np.ndarray, reference: np.ndarray, *, classification: bool
) -> float:
    """Error of a network whose labels are the answers of a reference regression.

    Parameters
    ----------
    outputs : ndarray of shape (p, C)
        Of the network: logits or predictions. A single column of logits is that of class 1 against
        class 0.
    reference : ndarray of shape (p, K)
        Of the regression at the same points; for classes, of their indicators, K of them. What is
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
    >>> error_against_reference(np.array([[2.0], [-1.0]]), shares, classification=True)
    0.45
    """
    if not classification:
        return float(np.square(outputs - reference).sum(axis=1).mean())
    shares = np.maximum(reference, 0)
    shares /= shares.sum(axis=1, keepdims=True)
    classes = (outputs[:, 0] > 0) * 1 if outputs.shape[1] == 1 else outputs.argmax(axis=1)
    return float(1 - np.take_along_axis(shares, classes[:, None], axis=1).mean())
