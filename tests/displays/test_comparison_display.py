"""The figures of a comparison show the numbers of its tables."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from sharpfit import ComparisonDisplay
from sharpfit.comparison import Comparison

RNG = np.random.default_rng(0)
TABLE = {
    "lr": [0.1, 0.2, 0.4] * 4,
    "width": [8] * 6 + [16] * 6,
    "sharpness": RNG.lognormal(sigma=4, size=12),
    "margin": RNG.normal(size=12),
    "gap": RNG.normal(size=12),
}
COMPARISON = Comparison.from_table(TABLE, ["sharpness", "margin"], hyperparameters=["lr", "width"])


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_points_are_the_runs():
    display = ComparisonDisplay.from_comparison(COMPARISON).plot("margin", colour_by="width")
    points = np.concatenate([c.get_offsets() for c in display.ax_.collections])
    expected = np.column_stack([TABLE["margin"], TABLE["gap"]])
    np.testing.assert_allclose(points[np.lexsort(points.T)], expected[np.lexsort(expected.T)])
    value = COMPARISON.correlations().set_index("measure").loc["margin", "value"]
    assert f"tau {value:.2f}" in display.ax_.get_title()
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == ["8", "16"]


def test_wide_measures_have_a_logarithmic_axis():
    assert ComparisonDisplay(COMPARISON).plot("sharpness").ax_.get_xscale() == "log"


def test_forest_is_the_table_of_correlations():
    display = ComparisonDisplay(COMPARISON).plot_correlations(kind="spearman")
    table = COMPARISON.correlations("spearman")
    segments = [line for line in display.ax_.lines if len(line.get_xdata()) == 2]
    drawn = [tuple(line.get_xdata()) for line in segments[: len(table)]]
    np.testing.assert_allclose(drawn, table[["low", "high"]].to_numpy())
    assert "Spearman" in display.ax_.get_xlabel()


def test_one_panel_a_hyperparameter():
    display = ComparisonDisplay(COMPARISON).plot_panels("margin")
    tau = COMPARISON.granulated("margin").by_hyperparameter
    adjusted = COMPARISON.tests().set_index(["measure", "hyperparameter"])["adjusted_p_value"]
    for ax, name in zip(display.ax_, ["lr", "width"], strict=True):
        assert ax.get_title().startswith(f"{name}\ntau within = {tau[name]:.2f} [")
        assert ax.get_title().endswith(f"adjusted p = {adjusted['margin', name]:.2g}")


def test_panels_of_a_measure_that_some_runs_lack_have_no_p_value():
    table = TABLE | {"partly": [np.nan, *TABLE["margin"][1:]]}
    comparison = Comparison.from_table(table, ["margin", "partly"], hyperparameters=["lr", "width"])
    display = ComparisonDisplay(comparison).plot_panels("partly")
    assert "adjusted" not in display.ax_[0].get_title()
    drawn_at_random = Comparison.from_table(
        TABLE | {"lr": range(12), "width": range(12)}, ["margin"], hyperparameters=["lr", "width"]
    )
    display = ComparisonDisplay(drawn_at_random).plot_panels("margin")
    assert "adjusted" not in display.ax_[0].get_title()


def test_points_of_the_forest_are_filled_where_the_adjusted_p_value_is_small():
    table = TABLE | {"good": np.array(TABLE["gap"]) + 0.01 * RNG.normal(size=12)}
    comparison = Comparison.from_table(table, ["sharpness", "good", "margin"])
    display = ComparisonDisplay(comparison).plot_correlations()
    filled = [
        line.get_markerfacecolor() != "white"
        for line in display.ax_.lines
        if line.get_marker() == "o"
    ]
    adjusted = comparison.correlations()["adjusted_p_value"]
    assert filled == (adjusted <= 0.05).tolist() == [True, False, False]


def test_bad_names():
    with pytest.raises(ValueError, match="'depth' is no hyper-parameter"):
        ComparisonDisplay(COMPARISON).plot("margin", colour_by="depth")
    with pytest.raises(ValueError, match="'path_norm' was not measured"):
        ComparisonDisplay(COMPARISON).plot("path_norm")
    without = Comparison.from_table(TABLE, ["margin"])
    with pytest.raises(ValueError, match="no panels"):
        ComparisonDisplay(without).plot_panels("margin")


def test_levels_without_order_have_colours_without_order():
    table = TABLE | {"way": ["none", "dropout", "mixup"] * 4}
    comparison = Comparison.from_table(table, ["margin"], hyperparameters=["way"])
    display = ComparisonDisplay(comparison).plot("margin", colour_by="way")
    colours = [collection.get_facecolor()[0, :3] for collection in display.ax_.collections]
    np.testing.assert_allclose(colours, plt.get_cmap("tab10")(range(3))[:, :3])
