"""Features of signals and images that hardly change when what they show moves."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.linalg import eigh

__all__ = ["PatchFeatures", "fit_patch_features"]

_PATCH_SIZE = 5
_N_PATTERNS = 200
_N_WHITENED_PATCHES = 20_000
# Directions in which patches hardly vary are not blown up beyond this share of the mean variance.
_RIDGE = 0.1
_BYTES_PER_CHUNK = 16 * 2**20


@dataclass(frozen=True, eq=False)
class PatchFeatures:
    """How much of each of some patterns there is, in each part of a signal or image.

    Attributes
    ----------
    shape : tuple of int
        Of an input: channels, then the lengths of the spatial axes.
    patch_shape : tuple of int
        Of a patch, without channels; as long as an axis that is shorter than 5.
    patterns : ndarray of shape (channels times size of a patch, f), float64
        In units of the standard deviation of their match with a patch.
    thresholds : ndarray of shape (f,), float64
        What a match has to exceed.
    n_parts : int
        Parts of each spatial axis over which matches are averaged.
    """

    shape: tuple[int, ...]
    patch_shape: tuple[int, ...]
    patterns: np.ndarray
    thresholds: np.ndarray
    n_parts: int

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Compute the features.

        Parameters
        ----------
        points : ndarray of shape (p, d)
            Inputs, flattened.

        Returns
        -------
        ndarray of shape (p, q), float64
            ``q`` is f times the number of parts.
        """
        n_positions = math.prod(self.shape[1:])
        bytes_per_point = 4 * n_positions * sum(self.patterns.shape)
        size = max(1, _BYTES_PER_CHUNK // bytes_per_point)
        chunks = [self._of_chunk(points[i : i + size]) for i in range(0, len(points), size)]
        return np.concatenate(chunks)

    def _of_chunk(self, points: np.ndarray) -> np.ndarray:
        # Half the time of double precision, which the averages do not need.
        patches = _patches(points.reshape(-1, *self.shape).astype(np.float32), self.patch_shape)
        matches = patches @ self.patterns.astype(np.float32)
        matches -= self.thresholds.astype(np.float32)
        np.maximum(matches, 0, out=matches)
        parts = [matches]
        for axis in range(1, matches.ndim - 1):
            n_parts = min(self.n_parts, matches.shape[axis])
            parts = [half for part in parts for half in np.array_split(part, n_parts, axis)]
        spatial = tuple(range(1, matches.ndim - 1))
        averages = [part.mean(axis=spatial, dtype=np.float64) for part in parts]
        return np.concatenate(averages, axis=1)


def fit_patch_features(rows: np.ndarray, shape: tuple[int, ...], *, n_parts: int) -> PatchFeatures:
    """Choose patterns among the patches of rows.

    Patches around every place, margins mirrored, are whitened; up to 200 of them are the patterns.
    The features are by how much a whitened patch exceeds one standard deviation along a pattern,
    averaged over a part of the places (Coates, Lee and Ng 2011, "An analysis of single-layer
    networks in unsupervised feature learning"). Averages over all places do not change when a
    thing moves.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
        Inputs, flattened.
    shape : tuple of int
        Of an input: channels, then the lengths of the spatial axes; d is their product.
    n_parts : int
        Parts of each spatial axis over which matches are averaged.

    Returns
    -------
    PatchFeatures

    Examples
    --------
    >>> import numpy as np
    >>> signals = np.zeros((20, 30))
    >>> signals[np.arange(20), 5 + np.arange(20)] = 1
    >>> features = fit_patch_features(signals, (1, 30), n_parts=1)
    >>> bool(np.allclose(features(signals), features(signals[:1])))
    True
    """
    patch_shape = tuple(min(_PATCH_SIZE, length) for length in shape[1:])
    rng = np.random.default_rng(0)
    n_used = -(-_N_WHITENED_PATCHES // math.prod(shape[1:]))
    some = rng.permutation(len(rows))[:n_used]
    patches = _patches(rows[some].reshape(-1, *shape), patch_shape)
    patches = rng.permutation(patches.reshape(-1, patches.shape[-1]))
    mean = patches.mean(axis=0)
    variances, directions = eigh(np.atleast_2d(np.cov(patches, rowvar=False)))
    variances = np.maximum(variances, 0)
    whitening = directions / np.sqrt(variances + _RIDGE * variances.mean() + np.finfo(float).tiny)
    chosen = (patches[:_N_PATTERNS] - mean) @ whitening
    lengths = np.linalg.norm(chosen, axis=1, keepdims=True)
    patterns = whitening @ (chosen / np.where(lengths > 0, lengths, 1)).T
    return PatchFeatures(shape, patch_shape, patterns, 1 + mean @ patterns, n_parts)


def _patches(images: np.ndarray, patch_shape: tuple[int, ...]) -> np.ndarray:
    """Around every place, (n, channels, ...) to (n, ..., values of a patch)."""
    axes = tuple(range(2, images.ndim))
    margins = [(0, 0), (0, 0), *((size // 2, (size - 1) // 2) for size in patch_shape)]
    windows = sliding_window_view(np.pad(images, margins, mode="reflect"), patch_shape, axis=axes)
    windows = np.moveaxis(windows, 1, len(axes) + 1)
    return windows.reshape(*windows.shape[: len(axes) + 1], -1)
