"""Nearest rows and margins, for the criteria that compare rows."""

from dataclasses import dataclass

import numpy as np
from sklearn.neighbors import NearestNeighbors


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """Nearest other rows (n, k), their distances, and the median distance to the nearest."""

    indices: np.ndarray
    distances: np.ndarray
    spacing: float


def find_neighbourhood(rows: np.ndarray, *, n_neighbours: int = 10) -> Neighbourhood:
    """Find the nearest rows of every row."""
    search = NearestNeighbors(n_neighbors=min(n_neighbours, len(rows) - 1)).fit(rows)
    distances, indices = search.kneighbors()
    positive = distances[:, 0][distances[:, 0] > 0]
    return Neighbourhood(indices, distances, float(np.median(positive)) if len(positive) else 1.0)


def margins_of_classes(logits: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Logit of a class minus the largest other one; one column is class 1 against class 0."""
    if logits.shape[-1] == 1:
        return (2.0 * classes - 1.0) * logits[..., 0]
    asked = np.broadcast_to(classes, logits.shape[:-1])[..., None]
    others = np.array(logits, dtype=np.float64)
    np.put_along_axis(others, asked, -np.inf, axis=-1)
    return np.take_along_axis(logits, asked, axis=-1)[..., 0] - others.max(axis=-1)
