import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.spatial.distance import pdist

from sharpfit import JacobianDisplay, JacobianProfiler, NetworkClassifier, NetworkRegressor

mpl.use("Agg")

pytestmark = pytest.mark.filterwarnings("ignore:The training loss")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 4))
LABELS = np.array(["a", "b", "c"])[(X[:, 0] > 0).astype(int) + (X[:, 1] > 0)]


@pytest.fixture(scope="module")
def profiler():
    network = NetworkClassifier(module__hidden=(6,), max_epochs=5, random_state=0)
    return JacobianProfiler(network).fit(X, LABELS)


@pytest.fixture(scope="module")
def display(profiler):
    return JacobianDisplay.from_estimator(profiler, X, LABELS)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_boxes_are_the_norms_of_each_class(display, profiler):
    ax = display.plot().ax_
    assert [text.get_text() for text in ax.get_xticklabels()] == ["a", "b", "c"]
    medians = [
        line.get_ydata()[0]
        for line in ax.lines
        if len(set(line.get_ydata())) == 1 and len(line.get_ydata()) == 2
    ]
    truth = [np.median(profiler.norms_[label == LABELS]) for label in "abc"]
    assert set(np.round(truth, 9)) <= set(np.round(medians, 9))
    assert ax.get_ylabel() == "spectral norm of the Jacobian of the logits"
    assert display.figure_ is ax.figure


def test_points_are_margins_and_norms(display, profiler):
    ax = display.plot(kind="margins").ax_
    points = np.vstack([collection.get_offsets() for collection in ax.collections])
    features = profiler.transform(X)
    wrong = profiler.estimator_.predict(X) != LABELS
    assert len(ax.collections[1].get_offsets()) == wrong.sum() > 0
    assert np.all(ax.collections[1].get_offsets()[:, 0] <= 0)
    margins = features[:, 2] * features[:, 3]  # of the predicted class: known where it is right
    assert set(np.round(margins[~wrong], 5)) <= set(np.round(points[:, 0].astype(float), 5))
    np.testing.assert_allclose(np.sort(points[:, 1]), np.sort(profiler.norms_))
    assert "true class" in ax.get_xlabel()


def test_slopes_are_an_empirical_distribution(display, profiler):
    ax = display.plot(kind="slopes").ax_
    values, levels = ax.lines[0].get_data()
    logits = profiler.estimator_.forward(X).numpy()
    truth = np.quantile(pdist(logits) / pdist(X), [0.25, 0.5, 0.9], method="inverted_cdf")
    np.testing.assert_allclose(np.interp([0.25, 0.5, 0.9], levels, values), truth, rtol=5e-3)
    lines = {line.get_label().split(":")[0]: line.get_xdata()[0] for line in ax.lines[1:]}
    assert lines["largest Jacobian norm at a row"] == profiler.max_norm_
    assert lines["largest slope"] == profiler.slope_bound_


def test_coverage_is_below_what_was_observed(display):
    ax = display.plot(kind="coverage").ax_
    radii, masses = ax.lines[0].get_data()
    assert np.all(np.diff(radii) > 0)
    assert masses.max() == pytest.approx(1 - np.sqrt(np.log(20) / 80))
    assert ax.lines[1].get_ydata()[-1] == 1.0


def test_frames_hold_the_numbers(display, profiler):
    pytest.importorskip("pandas")
    frame = display.frame()
    assert list(frame.columns) == ["norm", "margin", "label"]
    np.testing.assert_array_equal(frame["norm"], profiler.norms_)
    slopes = display.frame(kind="slopes")
    assert slopes["slope"].iloc[-1] == profiler.slope_bound_
    assert slopes["slope"].is_monotonic_increasing
    assert list(display.frame(kind="coverage").columns) == ["radius", "mass"]


def test_without_labels_the_predicted_class_is_named(profiler):
    display = JacobianDisplay.from_estimator(profiler, X)
    assert display.plot().ax_.get_ylabel() == "rows"
    ax = display.plot(kind="margins").ax_
    assert "predicted class" in ax.get_xlabel()
    assert len(ax.collections) == 1


def test_regressors_have_no_margins():
    network = NetworkRegressor(module__hidden=(4,), max_epochs=2, random_state=0)
    profiler = JacobianProfiler(network).fit(X, X[:, 0])
    display = JacobianDisplay.from_estimator(profiler, X, X[:, 0])
    assert display.plot().ax_.get_ylabel() == "rows"
    with pytest.raises(ValueError, match="classifiers only"):
        display.plot(kind="margins")


def test_slopes_of_margins_are_compared_with_their_gradients(profiler):
    margin = JacobianProfiler(profiler.estimator_, output="margin").fit(X, LABELS)
    ax = margin.plot(X, LABELS, kind="slopes").ax_
    lines = {line.get_label().split(":")[0]: line.get_xdata()[0] for line in ax.lines[1:]}
    assert lines == {
        "largest Jacobian norm at a row": margin.max_norm_,
        "largest slope": margin.slope_bound_,
    }
    assert "slope of the margin" in ax.get_xlabel()


def test_axes_of_the_caller_are_used(display):
    _, ax = plt.subplots()
    assert display.plot(ax, kind="coverage").ax_ is ax
    with pytest.raises(ValueError, match="kind='histogram'"):
        display.plot(kind="histogram")


def test_regressors_have_predictions():
    network = NetworkRegressor(module__hidden=(6,), max_epochs=2, random_state=0)
    targets = X[:, 0].astype(np.float32)
    for output in ("logits", "loss"):
        profiler = JacobianProfiler(network, output=output).fit(X, targets)
        display = JacobianDisplay.from_estimator(profiler, X, targets)
        assert "slope of the predictions" in display.plot(kind="slopes").ax_.get_xlabel()
        what = "loss" if output == "loss" else "predictions"
        assert display.plot().ax_.get_xlabel() == f"spectral norm of the Jacobian of the {what}"


@pytest.mark.parametrize("kind", ["norms", "margins", "slopes", "coverage"])
def test_profilers_plot_themselves(display, profiler, kind):
    _, ax = plt.subplots()
    drawn = profiler.plot(X, LABELS, ax, kind=kind)
    assert isinstance(drawn, JacobianDisplay)
    assert drawn.ax_ is ax
    assert ax.get_title() == display.plot(kind=kind).ax_.get_title() != ""
    assert drawn.frame(kind=kind).equals(display.frame(kind=kind))


def test_misspelt_figures_are_refused(profiler):
    with pytest.raises(ValueError, match="kind='norm' must be one of"):
        profiler.plot(X, LABELS, kind="norm")


def test_other_estimators_are_refused():
    with pytest.raises(TypeError, match="expected a fitted JacobianProfiler, got Network"):
        JacobianDisplay.from_estimator(NetworkClassifier(), X, LABELS)
