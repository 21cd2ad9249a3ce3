"""Figures of the study of flat minima, from its tables."""

from itertools import product
from typing import Any

import matplotlib.pyplot as plt
import pandas
from runs import RESULTS

from sharpfit import ComparisonDisplay
from sharpfit.comparison import Comparison

NETWORKS = {
    "mlp": "MLP, MNIST",
    "cnn": "VGG-like CNN, digits",
    "resnet": "ResNet, digits",
    "cnn_mnist": "VGG-like CNN, MNIST",
}
MEASURES = ("sharpness", "largest_jacobian")
GAPS = {"error_gap": "test minus training error", "loss_gap": "test minus training loss"}
# File name, sweep, and the hyper-parameter that colours the points.
FIGURES = (
    ("weight_decay_updates", "weight decay x learning rate, equal updates", "weight_decay"),
    ("weight_decay_loss", "weight decay x learning rate, equal training loss", "weight_decay"),
    ("batch_size_updates", "batch size, equal updates", "batch_size"),
    ("batch_size_epochs", "batch size, equal epochs", "batch_size"),
    ("regularisers", "six regularisers", "regulariser"),
    ("jacobian_penalty", "intervention: jacobian_penalty", "jacobian_penalty"),
)


def draw_all(tables: dict[str, dict[str, Any]]) -> None:
    """Write every figure to ``results/``.

    Parameters
    ----------
    tables : dict of str to dict of str to pandas.DataFrame
        Runs that count, by network and sweep.
    """
    for name, sweep, colour_by in FIGURES:
        figure = scatter({network: parts[sweep] for network, parts in tables.items()}, colour_by)
        figure.suptitle(sweep)
        _save(figure, name)
    _save(correlations(pandas.read_csv(RESULTS / "flat_minima_measures.csv")), "measures")


def scatter(tables: dict[str, Any], colour_by: str) -> Any:
    """Draw sharpness and Jacobian against both gaps, a row a network."""
    figure, axes = plt.subplots(
        len(tables), 4, figsize=(12.5, 2.7 * len(tables)), layout="constrained", squeeze=False
    )
    for row, (network, table) in zip(axes, tables.items(), strict=True):
        for ax, (gap, measure) in zip(row, product(GAPS, MEASURES), strict=True):
            comparison = Comparison.from_table(
                table, MEASURES, gap=gap, hyperparameters=[colour_by]
            )
            ComparisonDisplay(comparison).plot(measure, colour_by=colour_by, ax=ax)
            ax.set_title(NETWORKS[network], fontsize="medium")
            ax.set_ylabel(GAPS[gap])
            ax.get_legend().remove()
        row[-1].legend(
            title=colour_by.replace("_", " "),
            fontsize="small",
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
        )
    return figure


def correlations(table: Any) -> Any:
    """Draw Kendall's tau of every measure with both gaps, a panel a network."""
    networks = list(dict.fromkeys(table["network"]))
    # A measure that does not vary within a seed has no place.
    order = table[table["gap"] == "error_gap"].groupby("measure")["value"].mean().dropna()
    order = order.sort_values()
    size = (3.0 + 2.6 * len(networks), 1.5 + 0.24 * len(order))
    figure, axes = plt.subplots(
        1, len(networks), figsize=size, sharey=True, layout="constrained", squeeze=False
    )
    for ax, network in zip(axes[0], networks, strict=True):
        for shift, gap, colour in ((0.15, "error_gap", "C0"), (-0.15, "loss_gap", "C1")):
            rows = table[(table["network"] == network) & (table["gap"] == gap)]
            rows = rows.set_index("measure").reindex(order.index)
            places = [place + shift for place in range(len(rows))]
            ax.hlines(places, rows["low"], rows["high"], color=colour, alpha=0.6, linewidth=2)
            ax.plot(rows["value"], places, "o", color=colour, markersize=4, label=GAPS[gap])
        ax.axvline(0, color="0.4", linewidth=0.8)
        ax.set(
            xlim=(-1, 1),
            title=NETWORKS[network],
            xlabel="Kendall's tau with the gap",
            ylim=(-1, len(order)),
        )
        ax.set_yticks(range(len(order)), [name.replace("_", " ") for name in order.index])
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.suptitle("All runs of equal updates; tau within seeds, 95 % bootstrap intervals")
    return figure


def _save(figure: Any, name: str) -> None:
    figure.savefig(RESULTS / f"flat_minima_{name}.png", dpi=80)
    plt.close(figure)
