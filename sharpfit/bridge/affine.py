"""Preprocessing steps that are affine maps, as one matrix."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    RobustScaler,
    StandardScaler,
)

_SUPPORTED = (
    "StandardScaler, MinMaxScaler (clip=False), MaxAbsScaler, RobustScaler, PCA, TruncatedSVD"
)


@dataclass(frozen=True, eq=False)
class AffineMap:
    """The linear part of an affine map of rows, ``x -> x @ matrix.T + constant``.

    Attributes
    ----------
    matrix : ndarray of shape (n_outputs, n_features), float64
        Jacobian of the map.
    """

    matrix: NDArray[np.float64]

    @property
    def norm(self) -> float:
        """Largest factor by which the map stretches distances: its spectral norm."""
        return float(np.linalg.norm(self.matrix, 2))


def affine_map(preprocessing: tuple[Any, ...], n_features: int) -> AffineMap:
    """Return the Jacobian of fitted preprocessing that is affine in the rows.

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
    matrix = np.eye(n_features)
    for step in preprocessing:
        matrix = _apply(step, matrix)
    return AffineMap(matrix)


def _apply(step: Any, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    if isinstance(step, StandardScaler):
        return matrix if step.scale_ is None else matrix / step.scale_[:, None]
    if isinstance(step, MinMaxScaler) and not step.clip:
        return matrix * step.scale_[:, None]
    if isinstance(step, MaxAbsScaler) and not getattr(step, "clip", False):
        return matrix / step.scale_[:, None]
    if isinstance(step, RobustScaler):
        return matrix / step.scale_[:, None] if step.with_scaling else matrix
    if isinstance(step, (PCA, TruncatedSVD)):
        projected = step.components_.astype(np.float64) @ matrix
        if getattr(step, "whiten", False):
            projected /= np.sqrt(step.explained_variance_)[:, None]
        return projected
    if isinstance(step, FunctionTransformer) and step.func is None:
        return matrix
    raise ValueError(
        f"preprocessing step {type(step).__name__} is not known to be affine, so distances before "
        f"it cannot be related to the network's; covered are {_SUPPORTED} and an identity "
        "FunctionTransformer. Transform the rows before the pipeline instead"
    )
