"""Figure of a training: loss, sharpness between floor and limit, Jacobian, factors."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from sharpfit.monitoring import SharpnessMonitor
from sharpfit.monitoring.training_records import training_records

__all__ = ["SharpeningDisplay"]

_BLUE, _RED, _ORANGE, _GREY = "#4c78a8", "#e45756", "#f58518", "0.45"
_GREEN, _PURPLE = "#54a24b", "#b279a2"
# Sharpness within this part of the limit counts as the edge of stability.
_EDGE = 0.9
# Growth by this part within this part of the training counts as sharpening.
_GROWTH, _WINDOW = 0.02, 0.1
_FAR = 3.0  # times the sharpness, beyond which the limit is told and not shown
_FEW = 30  # measurements whose points are drawn
_MOST_LAYERS = 4  # more are in `frame` alone
# A preconditioned sharpness this many times the plain one needs an axis of decades.
_DECADES = 10.0
_LEGEND = 0.4  # room for a legend above curves, in their height
_AT_EDGE = f"at the edge ({_EDGE:.0%} of the limit)"
_SHARPENING = "sharpening"
_PHASES = {_AT_EDGE: _RED, _SHARPENING: _PURPLE}


class SharpeningDisplay:
    """Loss, sharpness and Jacobian over the updates of a training.

    Four panels: the loss; sharpness, between the floor that Jacobians at the rows imply and the
    stability limit; the Jacobian of probabilities or predictions, between the slope that the
    losses imply and the slopes between rows; and the factors of the curvature of the four layers
    with most of it, over their first values.

    Shaded are two phases: *sharpening*, below the edge with the trained sharpness growing by two
    per cent or more within a tenth of the training, or between neighbouring measurements where
    these are further apart, and the *edge of stability*, at nine tenths of the limit or more. The
    limit ignores the noise of mini-batches, and sharpness is measured in evaluation mode.

    Parameters
    ----------
    records : sequence of dict or SharpnessMonitor
        Measurements, as in ``SharpnessMonitor.records_``.

    Attributes
    ----------
    axes_ : ndarray of matplotlib.axes.Axes of shape (4,)
        Axes of the last plot.
    figure_ : matplotlib.figure.Figure
        Figure of the last plot.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sharpfit import NetworkClassifier
    >>> from sharpfit.displays import SharpeningDisplay
    >>> from sharpfit.monitoring import SharpnessMonitor
    >>> X, y = make_moons(100, noise=0.1, random_state=0)
    >>> network = NetworkClassifier(max_epochs=5, batch_size=-1, random_state=0,
    ...                             callbacks=[("monitor", SharpnessMonitor(every=1))])
    >>> display = SharpeningDisplay.from_estimator(network.fit(X, y)).plot()
    >>> display.axes_[1].get_ylabel()
    'sharpness (unit of the loss)'
    """

    def __init__(self, records: Sequence[dict[str, Any]]):
        self.records = list(training_records(records))

    @classmethod
    def from_estimator(cls, network: Any) -> "SharpeningDisplay":
        """Take the measurements from a network trained with a `SharpnessMonitor`.

        Parameters
        ----------
        network : estimator object
            Trained; a network, or a pipeline, search or the like around it.

        Returns
        -------
        SharpeningDisplay

        Raises
        ------
        TypeError
            If there is no network in it.
        ValueError
            If nothing was measured.
        """
        return cls(training_records(network))

    @classmethod
    def from_history(cls, history: Any) -> "SharpeningDisplay":
        """Take the measurements from a history, also one loaded from a file.

        Parameters
        ----------
        history : skorch.history.History

        Returns
        -------
        SharpeningDisplay
        """
        return cls(SharpnessMonitor.records_of(history))

    def frame(self) -> Any:
        """Return the numbers behind the figure.

        Returns
        -------
        pandas.DataFrame
            One row per measurement; values of layers have columns of their own.
        """
        import pandas as pd

        rows = []
        for record in self.records:
            row = {name: value for name, value in record.items() if name != "layers"}
            for layer, values in record.get("layers", {}).items():
                row |= {f"{name} of {layer}": value for name, value in values.items()}
            rows.append(row)
        return pd.DataFrame(rows).set_index("update")

    def plot(self, axes: Any = None) -> "SharpeningDisplay":
        """Draw the training.

        Parameters
        ----------
        axes : sequence of three or four matplotlib.axes.Axes, optional
            Axes for loss, sharpness, Jacobian and, if there are four, factors; new ones by
            default.

        Returns
        -------
        SharpeningDisplay

        Raises
        ------
        ValueError
            For another number of axes.
        """
        if axes is None:
            _, axes = plt.subplots(4, 1, sharex=True, figsize=(6.8, 9.6), layout="constrained")
        axes = np.atleast_1d(np.asarray(axes, dtype=object)).ravel()
        if len(axes) not in (3, 4):
            raise ValueError(f"axes holds {len(axes)} axes, expected three or four.")
        updates = self._column("update")
        self._line(axes[0], updates, self._column("loss"), color=_BLUE)
        axes[0].set_yscale("log")
        axes[0].set_ylabel("loss")
        axes[0].set_title("Loss, sharpness and Jacobian over the training")
        self._plot_sharpness(axes[1], updates)
        self._plot_jacobian(axes[2], updates)
        for ax in axes[3:]:
            self._plot_factors(ax, updates)
        for ax in axes:
            self._shade_phases(ax, updates)
        # The phases are named once, above the panel that shows them best.
        handles, labels = axes[1].get_legend_handles_labels()
        axes[1].legend(handles, labels, fontsize="small")
        for ax in axes[2:]:
            own = [pair for pair in zip(*ax.get_legend_handles_labels(), strict=True)
                   if pair[1] not in _PHASES]  # fmt: skip
            if own:
                ax.legend(*zip(*own, strict=True), fontsize="small", ncols=2 if len(own) > 4 else 1)
        axes[-1].set_xlabel("update")
        self.axes_, self.figure_ = axes, axes[0].figure
        return self

    def _plot_sharpness(self, ax: Any, updates: np.ndarray) -> None:
        sharpness, error = self._column("sharpness"), self._column("sharpness_error")
        trained, limit = self._column("trained_sharpness"), self._column("stability_limit")
        ax.fill_between(updates, sharpness - error, sharpness + error, color=_BLUE, alpha=0.3)
        self._line(ax, updates, sharpness, color=_BLUE, label="sharpness")
        if np.any(np.isfinite(trained) & (trained != sharpness)):
            label = "with decay and preconditioner"
            self._line(ax, updates, trained, color=_ORANGE, label=label)
        part = self._column("gauss_newton_part")
        self._line(ax, updates, part, ":", color=_BLUE, label="Gauss-Newton part")
        floor, error = self._column("sharpness_floor"), self._column("sharpness_floor_error")
        if np.isfinite(floor).any():
            ax.fill_between(updates, floor - error, floor + error, color=_GREEN, alpha=0.3)
            self._line(ax, updates, floor, color=_GREEN, label="floor from the Jacobian")
        highest = np.nanmax(np.r_[sharpness, trained, 0.0])
        by_decades = highest > _DECADES * np.nanmax(np.r_[sharpness, 0.0]) > 0
        known = limit[np.isfinite(limit)]
        if len(known):
            label = "stability limit, full batch"
            if by_decades or known.min() <= _FAR * highest:
                highest = max(highest, known.min())
            else:  # where it would press the curves together
                label += f": above, {known.min():.3g}"
            self._line(ax, updates, limit, "--", color=_RED, label=label)
        ax.set_ylabel("sharpness (unit of the loss)")
        if by_decades:
            _scale_by_decades(ax)
        else:
            ax.set_ylim(0.0, 1.25 * highest if highest > 0 else 1.0)

    def _plot_jacobian(self, ax: Any, updates: np.ndarray) -> None:
        largest = self._column("response_jacobian_max")
        if np.isfinite(largest).any():
            slopes = self._column("response_slope_bound")
        else:
            largest, slopes = self._column("jacobian_max"), self._column("slope_bound")
        ax.set_ylabel("Jacobian norm, slopes\n(response per unit of input)")
        if not np.isfinite(largest).any():
            _say_unmeasured(ax)
            return
        self._line(ax, updates, largest, color=_BLUE, label="largest Jacobian at the rows")
        self._line(ax, updates, slopes, "--", color=_GREY, label="largest slope between rows")
        implied = self._column("loss_slope_bound")
        if np.isfinite(implied).any():
            self._line(ax, updates, implied, color=_GREEN, label="slope that the losses imply")
        ax.set_ylim(bottom=0.0)

    def _plot_factors(self, ax: Any, updates: np.ndarray) -> None:
        factors = {"loss curvature": (self._column("loss_curvature"), _RED, "-")}
        layers = self._layers_with_most_curvature()
        colours = plt.get_cmap("viridis")(np.linspace(0.1, 0.85, max(len(layers), 1)))
        for name, colour in zip(layers, colours, strict=False):
            for factor, style in (("feature_energy", "-"), ("backward_energy", "--")):
                values = self._layer_column(name, factor)
                # The input does not change, nor what follows the last layer.
                if np.nanmax(values, initial=0.0) > 1.001 * np.nanmin(values, initial=np.inf):
                    label = f"{factor.replace('_', ' ')}, layer {name}"
                    factors[label] = (values, colour, style)
        for label, (values, colour, style) in factors.items():
            positive = values[np.isfinite(values) & (values > 0)]
            if len(positive):
                self._line(ax, updates, values / positive[0], style, color=colour, label=label)
        ax.set_ylabel("factors, over their\nfirst values")
        if not ax.lines:
            _say_unmeasured(ax)
            return
        _scale_by_decades(ax)

    def _shade_phases(self, ax: Any, updates: np.ndarray) -> None:
        middles = np.r_[updates[0], (updates[1:] + updates[:-1]) / 2, updates[-1]]
        unlabelled = dict(_PHASES)
        for begin, end, phase in zip(middles[:-1], middles[1:], self._phases(), strict=True):
            if phase:
                label = phase if phase in unlabelled else None
                ax.axvspan(begin, end, color=_PHASES[phase], alpha=0.1, linewidth=0, label=label)
                unlabelled.pop(phase, None)

    def _phases(self) -> list[str]:
        """Return the phase of every measurement, empty for none."""
        limit, trained = self._column("stability_limit"), self._column("trained_sharpness")
        updates = self._column("update")
        # Growth is looked at over a part of the training, however often was measured in it.
        reach = _WINDOW / 2 * (updates[-1] - updates[0])
        known = np.isfinite(trained)
        phases = []
        for place, value in enumerate(trained):
            if value >= _EDGE * limit[place]:
                phases.append(_AT_EDGE)
                continue
            near = np.abs(updates - updates[place]) <= reach
            near[max(place - 1, 0) : place + 2] = True
            seen = trained[near & known]
            grew = known[place] and seen[-1] > (1 + _GROWTH) * seen[0]
            phases.append(_SHARPENING if grew else "")
        return phases

    def _line(self, ax: Any, updates: np.ndarray, values: np.ndarray, *style: str, **look: Any):
        """Draw a line, with its points where they are few."""
        ax.plot(updates, values, *style, marker="." if len(updates) <= _FEW else None, **look)

    def _layers_with_most_curvature(self) -> list[str]:
        """Return the layers whose factors are drawn, in the network's order."""
        names = list(dict.fromkeys(name for r in self.records for name in r.get("layers", {})))
        known = [n for n in names if np.isfinite(self._layer_column(n, "feature_energy")).any()]
        most = sorted(known, key=lambda n: -np.nanmean(self._layer_column(n, "share")))
        return [name for name in known if name in most[:_MOST_LAYERS]]

    def _layer_column(self, layer: str, factor: str) -> np.ndarray:
        found = [r.get("layers", {}).get(layer, {}).get(factor, np.nan) for r in self.records]
        return np.array(found, dtype=np.float64)

    def _column(self, name: str) -> np.ndarray:
        found = [record.get(name, np.nan) for record in self.records]
        return np.array(found, dtype=np.float64)


def _scale_by_decades(ax: Any) -> None:
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ax.set_ylim(low, high * (high / low) ** _LEGEND)


def _say_unmeasured(ax: Any) -> None:
    ax.text(0.5, 0.5, "not measured", ha="center", va="center", transform=ax.transAxes)
    ax.set_yticks([])
