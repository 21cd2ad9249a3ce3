"""Figure of a generalisation bound: its terms against the scale."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from sharpfit.analysers import GeneralisationBound
from sharpfit.displays.analyses import check_analysis

__all__ = ["BoundDisplay"]

_TERMS = (
    ("geometry_cost", "geometry", "#4c78a8"),
    ("risk", "empirical risk", "#f58518"),
    ("deviation", "deviation", "#bab0ac"),
)


class BoundDisplay:
    """Terms of a generalisation bound, stacked against the scale or the radius.

    At small scales (wide ramps) the empirical risk dominates, at large ones the geometry. All
    points of the curve hold at once, so the smallest was chosen. Above 1 the bound is vacuous.

    Parameters
    ----------
    curve : dict of str to ndarray
        Table of the terms of all forms, from :meth:`~sharpfit.GeneralisationBound.curve`.
    form : str
        The form that gave the bound.
    statement : str
        What the bound says, in one line.
    quantity : str, default="error"
        What is bounded.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        Axes of the last plot.
    figure_ : matplotlib.figure.Figure
        Figure of the last plot.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sharpfit import BoundDisplay, GeneralisationBound, NetworkClassifier
    >>> X, y = make_moons(200, noise=0.05, random_state=0)
    >>> analysis = GeneralisationBound(NetworkClassifier(max_epochs=10, random_state=0))
    >>> display = BoundDisplay.from_estimator(analysis.fit(X, y)).plot()
    >>> display.ax_.get_ylabel()
    'bound on the error'
    """

    def __init__(
        self,
        *,
        curve: dict[str, np.ndarray],
        form: str,
        statement: str,
        quantity: str = "error",
    ):
        self.curve = curve
        self.form = form
        self.statement = statement
        self.quantity = quantity

    @classmethod
    def from_estimator(cls, analysis: GeneralisationBound) -> "BoundDisplay":
        """Take the terms from a fitted analysis.

        Parameters
        ----------
        analysis : GeneralisationBound
            Fitted.

        Returns
        -------
        BoundDisplay
        """
        check_analysis(analysis, GeneralisationBound, "bound_")
        return cls(
            curve=analysis.curve(),
            form=analysis.method_,
            statement=analysis.statement(),
            quantity="error" if analysis.loss_bound is None else "clipped loss",
        )

    def frame(self) -> Any:
        """Return the numbers behind the figure.

        Returns
        -------
        pandas.DataFrame
            One row per form and grid point.
        """
        import pandas as pd

        return pd.DataFrame(self.curve)

    def plot(self, ax: Any = None, *, form: str | None = None) -> "BoundDisplay":
        """Draw the terms of one form.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; new ones by default.
        form : str, optional
            Form to draw; the one that gave the bound by default.

        Returns
        -------
        BoundDisplay

        Raises
        ------
        ValueError
            If the form was not evaluated.
        """
        form = self.form if form is None else form
        if form not in self.curve["form"]:
            available = sorted(set(self.curve["form"].tolist()))
            raise ValueError(f"form={form!r} was not evaluated; choose one of {available}.")
        if ax is None:
            _, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
        rows = self.curve["form"] == form
        columns = {name: values[rows] for name, values in self.curve.items()}
        by_scale = np.isfinite(columns["scale"]).all()
        grid = columns["scale"] if by_scale else columns["radius"]
        chosen = self._chosen(columns)
        heights = self._heights(columns)
        labels = [label for _, label, _ in _TERMS]
        if not by_scale:
            labels[:2] = "uncovered", "exceptions"
        position = grid[chosen]
        if len(grid) == 1:
            self._draw_bar(ax, grid, heights, labels)
            position = 0.0
        else:
            colours = [colour for _, _, colour in _TERMS]
            ax.stackplot(grid, *heights, colors=colours, labels=labels, alpha=0.85)
            ax.set_xscale("log")
            ax.set_xlim(*self._limits(grid, columns))
        bound = columns["bound"][chosen]
        top = max(1.25, 1.1 * bound) if np.isfinite(bound) else 1.25
        ax.axhspan(1.0, top, facecolor="0.5", alpha=0.25, zorder=3)
        ax.axhline(1.0, color="0.25", linewidth=0.8, zorder=3)
        ax.text(
            0.98,
            1.02,
            "vacuous",
            transform=ax.get_yaxis_transform(),
            ha="right",
            color="0.2",
            zorder=4,
        )
        marker = f"{'chosen' if form == self.form else 'smallest'}: {bound:.3g}"
        ax.plot(position, bound, "o", color="black", markersize=6, label=marker, zorder=5)
        ax.set_ylim(0.0, top)
        ax.set_xlabel(
            "scale s (1 / unit of the metric)" if by_scale else "radius (unit of the metric)"
        )
        ax.set_ylabel(f"bound on the {self.quantity}")
        what = self.statement if form == self.form else "not the smallest of the forms"
        ax.set_title(f"{form.replace('_', '-')} form\n{what}", fontsize="medium")
        ax.legend(loc="best", framealpha=0.9)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    @staticmethod
    def _chosen(columns: dict[str, np.ndarray]) -> int:
        telling = columns["geometry_cost"] + columns["deviation"] < 1.0
        values = np.where(telling, columns["bound"], np.inf) if telling.any() else columns["bound"]
        return int(np.argmin(values))

    @staticmethod
    def _heights(columns: dict[str, np.ndarray]) -> list[np.ndarray]:
        risk = columns["bound"] - columns["geometry_cost"] - columns["deviation"]
        terms = {**columns, "risk": np.maximum(risk, 0.0)}
        # A risk at infinite capacity is infinite; the axes end well below.
        return [np.nan_to_num(terms[name], posinf=1e6) for name, _, _ in _TERMS]

    @staticmethod
    def _limits(grid: np.ndarray, columns: dict[str, np.ndarray]) -> tuple[float, float]:
        """Return the range of the grid in which the geometry is neither nothing nor everything."""
        geometry, bound = columns["geometry_cost"], columns["bound"]
        inside = np.flatnonzero(((geometry > 0.005) & (geometry < 0.995)) | (bound < 0.99))
        if len(inside) == 0:
            return float(grid[0]), float(grid[-1])
        return float(grid[max(inside[0] - 1, 0)]), float(grid[min(inside[-1] + 1, len(grid) - 1)])

    @staticmethod
    def _draw_bar(ax: Any, grid: np.ndarray, heights: list[np.ndarray], labels: list[str]) -> None:
        below = np.zeros(1)
        for (_, _, colour), label, height in zip(_TERMS, labels, heights, strict=True):
            ax.bar([0.0], height, 0.5, bottom=below, color=colour, label=label, alpha=0.85)
            below = below + height
        ax.set_xticks([0.0], [f"{grid[0]:.3g}"])  # a single value, which may be infinite
        ax.set_xlim(-1.0, 1.0)
