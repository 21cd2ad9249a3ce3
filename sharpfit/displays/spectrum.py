"""Figures of a curvature spectrum: top eigenvalues, density of all, attribution of one."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from sharpfit.analysers import HessianSpectrum
from sharpfit.displays.analyses import check_analysis
from sharpfit.displays.attribution import AttributionDisplay
from sharpfit.linalg import SpectralDensity

__all__ = ["SpectrumDisplay"]

_MATRICES = {"hessian": "Hessian", "gauss_newton": "Gauss-Newton matrix"}
_KINDS = {
    "largest": "Largest eigenvalues",
    "smallest": "Smallest eigenvalues",
    "magnitude": "Eigenvalues of largest magnitude",
}
_COLOUR = "#4c78a8"
_MARK = "#e45756"


class SpectrumDisplay:
    """Eigenvalues of a curvature matrix with their error bars, and the density of all of them.

    Parameters
    ----------
    eigenvalues : ndarray of shape (k,)
        Eigenvalues, in units of the loss.
    residual_norms : ndarray of shape (k,)
        Their residual norms: some eigenvalue lies within this distance of each.
    converged : ndarray of shape (k,), bool
        Whether they meet the tolerance.
    matrix : {"hessian", "gauss_newton"}, default="hessian"
        The matrix.
    which : {"largest", "smallest", "magnitude"}, default="largest"
        End of the spectrum.
    density : SpectralDensity, optional
        Density of all eigenvalues.
    attribution : mapping of str to array, optional
        Columns ``parameter``, ``share``, ``contribution`` and ``error`` of the first eigenvalue,
        as from `HessianSpectrum.attribution`.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        Axes of the last plot.
    figure_ : matplotlib.figure.Figure
        Figure of the last plot.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sharpfit import HessianSpectrum, NetworkClassifier, SpectrumDisplay
    >>> X, y = make_moons(200, noise=0.05, random_state=0)
    >>> analysis = HessianSpectrum(NetworkClassifier(max_epochs=5, random_state=0))
    >>> display = SpectrumDisplay.from_estimator(analysis.fit(X, y)).plot()
    >>> display.ax_.get_ylabel()
    'eigenvalue (unit of the loss)'
    """

    def __init__(
        self,
        *,
        eigenvalues: np.ndarray,
        residual_norms: np.ndarray,
        converged: np.ndarray,
        matrix: str = "hessian",
        which: str = "largest",
        density: SpectralDensity | None = None,
        attribution: Any = None,
    ):
        self.eigenvalues = eigenvalues
        self.residual_norms = residual_norms
        self.converged = converged
        self.matrix = matrix
        self.which = which
        self.density = density
        self.attribution = attribution

    @classmethod
    def from_estimator(cls, analysis: HessianSpectrum) -> "SpectrumDisplay":
        """Take the numbers from a fitted analysis.

        Parameters
        ----------
        analysis : HessianSpectrum
            Fitted.

        Returns
        -------
        SpectrumDisplay
        """
        check_analysis(analysis, HessianSpectrum, "eigenvalues_")
        return cls(
            eigenvalues=analysis.eigenvalues_,
            residual_norms=analysis.residual_norms_,
            converged=analysis.converged_,
            matrix=analysis.matrix,
            which=analysis.which,
            density=analysis.density_,
            attribution=analysis.attribution(),
        )

    def frame(self, *, kind: str = "eigenvalues") -> Any:
        """Return the numbers behind a figure.

        Parameters
        ----------
        kind : {"eigenvalues", "density", "attribution"}, default="eigenvalues"
            The figure.

        Returns
        -------
        pandas.DataFrame
            One row per eigenvalue, per point of the density's grid, or per parameter tensor.
        """
        import pandas as pd

        self._check_kind(kind)
        if kind == "attribution":
            return pd.DataFrame(self.attribution)
        if kind == "density":
            names = ("grid", "density", "standard_error", "quadrature_change")
            return pd.DataFrame({name: getattr(self.density, name) for name in names})
        return pd.DataFrame(
            {
                "eigenvalue": self.eigenvalues,
                "residual_norm": self.residual_norms,
                "converged": self.converged,
            },
            index=pd.RangeIndex(1, len(self.eigenvalues) + 1, name="rank"),
        )

    def plot(self, ax: Any = None, *, kind: str = "eigenvalues") -> "SpectrumDisplay":
        """Draw the spectrum.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; new ones by default.
        kind : {"eigenvalues", "density", "attribution"}, default="eigenvalues"
            Top eigenvalues with residual norms as error bars; the density of all eigenvalues
            on a logarithmic scale, where its band is one standard error plus the change of
            the quadrature; or the first eigenvalue split over the parameter tensors, see
            `AttributionDisplay` for other splits.

        Returns
        -------
        SpectrumDisplay

        Raises
        ------
        ValueError
            If `kind` is unknown, or was not computed.
        """
        self._check_kind(kind)
        if ax is None:
            _, ax = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
        if kind == "attribution":
            AttributionDisplay(self.attribution, by="tensor", matrix=self.matrix).plot(ax)
        else:
            draw = {"eigenvalues": self._plot_eigenvalues, "density": self._plot_density}
            draw[kind](ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _check_kind(self, kind: str) -> None:
        if kind not in ("eigenvalues", "density", "attribution"):
            raise ValueError(f'kind={kind!r} must be "eigenvalues", "density" or "attribution".')
        if kind == "density" and self.density is None:
            raise ValueError("the density was not computed: fit HessianSpectrum with density=True.")
        if kind == "attribution" and self.attribution is None:
            raise ValueError("no attribution was given: use SpectrumDisplay.from_estimator.")

    def _plot_eigenvalues(self, ax: Any) -> None:
        ranks = np.arange(1, len(self.eigenvalues) + 1)
        settled = np.asarray(self.converged)
        for chosen, face, label in (
            (settled, _COLOUR, "within tolerance"),
            (~settled, "white", "outside tolerance"),
        ):
            if chosen.any():
                ax.errorbar(
                    ranks[chosen],
                    self.eigenvalues[chosen],
                    yerr=self.residual_norms[chosen],
                    fmt="o",
                    color=_COLOUR,
                    markerfacecolor=face,
                    capsize=4,
                    label=label,
                )
        ax.axhline(0.0, color="0.6", linewidth=0.8)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.set_xlabel("rank")
        ax.set_ylabel("eigenvalue (unit of the loss)")
        ax.set_title(f"{_KINDS[self.which]} of the {_MATRICES[self.matrix]}")
        ax.legend(title="bars: residual norm")

    def _plot_density(self, ax: Any) -> None:
        result = self.density
        assert result is not None
        band = result.standard_error + result.quadrature_change
        # Below the height of a tenth of one eigenvalue the curve is the tail of the smoothing.
        floor = 0.1 / (result.size * result.width * np.sqrt(2 * np.pi))
        lower, upper = (np.maximum(result.density + sign * band, floor) for sign in (-1, 1))
        label = "exact" if result.exact else "standard error and quadrature"
        ax.fill_between(result.grid, lower, upper, color=_COLOUR, alpha=0.3, label=label)
        ax.plot(result.grid, np.maximum(result.density, floor), color=_COLOUR)
        ax.set_yscale("log")
        ax.set_ylim(bottom=floor)
        ax.plot(
            self.eigenvalues,
            np.full(len(self.eigenvalues), 0.02),
            "|",
            color=_MARK,
            markersize=12,
            transform=ax.get_xaxis_transform(),
            label=_KINDS[self.which].lower(),
        )
        ax.set_xlabel("eigenvalue (unit of the loss)")
        ax.set_ylabel("density (share per unit)")
        ax.set_title(
            f"Spectral density of the {_MATRICES[self.matrix]}, smoothed by {result.width:.2g}"
        )
        ax.legend()
