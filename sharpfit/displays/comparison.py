"""Figures of a comparison: a measure against the gap, and the correlations of all measures."""

import textwrap
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from sharpfit.comparison import Comparison

__all__ = ["ComparisonDisplay"]

_ESTIMATE = "estimate with 95 % bootstrap interval over runs"
_TWO_SIDED = 1.96  # standard errors of a normal 95 % interval
_LEVEL = 0.05
_FILLED = f"filled: told from zero, all measures considered (adjusted p at most {_LEVEL:g})"


class ComparisonDisplay:
    """How measures of many trained networks go with their generalisation gap.

    Parameters
    ----------
    comparison : Comparison
        Runs and measures.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes or ndarray of Axes
        Axes of the last plot.
    figure_ : matplotlib.figure.Figure
        Figure of the last plot.

    Examples
    --------
    >>> from sharpfit import ComparisonDisplay
    >>> from sharpfit.comparison import Comparison
    >>> table = {"gap": [0.1, 0.2, 0.3, 0.5], "sharpness": [2.0, 1.0, 4.0, 8.0]}
    >>> display = ComparisonDisplay(Comparison.from_table(table, ["sharpness"]))
    >>> display.plot("sharpness").ax_.get_xlabel()
    'sharpness'
    """

    def __init__(self, comparison: Comparison):
        self.comparison = comparison

    @classmethod
    def from_comparison(cls, comparison: Comparison) -> "ComparisonDisplay":
        """Take the numbers from a comparison.

        Parameters
        ----------
        comparison : Comparison

        Returns
        -------
        ComparisonDisplay
        """
        return cls(comparison)

    def frame(self) -> Any:
        """Return the table of runs behind the figures.

        Returns
        -------
        pandas.DataFrame or dict of str to list
        """
        return self.comparison.frame()

    def plot(
        self, measure: str, *, colour_by: str | None = None, ax: Any = None
    ) -> "ComparisonDisplay":
        """Draw one measure against the gap, a point a run.

        Bars are 95 % intervals of the gap over the draw of the test rows, an estimate; the
        title has the interval of the correlation over runs.

        Parameters
        ----------
        measure : str
            Name of a measure.
        colour_by : str, optional
            Hyper-parameter that colours the points.
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; new ones by default.

        Returns
        -------
        ComparisonDisplay
        """
        if ax is None:
            _, ax = plt.subplots(figsize=(6.0, 4.2), layout="constrained")
        gap, values, settings = self._columns(measure)
        self._draw_gap_intervals(ax, measure, values, gap)
        self._scatter(ax, values, gap, settings, colour_by)
        self._label(ax, measure, values)
        ax.set_ylabel(f"test minus training {self.comparison.gap_kind}")
        ax.set_title(self._title(measure), fontsize="medium")
        if colour_by is not None:
            title = _short(colour_by, settings)
            ax.legend(title=title, fontsize="small", title_fontsize="small")
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def plot_panels(self, measure: str) -> "ComparisonDisplay":
        """Draw one measure against the gap once for each hyper-parameter, coloured by it.

        Titles hold Kendall's tau within the hyper-parameter and its p-value, which is adjusted for
        all measures and hyper-parameters of the comparison.

        Parameters
        ----------
        measure : str
            Name of a measure.

        Returns
        -------
        ComparisonDisplay

        Raises
        ------
        ValueError
            If the settings of the runs are not known.
        """
        names = list(self.comparison.hyperparameters)
        if not names:
            raise ValueError("the settings of the runs are not known, so there are no panels")
        granulated = self.comparison.granulated(measure)
        has_groups = any(granulated.n_groups.values())
        adjusted = self._adjusted_p_values(measure) if has_groups else {}
        figure, axes = plt.subplots(
            1,
            len(names),
            figsize=(3.6 * len(names), 3.6),
            layout="constrained",
            sharey=True,
            squeeze=False,
        )
        gap, values, settings = self._columns(measure)
        for ax, name in zip(axes[0], names, strict=True):
            self._draw_gap_intervals(ax, measure, values, gap)
            self._scatter(ax, values, gap, settings, name)
            self._label(ax, measure, values)
            tau = granulated.by_hyperparameter[name]
            low, high = granulated.intervals[name]
            interval = f" [{low:.2f}, {high:.2f}]" if np.isfinite(low) else ""
            title = f"{_short(name, settings)}\ntau within = {tau:.2f}{interval}"
            if name in adjusted:
                title += f"\nadjusted p = {adjusted[name]:.2g}"
            ax.set_title(title, fontsize="medium")
            ax.legend(fontsize="small")
        axes[0, 0].set_ylabel(f"test minus training {self.comparison.gap_kind}")
        self.ax_, self.figure_ = axes[0], figure
        return self

    def plot_correlations(
        self, *, kind: str = "kendall", given: str | None = None, ax: Any = None
    ) -> "ComparisonDisplay":
        """Draw the rank correlation of every measure with the gap, with intervals.

        A filled point is a correlation that is told from zero with all measures considered.

        Parameters
        ----------
        kind : {"kendall", "spearman"}, default="kendall"
            The correlation.
        given : str, optional
            A measure that is held fixed.
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; new ones by default.

        Returns
        -------
        ComparisonDisplay
        """
        table = self.comparison.correlations(kind, given=given)
        rows = [
            row
            for row in zip(
                *(table[key] for key in ("measure", "value", "low", "high", "adjusted_p_value")),
                strict=True,
            )
            if np.isfinite(row[1])
        ]
        if ax is None:
            height = 1.4 + 0.26 * max(len(rows), 1)
            _, ax = plt.subplots(figsize=(7.0, height), layout="constrained")
        places = np.arange(len(rows))[::-1]
        for place, (_, value, low, high, adjusted) in zip(places, rows, strict=True):
            ax.plot([low, high], [place, place], color="#4c78a8", linewidth=2, alpha=0.6)
            inside = "#4c78a8" if adjusted <= _LEVEL else "white"
            ax.plot(value, place, "o", color="#4c78a8", markerfacecolor=inside)
        ax.axvline(0, color="0.4", linewidth=0.8)
        ax.set_yticks(places, [name.replace("_", " ") for name, *_ in rows])
        ax.set_xlim(-1.05, 1.05)
        ax.set_ylim(-0.8, len(rows) - 0.2)
        name = "Kendall's tau" if kind == "kendall" else "Spearman's rho"
        ax.set_xlabel(f"{name} with the gap" + (f", given {given}" if given else ""))
        figure_title = textwrap.fill(self.comparison.statement, 86)
        ax.figure.suptitle(f"{figure_title}\n{_ESTIMATE}\n{_FILLED}", fontsize="small")
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _adjusted_p_values(self, measure: str) -> dict[str, float]:
        """By hyper-parameter; there are none for a measure that some runs lack."""
        if measure not in self.comparison.complete_measures:
            return {}
        tests = self.comparison.tests()
        columns = (list(tests[key]) for key in ("measure", "hyperparameter", "adjusted_p_value"))
        return {name: p for tested, name, p in zip(*columns, strict=True) if tested == measure}

    def _columns(self, measure: str) -> tuple[np.ndarray, np.ndarray, dict[str, list[Any]]]:
        gap, (values,), settings = self.comparison.columns(measure)
        return gap, values, settings

    def _scatter(
        self,
        ax: Any,
        values: np.ndarray,
        gap: np.ndarray,
        settings: dict[str, list[Any]],
        colour_by: str | None,
    ) -> None:
        if colour_by is None:
            ax.scatter(values, gap, color="#4c78a8", alpha=0.8)
            return
        if colour_by not in settings:
            raise ValueError(
                f"colour_by={colour_by!r} is no hyper-parameter of the runs; choose from "
                f"{list(settings)}"
            )
        levels = list(dict.fromkeys(settings[colour_by]))
        if all(isinstance(level, int | float) for level in levels):
            levels.sort()
            colours = plt.get_cmap("viridis")(np.linspace(0.0, 0.9, len(levels)))
        else:
            colours = plt.get_cmap("tab10" if len(levels) <= 10 else "tab20")(range(len(levels)))
        for level, colour in zip(levels, colours, strict=True):
            rows = [i for i, value in enumerate(settings[colour_by]) if value == level]
            ax.scatter(values[rows], gap[rows], color=colour, label=str(level), alpha=0.85)

    def _draw_gap_intervals(
        self, ax: Any, measure: str, values: np.ndarray, gap: np.ndarray
    ) -> None:
        rows = self.comparison.rows_with(measure)
        errors = np.array([self.comparison.runs[i].gap_error for i in rows])
        known = np.isfinite(errors)
        if not known.any():
            return
        ax.errorbar(
            values[known],
            gap[known],
            yerr=_TWO_SIDED * errors[known],
            fmt="none",
            ecolor="0.75",
            elinewidth=0.8,
            zorder=0,
        )

    def _label(self, ax: Any, measure: str, values: np.ndarray) -> None:
        ax.set_xlabel(measure.replace("_", " "))
        if len(values) and values.min() > 0 and values.max() > 100 * values.min():
            ax.set_xscale("log")

    def _title(self, measure: str) -> str:
        table = self.comparison.correlations()
        place = list(table["measure"]).index(measure)
        value, low, high = (list(table[key])[place] for key in ("value", "low", "high"))
        if not np.isfinite(value):
            return self.comparison.statement
        return (
            f"Kendall's tau {value:.2f} [{low:.2f}, {high:.2f}] over "
            f"{list(table['n_runs'])[place]} runs"
        )


def _short(name: str, settings: dict[str, list[Any]]) -> str:
    """Last parts of a nested parameter's name, as many as tell it from the others."""
    parts = name.split("__")
    for first in range(len(parts) - 1, 0, -1):
        tail = "__".join(parts[first:])
        if sum(other.endswith(tail) for other in settings) == 1:
            return tail
    return name
