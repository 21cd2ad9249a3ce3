"""Preprocessing steps that are affine maps, as one matrix."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    RobustScaler,
    StandardScaler,
)

_SUPPORTED = (
    "StandardScaler, MinMaxScaler (clip=False), MaxAbsScaler, RobustScaler, PCA, TruncatedSVD, an "
    "identity FunctionTransformer, and a Pipeline or ColumnTransformer of these"
)


@dataclass(frozen=True, eq=False)
class AffineMap:
    """An affine map of rows, ``x -> x @ matrix.T + offset``.

    Attributes
    ----------
    matrix : ndarray of shape (n_outputs, n_features), float64
        Jacobian of the map.
    offset : ndarray of shape (n_outputs,), float64
        Image of zero.
    """

    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]

    @property
    def norm(self) -> float:
        """Largest factor by which the map stretches distances: its spectral norm."""
        return float(np.linalg.norm(self.matrix, 2))

    def __call__(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map rows of shape (n, n_features)."""
        return rows @ self.matrix.T + self.offset


def affine_map(preprocessing: tuple[Any, ...], n_features: int) -> AffineMap:
    """Return fitted preprocessing that is affine in the rows as one map.

    Parameters
    ----------
    preprocessing : tuple of fitted transformers
        Applied in order.
    n_features : int
        Number of raw features.

    Returns
    -------
    AffineMap

    Raises
    ------
    ValueError
        If a step is not known to be affine.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sharpfit.bridge import affine_map
    >>> scaler = StandardScaler().fit(np.array([[0.0, 0.0], [2.0, 8.0]]))
    >>> affine_map((scaler,), n_features=2).matrix
    array([[1.  , 0.  ],
           [0.  , 0.25]])
    """
    matrix, offset = np.eye(n_features), np.zeros(n_features)
    for step in preprocessing:
        matrix, offset = _apply(step, matrix, offset)
    return AffineMap(matrix, offset)


def _apply(
    step: Any, matrix: NDArray[np.float64], offset: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Let a step act on the outputs of the map so far."""
    if isinstance(step, FrozenEstimator):
        step = step.estimator
    if isinstance(step, StandardScaler):
        centre = 0.0 if step.mean_ is None or not step.with_mean else step.mean_
        return _scaled(matrix, offset - centre, 1.0 if step.scale_ is None else 1.0 / step.scale_)
    if isinstance(step, MinMaxScaler) and not step.clip:
        matrix, offset = _scaled(matrix, offset, step.scale_)
        return matrix, offset + step.min_
    if isinstance(step, MaxAbsScaler) and not getattr(step, "clip", False):
        return _scaled(matrix, offset, 1.0 / step.scale_)
    if isinstance(step, RobustScaler):
        centre = step.center_ if step.with_centering else 0.0
        return _scaled(matrix, offset - centre, 1.0 / step.scale_ if step.with_scaling else 1.0)
    if isinstance(step, (PCA, TruncatedSVD)):
        components = step.components_.astype(np.float64)
        centre = step.mean_ if isinstance(step, PCA) else 0.0
        spread = np.ones(len(components))
        if getattr(step, "whiten", False):
            smallest = np.finfo(step.explained_variance_.dtype).eps  # as in its `transform`
            spread = np.maximum(np.sqrt(step.explained_variance_.astype(np.float64)), smallest)
        return _scaled(components @ matrix, components @ (offset - centre), 1.0 / spread)
    if isinstance(step, FunctionTransformer) and step.func is None:
        return matrix, offset
    if isinstance(step, Pipeline):
        for _, inner in step.steps:
            if inner not in (None, "passthrough"):
                matrix, offset = _apply(inner, matrix, offset)
        return matrix, offset
    if isinstance(step, ColumnTransformer):
        return _apply_by_columns(step, matrix, offset)
    raise ValueError(
        f"preprocessing step {type(step).__name__} is not known to be affine, so distances before "
        f"it cannot be related to the network's; covered are {_SUPPORTED}. A step fixed before "
        "these rows were seen can be applied before the pipeline instead"
    )


def _scaled(
    matrix: NDArray[np.float64], offset: NDArray[np.float64], factors: Any
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    factors = np.broadcast_to(np.asarray(factors, dtype=np.float64), offset.shape)
    return matrix * factors[:, None], offset * factors


def _apply_by_columns(
    step: ColumnTransformer, matrix: NDArray[np.float64], offset: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    names = list(getattr(step, "feature_names_in_", ()))
    matrices, offsets = [matrix[:0]], [offset[:0]]
    for _, inner, columns in step.transformers_:
        chosen = _positions(columns, names, len(offset))
        if len(chosen) == 0 or (isinstance(inner, str) and inner == "drop"):
            continue
        part = matrix[chosen], offset[chosen]
        if not isinstance(inner, str):
            part = _apply(inner, *part)
        matrices.append(part[0])
        offsets.append(part[1])
    return np.concatenate(matrices), np.concatenate(offsets)


def _positions(columns: Any, names: list[Any], n_columns: int) -> NDArray[np.intp]:
    """Positions of columns that are given by number, mask, name or a slice of these."""
    everything = np.arange(n_columns)
    if isinstance(columns, slice) and isinstance(columns.start or columns.stop, str):
        first = 0 if columns.start is None else names.index(columns.start)
        last = n_columns if columns.stop is None else names.index(columns.stop) + 1
        return everything[first : last : columns.step]
    if isinstance(columns, slice):
        return everything[columns]
    chosen = [names.index(column) if isinstance(column, str) else column for column in columns]
    return everything[np.asarray(chosen, dtype=bool if _is_mask(chosen) else np.intp)]


def _is_mask(chosen: list[Any]) -> bool:
    return len(chosen) > 0 and all(isinstance(entry, bool | np.bool_) for entry in chosen)
