"""Figures of a network's Jacobian over rows: norms, margins, slopes, coverage."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from sharpfit.analysers import JacobianProfiler
from sharpfit.displays.analyses import check_analysis
from sharpfit.jacobian import Coverage, Slopes

__all__ = ["JacobianDisplay"]

_COLOUR = "#4c78a8"
_MARK = "#e45756"
_KINDS = ("norms", "margins", "slopes", "coverage")


def check_kind(kind: str) -> None:
    """Refuse a figure that there is not."""
    if kind not in _KINDS:
        raise ValueError(f"kind={kind!r} must be one of {_KINDS}.")


class JacobianDisplay:
    """Jacobian norms by class and against the margin, slopes between rows, and coverage.

    Parameters
    ----------
    norms : ndarray of shape (n,)
        Spectral norms of the Jacobian of `output` at the rows.
    slopes : sharpfit.jacobian.Slopes
        Slopes of `output` (of the logits for the loss) between the rows.
    coverage : sharpfit.jacobian.Coverage
        Coverage of the distribution by a random half of the rows.
    output : {"logits", "predictions", "probabilities", "margin", "loss"}, default="logits"
        What is differentiated.
    space : {"network", "input"}, default="network"
        With respect to what.
    margins : ndarray of shape (n,), optional
        Logit margins: of the true class where `labels` are given, else of the predicted class.
    labels : ndarray of shape (n,), optional
        Classes of the rows.
    loss_slope_bound : float, optional
        Slope that follows from the losses alone.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        Axes of the last plot.
    figure_ : matplotlib.figure.Figure
        Figure of the last plot.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sharpfit import JacobianDisplay, JacobianProfiler, NetworkClassifier
    >>> X, y = make_moons(200, noise=0.1, random_state=0)
    >>> profiler = JacobianProfiler(NetworkClassifier(max_epochs=5, random_state=0)).fit(X, y)
    >>> display = JacobianDisplay.from_estimator(profiler, X, y).plot()
    >>> display.ax_.get_ylabel()
    'spectral norm of the Jacobian of the logits'
    """

    def __init__(
        self,
        *,
        norms: np.ndarray,
        slopes: Slopes,
        coverage: Coverage,
        output: str = "logits",
        space: str = "network",
        margins: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        loss_slope_bound: float | None = None,
    ):
        self.norms = norms
        self.slopes = slopes
        self.coverage = coverage
        self.output = output
        self.space = space
        self.margins = margins
        self.labels = labels
        self.loss_slope_bound = loss_slope_bound

    @classmethod
    def from_estimator(cls, profiler: JacobianProfiler, X: Any, y: Any = None) -> "JacobianDisplay":
        """Take the numbers from a fitted profiler at rows.

        Parameters
        ----------
        profiler : JacobianProfiler
            Fitted.
        X : array-like of shape (n, ...)
            Rows.
        y : array-like of shape (n,), optional
            Targets of the network; norms are then shown by class, and margins are those of the
            true class.

        Returns
        -------
        JacobianDisplay
        """
        check_analysis(profiler, JacobianProfiler, "estimator_")
        rows = profiler.profile(X, y)
        margins, bound = rows.logits.margin, rows.loss_slope_bound
        if profiler.output == "margin":
            bound = None  # it is one of probabilities, and so of logits
        is_regression = margins is None
        return cls(
            norms=rows.norms.spectral,
            slopes=rows.slopes,
            coverage=profiler.coverage(X),
            output="predictions"
            if is_regression and profiler.output == "logits"
            else profiler.output,
            space=profiler.space,
            margins=margins,
            labels=None if y is None or margins is None else np.asarray(y),
            loss_slope_bound=None if bound is None else float(bound),
        )

    def frame(self, *, kind: str = "norms") -> Any:
        """Return the numbers behind a figure.

        Parameters
        ----------
        kind : {"norms", "margins", "slopes", "coverage"}, default="norms"
            The figure.

        Returns
        -------
        pandas.DataFrame
            One row per row of the data, per quantile of the slopes, or per radius.
        """
        import pandas as pd

        self._check_kind(kind)
        if kind == "slopes":
            levels, values = self._slope_quantiles()
            return pd.DataFrame({"level": levels, "slope": values})
        if kind == "coverage":
            radii, masses = self.coverage.curve()
            return pd.DataFrame({"radius": radii, "mass": masses})
        columns = {"norm": self.norms}
        for name, values in (("margin", self.margins), ("label", self.labels)):
            if values is not None:
                columns[name] = values
        return pd.DataFrame(columns)

    def plot(self, ax: Any = None, *, kind: str = "norms") -> "JacobianDisplay":
        """Draw a figure.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure by default.
        kind : {"norms", "margins", "slopes", "coverage"}, default="norms"
            Distribution of the norms (by class where labels are known); norms against margins;
            distribution of the slopes between rows; mass guaranteed within a radius.

        Returns
        -------
        JacobianDisplay
        """
        self._check_kind(kind)
        if ax is None:
            _, ax = plt.subplots(figsize=(6.0, 4.0), layout="constrained")
        getattr(self, f"_draw_{kind}")(ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _draw_norms(self, ax: Any) -> None:
        if self.labels is None:
            ax.hist(self.norms, bins=30, color=_COLOUR)
            ax.set_xlabel(self._norm_label())
            ax.set_ylabel("rows")
            ax.set_title("Jacobian norms at the rows")
            return
        classes = np.unique(self.labels)
        ax.boxplot(
            [self.norms[self.labels == label] for label in classes],
            whis=(5, 95),
            patch_artist=True,
            boxprops={"facecolor": _COLOUR, "alpha": 0.5},
            medianprops={"color": "black"},
            flierprops={"marker": ".", "markersize": 4, "markeredgecolor": _MARK},
        )
        ax.set_xticks(np.arange(1, len(classes) + 1), [str(label) for label in classes])
        ax.set_xlabel("class")
        ax.set_ylabel(self._norm_label())
        ax.set_title("Jacobian norms at the rows\n(box: quartiles, whiskers: 5 % and 95 %)")

    def _draw_margins(self, ax: Any) -> None:
        right = self.margins > 0
        ax.scatter(self.margins[right], self.norms[right], s=12, alpha=0.5, color=_COLOUR)
        whose = "predicted class"
        if self.labels is not None:
            whose = "true class"
            ax.scatter(
                self.margins[~right],
                self.norms[~right],
                s=18,
                color=_MARK,
                marker="x",
                label=f"misclassified ({np.sum(~right)} of {len(right)})",
            )
            ax.axvline(0.0, color="black", linewidth=0.8)
            ax.legend(frameon=False)
        ax.set_xlabel(f"margin of the {whose} (logits)")
        ax.set_ylabel(self._norm_label())
        ax.set_title("Jacobian norm against margin")

    def _draw_slopes(self, ax: Any) -> None:
        levels, values = self._slope_quantiles()
        ax.plot(values, levels, color=_COLOUR, label=f"slopes of {self.slopes.n_pairs:,} pairs")
        largest = self.norms.max()
        if self.output != "loss":
            ax.axvline(
                largest,
                color=_MARK,
                linestyle="--",
                label=f"largest Jacobian norm at a row: {largest:.3g}",
            )
        ax.axvline(
            self.slopes.largest,
            color=_COLOUR,
            linestyle=":",
            label=f"largest slope: {self.slopes.largest:.3g} (a lower bound everywhere)",
        )
        if self.loss_slope_bound:
            ax.axvline(
                self.loss_slope_bound,
                color="gray",
                linestyle="-.",
                label=f"slope forced by the losses: {self.loss_slope_bound:.3g}",
            )
        ax.set_xlim(left=0)
        ax.set_ylim(0, 1.02)
        ax.set_xlabel(f"slope of the {self._values()} between two rows\n({self._per_unit()})")
        ax.set_ylabel("share of the pairs")
        ax.set_title("Slopes between rows")
        ax.legend(fontsize="small", loc="lower right", framealpha=0.95)

    def _draw_coverage(self, ax: Any) -> None:
        radii, masses = self.coverage.curve()
        confidence = 100 * self.coverage.confidence
        ax.step(
            radii,
            np.maximum(masses, 0),
            where="post",
            color=_COLOUR,
            label=f"guaranteed, {confidence:.4g} % confidence",
        )
        observed = np.arange(1, len(self.coverage.distances) + 1) / len(self.coverage.distances)
        ax.step(
            self.coverage.distances,
            observed,
            where="post",
            color="gray",
            linestyle="--",
            label="observed",
        )
        ax.set_ylim(0, 1.02)
        ax.set_xlabel("distance to the nearest row of a random half (units of the input)")
        ax.set_ylabel("mass within the distance")
        ax.set_title("How much of the distribution lies near the rows")
        ax.legend(frameon=False, loc="lower right")

    def _slope_quantiles(self) -> tuple[np.ndarray, np.ndarray]:
        levels = np.linspace(0.0, 1.0, 201)
        return levels, self.slopes.quantile(levels)

    def _norm_label(self) -> str:
        return f"spectral norm of the Jacobian of the {self.output}"

    def _values(self) -> str:
        if self.output != "loss":
            return self.output
        return "predictions" if self.margins is None else "logits"

    def _per_unit(self) -> str:
        return "per unit of the " + ("input" if self.space == "input" else "network's input")

    def _check_kind(self, kind: str) -> None:
        check_kind(kind)
        if kind == "margins" and self.margins is None:
            raise ValueError(
                "kind='margins' needs margins; they exist for classifiers only, see margins="
            )
