"""The settings of a bound, fixed before the data are looked at."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.frozen import FrozenEstimator

from sharpfit.theory import DEFAULT_CAPACITIES, METHODS
from sharpfit.theory.geometry import check_grid

__all__ = ["BoundSettings"]

_METRICS = ("euclidean", "preprocessed")


@dataclass(frozen=True, eq=False)
class BoundSettings:
    """Everything that has to be the same for all networks that are compared by their bounds.

    The parameters are those of :class:`~sharpfit.GeneralisationBound`, where they are described.
    """

    method: str = "best"
    lipschitz: str | Callable[..., Any] = "empirical"
    metric: str | FrozenEstimator | None = None
    confidence: float = 0.95
    scales: Sequence[float] | None = None
    capacities: Sequence[float] = DEFAULT_CAPACITIES
    radii: Sequence[float] | None = None
    n_splits: int = 1
    chunk_size: int | str = "auto"
    loss_bound: float | None = None
    memory: Any = "process"
    n_jobs: int | None = None
    random_state: int = 0
    verbose: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method={self.method!r} must be one of {list(METHODS)}.")
        if not callable(self.lipschitz) and self.lipschitz not in ("empirical", "certified"):
            raise ValueError(
                f"lipschitz={self.lipschitz!r} must be 'empirical', 'certified' or a callable "
                "(module, inputs, targets) -> constant or certified radii."
            )
        known = self.metric is None or isinstance(self.metric, FrozenEstimator)
        if not known and self.metric not in _METRICS:
            raise ValueError(
                f"metric={self.metric!r} must be None, one of {list(_METRICS)} or a "
                "FrozenEstimator that is a step of the pipeline; wrap a pretrained feature "
                "extractor in sklearn.frozen.FrozenEstimator, or use HalfFeatures as a step."
            )
        if not 0.0 < self.confidence < 1.0:
            raise ValueError(f"confidence={self.confidence!r} must lie between 0 and 1.")
        if self.scales is not None:
            check_grid("scales", self.scales, smallest=0.0)
        if self.radii is not None:
            check_grid("radii", self.radii, smallest=0.0)
        check_grid("capacities", self.capacities, smallest=1.0, infinite=True)
        if not _is_count(self.n_splits):
            raise ValueError(f"n_splits={self.n_splits!r} must be a positive integer.")
        if self.chunk_size != "auto" and not _is_count(self.chunk_size):
            raise ValueError(
                f"chunk_size={self.chunk_size!r} must be 'auto' or a positive integer."
            )
        if self.loss_bound is not None and not 0 < self.loss_bound < np.inf:
            raise ValueError(f"loss_bound={self.loss_bound!r} must be positive and finite.")
        if not isinstance(self.random_state, int | np.integer):
            raise TypeError(
                f"random_state={self.random_state!r} must be an integer: the splits are part of "
                "the statement and must be the same for every network that is compared."
            )


def _is_count(value: Any) -> bool:
    return isinstance(value, int | np.integer) and value >= 1
