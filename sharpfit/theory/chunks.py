"""Cut two sets of points into corresponding chunks, so that large transports become small ones."""

from collections.abc import Iterator

import numpy as np

__all__ = ["chunks"]


def chunks(
    features: np.ndarray, sources: np.ndarray, targets: np.ndarray, largest: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Split two sets of rows again and again, each at its own median along a common axis.

    The pieces of the two sets lie in almost the same place and keep the ratio of their sizes, so
    that transporting each piece onto its counterpart wastes little. Any such plan is feasible,
    whatever the pieces.

    Parameters
    ----------
    features : ndarray of shape (n, d)
        Coordinates.
    sources, targets : ndarray of int
        Rows to be transported, and rows that receive.
    largest : int
        Most rows of either kind in a chunk.

    Yields
    ------
    sources, targets : ndarray of int
        Rows of one chunk; both are non-empty.

    Examples
    --------
    >>> points = np.arange(8.0).reshape(-1, 1)
    >>> [(s.tolist(), t.tolist()) for s, t in chunks(points, np.arange(0, 8, 2),
    ...                                              np.arange(1, 8, 2), largest=2)]
    [([0, 2], [1, 3]), ([4, 6], [5, 7])]
    """
    waiting = [(sources, targets)]
    while waiting:
        sources, targets = waiting.pop()
        if max(len(sources), len(targets)) <= largest or min(len(sources), len(targets)) < 2:
            yield sources, targets
            continue
        axis = int(np.argmax(features[targets].var(axis=0)))
        halves = []
        for rows in (sources, targets):
            middle = len(rows) // 2
            order = np.argpartition(features[rows, axis], middle)
            halves.append((rows[order[:middle]], rows[order[middle:]]))
        (low, high), (low_targets, high_targets) = halves
        waiting += [(high, high_targets), (low, low_targets)]
