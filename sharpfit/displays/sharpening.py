"""Figure of a training: loss, sharpness against its limit, Jacobian against its bounds."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from sharpfit.monitoring import SharpnessMonitor

__all__ = ["SharpeningDisplay"]

_BLUE, _RED, _ORANGE, _GREY = "#4c78a8", "#e45756", "#f58518", "0.45"
# Sharpness within this part of the limit counts as the edge of stability.
_EDGE = 0.9


class SharpeningDisplay:
    """Loss, sharpness and Jacobian over the updates of a training.

    Updates at which the trained sharpness is at least nine tenths of the stability limit are
    shaded: there full-batch descent is at the edge of stability. The limit ignores the noise of
    mini-batches, and sharpness is measured in evaluation mode.

    Parameters
    ----------
    records : sequence of dict
        Measurements, as in ``SharpnessMonitor.records_``.

    Attributes
    ----------
    axes_ : ndarray of matplotlib.axes.Axes of shape (3,)
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
        if not records:
            raise ValueError("records is empty: nothing was measured.")
        self.records = list(records)

    @classmethod
    def from_estimator(cls, network: Any) -> "SharpeningDisplay":
        """Take the measurements from a network trained with a `SharpnessMonitor`.

        Parameters
        ----------
        network : skorch.NeuralNet
            Trained.

        Returns
        -------
        SharpeningDisplay
        """
        return cls.from_history(network.history)

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
        records = SharpnessMonitor.records_of(history)
        if not records:
            raise ValueError(
                "the history holds no measurements: train with a SharpnessMonitor callback."
            )
        return cls(records)

    def frame(self) -> Any:
        """Return the numbers behind the figure.

        Returns
        -------
        pandas.DataFrame
            One row per measurement.
        """
        import pandas as pd

        return pd.DataFrame(self.records).set_index("update")

    def plot(self, axes: Any = None) -> "SharpeningDisplay":
        """Draw the training.

        Parameters
        ----------
        axes : sequence of three matplotlib.axes.Axes, optional
            Axes for loss, sharpness and Jacobian; new ones by default.

        Returns
        -------
        SharpeningDisplay
        """
        if axes is None:
            _, axes = plt.subplots(3, 1, sharex=True, figsize=(6.4, 7.6), layout="constrained")
        axes = np.asarray(axes)
        updates = self._column("update")
        axes[0].plot(updates, self._column("loss"), color=_BLUE)
        axes[0].set_yscale("log")
        axes[0].set_ylabel("loss")
        axes[0].set_title("Loss, sharpness and Jacobian over the training")
        self._plot_sharpness(axes[1], updates)
        self._plot_jacobian(axes[2], updates)
        for ax in axes:
            self._shade_edge(ax, updates)
        axes[1].legend()
        axes[2].legend()
        axes[2].set_xlabel("update")
        self.axes_, self.figure_ = axes, axes[0].figure
        return self

    def _plot_sharpness(self, ax: Any, updates: np.ndarray) -> None:
        sharpness, error = self._column("sharpness"), self._column("sharpness_error")
        trained, limit = self._column("trained_sharpness"), self._column("stability_limit")
        ax.fill_between(updates, sharpness - error, sharpness + error, color=_BLUE, alpha=0.3)
        ax.plot(updates, sharpness, color=_BLUE, label="sharpness")
        if np.any(np.isfinite(trained) & (trained != sharpness)):
            ax.plot(updates, trained, color=_ORANGE, label="with decay and preconditioner")
        part = self._column("gauss_newton_part")
        ax.plot(updates, part, ":", color=_BLUE, label="Gauss-Newton part")
        ax.plot(updates, limit, "--", color=_RED, label="stability limit, full batch")
        ax.set_ylabel("sharpness (unit of the loss)")
        highest = np.nanmax(np.r_[sharpness, trained, 0.0])
        ax.set_ylim(0.0, 1.25 * highest if highest > 0 else 1.0)

    def _plot_jacobian(self, ax: Any, updates: np.ndarray) -> None:
        ax.plot(updates, self._column("jacobian_max"), color=_BLUE, label="largest at the rows")
        mean, error = self._column("jacobian_mean"), self._column("jacobian_mean_error")
        ax.fill_between(updates, mean - error, mean + error, color=_ORANGE, alpha=0.3)
        ax.plot(updates, mean, color=_ORANGE, label="mean at the rows")
        slopes = self._column("slope_bound")
        ax.plot(updates, slopes, "--", color=_GREY, label="largest slope between rows")
        ax.set_ylabel("Jacobian norm\n(outputs per unit of input)")
        ax.set_ylim(bottom=0.0)

    def _shade_edge(self, ax: Any, updates: np.ndarray) -> None:
        limit, trained = self._column("stability_limit"), self._column("trained_sharpness")
        with np.errstate(invalid="ignore"):
            at_edge = trained >= _EDGE * limit
        middles = np.r_[updates[0], (updates[1:] + updates[:-1]) / 2, updates[-1]]
        label = f"at the edge ({_EDGE:.0%} of the limit)"
        for begin, end, shaded in zip(middles[:-1], middles[1:], at_edge, strict=True):
            if shaded:
                ax.axvspan(begin, end, color=_RED, alpha=0.08, linewidth=0, label=label)
                label = None

    def _column(self, name: str) -> np.ndarray:
        return np.array([record[name] for record in self.records], dtype=np.float64)
