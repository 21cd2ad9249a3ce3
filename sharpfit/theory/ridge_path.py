"""Kernel ridge regressions of all penalties and bandwidths, with their leave-one-out residuals."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh
from scipy.spatial.distance import pdist, squareform

__all__ = ["RidgePath", "Solution", "rational_kernel"]

# From interpolation to nearly the mean, half a decade apart.
_PENALTIES = 10.0 ** np.arange(-6, 2.5, 0.5)


class Solution(NamedTuple):
    """One regression: weights of the kernel functions at the rows, (n, k), and a constant, (k,)."""

    bandwidth: float
    penalty: float
    weights: np.ndarray
    constant: np.ndarray
    residuals: np.ndarray


class _Spectrum(NamedTuple):
    """What all penalties share."""

    bandwidth: float
    eigenvalues: np.ndarray
    eigenvectors: np.ndarray
    coordinates: np.ndarray


class RidgePath:
    """Kernel ridge regressions with a free constant, at all settings.

    With ``A = (K + penalty I)^{-1}`` and ``P = A - A 1 1^T A / (1^T A 1)``, the weights are ``P y``
    and the leave-one-out residuals are ``(P y)_i / P_ii``, exactly.

    Parameters
    ----------
    rows : ndarray of shape (n, r)
    targets : ndarray of shape (n, k)
    bandwidths : sequence of float
        In units of the median distance between rows.

    Examples
    --------
    >>> import numpy as np
    >>> rows = np.linspace(-1, 1, 9)[:, None]
    >>> path = RidgePath(rows, rows**2, bandwidths=[1.0])
    >>> path.squared_residuals.shape
    (17, 9)
    """

    def __init__(
        self, rows: np.ndarray, targets: np.ndarray, *, bandwidths: Sequence[float]
    ) -> None:
        self.rows = rows
        self.settings = [(factor, penalty) for factor in bandwidths for penalty in _PENALTIES]
        self._distances = squareform(pdist(rows))
        # Any width will do where most rows coincide.
        self._unit = float(np.median(self._distances[np.triu_indices(len(rows), 1)])) or 1.0
        # A constant added to the targets only adds to the free constant.
        self._mean = targets.mean(axis=0)
        self._columns = np.column_stack([np.ones(len(targets)), targets - self._mean])
        self._spectra: dict[float, _Spectrum] = {}

    def solve(self, setting: int) -> Solution:
        """Return the regression at one of the settings."""
        factor, penalty = self.settings[setting]
        spectrum = self._spectrum(factor)
        weights, constant, residuals = self._solve(spectrum, np.array([penalty]))
        return Solution(
            spectrum.bandwidth, penalty, weights[:, 0], self._mean + constant[0], residuals[:, 0]
        )

    @cached_property
    def squared_residuals(self) -> np.ndarray:
        """Leave-one-out, summed over targets: of all settings at all rows."""
        found = []
        for factor in dict.fromkeys(factor for factor, _ in self.settings):
            residuals = self._solve(self._spectrum(factor), _PENALTIES)[2]
            found.append(np.square(residuals).sum(axis=2).T)
        return np.concatenate(found)

    def gradients(self) -> Iterator[np.ndarray]:
        """Return those of the best regression at the rows, up to a factor: (n, r) a target."""
        best = self.solve(int(self.squared_residuals.mean(axis=1).argmin()))
        slopes = np.square(rational_kernel(self._distances / best.bandwidth))
        for weights in best.weights.T:
            weighted = slopes * weights
            yield weighted @ self.rows - self.rows * weighted.sum(axis=1, keepdims=True)

    def _spectrum(self, factor: float) -> _Spectrum:
        if factor not in self._spectra:
            bandwidth = factor * self._unit
            eigenvalues, eigenvectors = eigh(rational_kernel(self._distances / bandwidth))
            self._spectra[factor] = _Spectrum(
                bandwidth,
                np.maximum(eigenvalues, 0),
                eigenvectors,
                eigenvectors.T @ self._columns,
            )
        return self._spectra[factor]

    def _solve(
        self, spectrum: _Spectrum, penalties: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weights (n, p, k), constants (p, k) and residuals (n, p, k) of p penalties."""
        inverse = 1 / (spectrum.eigenvalues[:, None] + penalties)
        products = inverse[:, :, None] * spectrum.coordinates[:, None]
        images = np.tensordot(spectrum.eigenvectors, products, axes=1)
        of_one, of_targets = images[..., :1], images[..., 1:]
        constant = of_targets.sum(axis=0) / of_one.sum(axis=0)
        weights = of_targets - of_one * constant
        diagonal = (np.square(spectrum.eigenvectors) @ inverse)[..., None]
        return weights, constant, weights / (diagonal - of_one**2 / of_one.sum(axis=0))


def rational_kernel(distances: np.ndarray) -> np.ndarray:
    """Return ``1 / (1 + distance^2)``, a mixture of Gaussian kernels of all widths around one."""
    return 1 / (1 + np.square(distances))
