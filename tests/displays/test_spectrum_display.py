import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from sharpfit import AttributionDisplay, HessianSpectrum, NetworkClassifier, SpectrumDisplay

mpl.use("Agg")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
LABELS = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)


@pytest.fixture(scope="module")
def analysis():
    network = NetworkClassifier(module__hidden=(6,), max_epochs=3, random_state=0)
    return HessianSpectrum(network, n_eigenvalues=4, density=True, random_state=0).fit(X, LABELS)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def error_bars(ax):
    """Middle, lower and upper end of every error bar on the axes, by rank."""
    ends = {}
    for container in ax.containers:
        for (rank, low), (_, high) in container.lines[2][0].get_segments():
            ends[int(rank)] = (low, high)
    return ends


def test_bars_are_eigenvalues_and_residual_norms(analysis):
    display = SpectrumDisplay.from_estimator(analysis).plot()
    bars = error_bars(display.ax_)
    assert sorted(bars) == [1, 2, 3, 4]
    for rank, (low, high) in bars.items():
        assert (low + high) / 2 == pytest.approx(analysis.eigenvalues_[rank - 1])
        assert (high - low) / 2 == pytest.approx(
            analysis.residual_norms_[rank - 1], abs=1e-12 * high
        )
    assert display.ax_.get_title() == "Largest eigenvalues of the Hessian"
    assert display.ax_.get_xlabel() == "rank"
    assert "unit of the loss" in display.ax_.get_ylabel()
    assert display.figure_ is display.ax_.figure


def test_values_outside_the_tolerance_look_different():
    display = SpectrumDisplay(
        eigenvalues=np.array([3.0, 2.0]),
        residual_norms=np.array([0.0, 0.5]),
        converged=np.array([True, False]),
        matrix="gauss_newton",
        which="magnitude",
    ).plot()
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels == ["within tolerance", "outside tolerance"]
    assert error_bars(display.ax_)[2] == (1.5, 2.5)
    faces = [container.lines[0].get_markerfacecolor() for container in display.ax_.containers]
    assert faces[1] == "white" != faces[0]
    assert display.ax_.get_title() == "Eigenvalues of largest magnitude of the Gauss-Newton matrix"


def test_density_is_drawn_on_given_axes(analysis):
    _, ax = plt.subplots()
    display = analysis.plot(ax, kind="density")
    assert display.ax_ is ax
    assert ax.get_yscale() == "log"
    curve = ax.lines[0].get_ydata()
    peak = np.argmax(analysis.density_.density)
    assert curve[peak] == analysis.density_.density[peak]
    np.testing.assert_array_equal(ax.lines[1].get_xdata(), analysis.eigenvalues_)
    assert "density" in ax.get_ylabel()
    assert "smoothed by" in ax.get_title()


def test_frames_hold_the_numbers(analysis):
    display = SpectrumDisplay.from_estimator(analysis)
    frame = display.frame()
    np.testing.assert_array_equal(frame["eigenvalue"], analysis.eigenvalues_)
    np.testing.assert_array_equal(frame["residual_norm"], analysis.residual_norms_)
    assert list(frame.index) == [1, 2, 3, 4]
    density = display.frame(kind="density")
    np.testing.assert_array_equal(density["density"], analysis.density_.density)
    np.testing.assert_array_equal(density["grid"], analysis.density_.grid)


def test_attribution_bars_are_contributions(analysis):
    display = SpectrumDisplay.from_estimator(analysis).plot(kind="attribution")
    table = analysis.attribution()
    widths = [patch.get_width() for patch in display.ax_.patches]
    np.testing.assert_allclose(widths, table["contribution"])
    assert sum(widths) == pytest.approx(analysis.eigenvalues_[0])
    labels = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert labels == list(table["parameter"])
    assert "unit of the loss" in display.ax_.get_xlabel()
    assert list(display.frame(kind="attribution").columns) == list(table.columns)


def test_what_was_not_computed_is_said(analysis):
    display = SpectrumDisplay.from_estimator(analysis)
    display.density = None
    with pytest.raises(ValueError, match="density=True"):
        display.plot(kind="density")
    display.attribution = None
    with pytest.raises(ValueError, match="no attribution"):
        display.plot(kind="attribution")
    with pytest.raises(ValueError, match="kind='bars' must be"):
        display.frame(kind="bars")


def test_display_needs_a_fitted_analysis():
    with pytest.raises(ValueError, match="not fitted"):
        SpectrumDisplay.from_estimator(HessianSpectrum(NetworkClassifier()))


@pytest.mark.parametrize("display", [SpectrumDisplay, AttributionDisplay])
def test_networks_are_no_analyses(display):
    with pytest.raises(TypeError, match=r"expected a fitted HessianSpectrum, got NetworkClass"):
        display.from_estimator(NetworkClassifier())
