"""Figures of where an eigenvalue sits, and of how layers relate to the Jacobian."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from sharpfit.analysers import HessianSpectrum
from sharpfit.displays.analyses import check_analysis

__all__ = ["AttributionDisplay"]

_MATRICES = {"hessian": "Hessian", "gauss_newton": "Gauss-Newton matrix"}
_COLOUR = "#4c78a8"
_MARK = "#e45756"
_HEIGHT, _ROW_HEIGHT = 4.0, 0.3
_BARS = {"tensor": "parameter", "layer": "layer", "output": "output"}
_FACTORS = {
    "trace": "o",
    "feature_energy": "s",
    "backward_energy": "^",
    "loss_curvature": "v",
    "alignment": "D",
}


class AttributionDisplay:
    """A table of `HessianSpectrum.attribution` as a figure.

    Splits over tensors, layers and outputs are bars, with error bars where the table has them and
    the Gauss-Newton part of outputs marked. A split over samples is the share of the eigenvalue
    that the samples carry which contribute most. Factors of the layers are points on a
    logarithmic axis. The inequality between curvature and Jacobian is points below a line of
    equality; the alignment of layers the distance between two curves on a logarithmic axis.

    Parameters
    ----------
    table : mapping of str to array
        As from `HessianSpectrum.attribution`.
    by : {"tensor", "layer", "sample", "output", "factor", "inequality", "alignment"}
        What the table is split by.
    matrix : {"hessian", "gauss_newton"}, default="hessian"
        The matrix.
    index : int or sequence of int, default=0
        Positions of the eigenvalues that are split.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        Axes of the last plot.
    figure_ : matplotlib.figure.Figure
        Figure of the last plot.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sharpfit import AttributionDisplay, HessianSpectrum, NetworkClassifier
    >>> X, y = make_moons(200, noise=0.05, random_state=0)
    >>> analysis = HessianSpectrum(NetworkClassifier(max_epochs=5, random_state=0)).fit(X, y)
    >>> display = AttributionDisplay.from_estimator(analysis, by="layer").plot()
    >>> display.ax_.get_xlabel()
    'contribution (unit of the loss)'
    """

    def __init__(self, table: Any, *, by: str, matrix: str = "hessian", index: Any = 0):
        self.table = table
        self.by = by
        self.matrix = matrix
        self.index = index

    @classmethod
    def from_estimator(
        cls, analysis: HessianSpectrum, *, index: Any = 0, by: str = "tensor", **rows: Any
    ) -> "AttributionDisplay":
        """Take the table from a fitted analysis.

        Parameters
        ----------
        analysis : HessianSpectrum
            Fitted.
        index : int or sequence of int, default=0
            Position of the eigenvalue, or positions to average over.
        by : str, default="tensor"
            What to split by; see `HessianSpectrum.attribution`.
        **rows : dict
            ``X``, ``y`` and ``sample_weight``, by default those of the fit.

        Returns
        -------
        AttributionDisplay
        """
        check_analysis(analysis, HessianSpectrum, "eigenvalues_")
        table = analysis.attribution(index, by=by, **rows)
        return cls(table, by=by, matrix=analysis.matrix, index=index)

    def frame(self) -> Any:
        """Return the table.

        Returns
        -------
        pandas.DataFrame
        """
        import pandas as pd

        return pd.DataFrame(self.table)

    def plot(self, ax: Any = None) -> "AttributionDisplay":
        """Draw the table.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; new ones by default.

        Returns
        -------
        AttributionDisplay

        Raises
        ------
        ValueError
            If `by` is unknown.
        """
        draw = {
            "sample": self._plot_samples,
            "factor": self._plot_factors,
            "inequality": self._plot_inequality,
            "alignment": self._plot_alignment,
        } | dict.fromkeys(_BARS, self._plot_bars)
        if self.by not in draw:
            raise ValueError(f"by={self.by!r} must be one of {sorted(draw)}.")
        if ax is None:
            listed = len(self.table["layer"]) if self.by == "factor" else 0
            listed = len(self.table[_BARS[self.by]]) if self.by in _BARS else listed
            size = (6.4, max(_HEIGHT, 1.5 + _ROW_HEIGHT * listed))
            _, ax = plt.subplots(figsize=size, layout="constrained")
        draw[self.by](ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _subject(self) -> str:
        ranks = [str(int(position) + 1) for position in np.atleast_1d(self.index)]
        matrix, total = _MATRICES[self.matrix], float(np.sum(self.table["contribution"]))
        if len(ranks) > 1:
            return f"Eigenvalues {', '.join(ranks)} of the {matrix}, mean {total:.3g}"
        return f"Eigenvalue {ranks[0]} of the {matrix}, {total:.3g}"

    def _plot_bars(self, ax: Any) -> None:
        names = self.table[_BARS[self.by]]
        parts = np.asarray(self.table["contribution"])
        places = np.arange(len(names))
        ax.barh(places, parts, xerr=self.table.get("error"), color=_COLOUR, capsize=3)
        ends = np.maximum(parts, 0.0)  # beyond which shares are written
        if "gauss_newton" in self.table:
            first_order = self.table["gauss_newton"]
            ends = np.maximum(ends, first_order)
            ax.plot(first_order, places, "|", color=_MARK, markersize=14, label="Gauss-Newton part")
            ax.legend()
        for place, end, share in zip(places, ends, self.table["share"], strict=True):
            ax.annotate(
                f"{100 * share:.1f} %",
                (end, place),
                xytext=(8, 0),
                textcoords="offset points",
                va="center",
            )
        ax.margins(x=0.15)
        ax.set_yticks(places, names)
        ax.invert_yaxis()
        ax.set_xlabel("contribution (unit of the loss)")
        ax.set_ylabel({"tensor": "parameter tensor"}.get(self.by, self.by))
        ax.set_title(f"{self._subject()}, by {self.by}")

    def _plot_samples(self, ax: Any) -> None:
        parts = np.asarray(self.table["contribution"])
        total, count = parts.sum(), len(parts)
        # The largest shares first, which are the most negative parts of a negative eigenvalue.
        ranked = np.sort(parts) if total < 0 else np.sort(parts)[::-1]
        carried = np.cumsum(ranked) / total if total else np.zeros(count)
        ranks = np.arange(count + 1)
        ax.plot(ranks, np.concatenate([[0.0], carried]), color=_COLOUR, label="largest first")
        ax.plot([0, count], [0, 1], "--", color="0.6", label="all samples alike")
        if total:
            half = int(np.argmax(carried >= 0.5)) + 1
            label = f"{half} of {count} carry half"
            ax.plot(half, carried[half - 1], "o", color=_MARK, label=label)
        ax.set_xlabel("number of samples")
        ax.set_ylabel("share of the eigenvalue")
        ax.set_title(f"{self._subject()}, by sample")
        ax.legend(loc="lower right")

    def _plot_factors(self, ax: Any) -> None:
        places = np.arange(len(self.table["layer"]))
        for name, marker in _FACTORS.items():
            filled = _COLOUR if name == "trace" else "none"
            ax.plot(
                self.table[name],
                places,
                marker,
                color=_COLOUR if name == "trace" else "0.3",
                markerfacecolor=filled,
                label=name.replace("_", " "),
            )
        ax.set_xscale("log")
        ax.set_yticks(places, self.table["layer"])
        ax.margins(y=0.3)
        ax.invert_yaxis()
        ax.set_xlabel("trace of the layer's block, and factors it is the product of")
        ax.set_ylabel("dense layer")
        ax.set_title("Gauss-Newton trace of the dense layers")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)

    def _plot_inequality(self, ax: Any) -> None:
        layer, bound, jacobian, applies = (
            np.asarray(self.table[name]) for name in ("layer", "bound", "jacobian", "applies")
        )
        drawn = (bound > 0) & (jacobian > 0)
        for name in dict.fromkeys(layer):
            chosen = drawn & (layer == name)
            held = bool(applies[layer == name].all())
            label = f"layer {name}" if held else f"layer {name}, assumptions not met"
            style = {} if held else {"markerfacecolor": "none"}
            ax.plot(bound[chosen], jacobian[chosen], "o", markersize=4, label=label, **style)
        if drawn.any():
            ax.set_xscale("log")
            ax.set_yscale("log")
            ends = [bound[drawn].min(), bound[drawn].max()]
            ax.plot(ends, ends, "--", color="0.6", label="equality")
        ax.set_xlabel("what the curvature of the layer allows")
        ax.set_ylabel("squared Jacobian norm, root-curvature weighted")
        ax.set_title("Curvature bounds the input-output Jacobian")
        ax.legend()

    def _plot_alignment(self, ax: Any) -> None:
        product, norm = (
            np.asarray(self.table[name]) for name in ("product_of_norms", "jacobian_norm")
        )
        order = np.argsort(-norm)
        ranks = np.arange(1, len(norm) + 1)
        ax.plot(ranks, product[order], ".", color=_MARK, label="product of the layers' norms")
        ax.plot(ranks, norm[order], ".", color=_COLOUR, label="norm of the layers' product")
        if norm.any():
            ax.set_yscale("log")
        ax.set_xlabel("samples, largest norm first")
        ax.set_ylabel("Jacobian norm")
        middle = float(np.median(self.table["alignment"]))
        ax.set_title(f"Alignment of the layers: the ratio, median {middle:.2g}")
        ax.legend()
