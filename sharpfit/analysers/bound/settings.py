"""The settings of a bound, fixed before the data are looked at."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from sklearn.frozen import FrozenEstimator

from sharpfit.analysers.bound.memory import check_memory
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
        if not isinstance(self.method, str) or self.method not in METHODS:
            raise ValueError(f"method={self.method!r} must be one of {list(METHODS)}.")
        named = isinstance(self.lipschitz, str) and self.lipschitz in ("empirical", "certified")
        if not named and not callable(self.lipschitz):
            raise ValueError(
                f"lipschitz={self.lipschitz!r} must be 'empirical', 'certified' or a callable "
                "(module, inputs, targets) -> constant or certified radii."
            )
        known = self.metric is None or isinstance(self.metric, FrozenEstimator)
        if not known and not (isinstance(self.metric, str) and self.metric in _METRICS):
            raise ValueError(
                f"metric={self.metric!r} must be None, one of {list(_METRICS)} or a "
                "FrozenEstimator that is a step of the pipeline; wrap a pretrained feature "
                "extractor in sklearn.frozen.FrozenEstimator, or use HalfFeatures as a step."
            )
        if not (isinstance(self.confidence, Real) and 0.0 < self.confidence < 1.0):
            raise ValueError(
                f"confidence={self.confidence!r} must be a number strictly between 0 and 1."
            )
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
        clips = isinstance(self.loss_bound, Real) and 0 < self.loss_bound < np.inf
        if self.loss_bound is not None and not clips:
            raise ValueError(
                f"loss_bound={self.loss_bound!r} must be a positive and finite number."
            )
        if not isinstance(self.random_state, int | np.integer) or self.random_state < 0:
            raise TypeError(
                f"random_state={self.random_state!r} must be an integer, not negative: the splits "
                "are part of the statement and must be the same for every network that is compared."
            )
        if self.n_jobs is not None and (not _is_whole(self.n_jobs) or self.n_jobs == 0):
            raise ValueError(f"n_jobs={self.n_jobs!r} must be None or an integer other than 0.")
        if not isinstance(self.verbose, int | np.integer) or self.verbose < 0:
            raise ValueError(f"verbose={self.verbose!r} must be an integer, not negative.")
        check_memory(self.memory)


def _is_count(value: Any) -> bool:
    return _is_whole(value) and value >= 1


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
