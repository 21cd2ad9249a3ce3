import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.datasets import make_moons
from sklearn.exceptions import NotFittedError

from sharpfit import BoundDisplay, GeneralisationBound, NetworkClassifier, NetworkRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def analysis():
    X, y = make_moons(300, noise=0.05, random_state=0)
    network = NetworkClassifier(module__hidden=(16,), max_epochs=20, random_state=0)
    return GeneralisationBound(network, lipschitz="certified").fit(X, y)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.mark.parametrize("form", ["transport", "variance", "covering", "exceptions"])
def test_stacked_terms_add_up_to_the_bound(analysis, form):
    display = BoundDisplay.from_estimator(analysis).plot(form=form)
    ax = display.ax_
    (marker,) = [line for line in ax.lines if line.get_marker() == "o"]
    position, height = float(marker.get_xdata()[0]), float(marker.get_ydata()[0])
    table = analysis.curve()
    rows = table["form"] == form
    column = "scale" if form in ("transport", "variance") else "radius"
    if form == "covering":
        assert [text.get_text() for text in ax.get_xticklabels()] == [
            f"{table[column][rows][0]:.3g}"
        ]
        assert sum(bar.get_height() for bar in ax.patches[:3]) == pytest.approx(height)
        assert height == pytest.approx(table["bound"][rows][0])
    else:
        chosen = np.flatnonzero(rows & (table[column] == position))
        assert table["bound"][chosen] == pytest.approx(height)
        tops = [layer.get_paths()[0].vertices[:, 1] for layer in ax.collections]
        assert max(top.max() for top in tops) == pytest.approx(table["bound"][rows].max())
    assert column in ax.get_xlabel()
    assert form in ax.get_title()
    assert "vacuous" in [text.get_text() for text in ax.texts]


def test_the_chosen_form_is_drawn_by_default_on_given_axes(analysis):
    figure, ax = plt.subplots()
    display = analysis.plot(ax)
    assert isinstance(display, BoundDisplay)
    assert display.ax_ is ax
    assert display.figure_ is figure
    (marker,) = [line for line in ax.lines if line.get_marker() == "o"]
    assert float(marker.get_ydata()[0]) == pytest.approx(analysis.bound_)
    assert analysis.statement() in ax.get_title()


@pytest.mark.parametrize(
    ("constant", "settings"),
    [(0.0, {"method": "covering"}), (1e9, {"method": "transport", "capacities": [np.inf]})],
)
def test_infinite_radii_and_infinite_bounds_are_drawn(analysis, constant, settings):
    X, y = make_moons(60, noise=0.05, random_state=0)
    X, y = X[y == 0], y[y == 0]
    network = NetworkClassifier(module__hidden=(16,), max_epochs=20, classes=[0, 1], random_state=0)
    extreme = GeneralisationBound(network, lipschitz=lambda *_: constant, **settings).fit(X, y)
    display = BoundDisplay.from_estimator(extreme).plot()
    display.figure_.canvas.draw()
    if constant:
        assert np.isinf(extreme.bound_)
    else:
        assert np.isinf(extreme.radius_)
        assert [text.get_text() for text in display.ax_.get_xticklabels()] == ["inf"]


def test_the_axis_names_what_is_bounded():
    X, _ = make_moons(60, noise=0.05, random_state=0)
    network = NetworkRegressor(module__hidden=(16,), max_epochs=20, random_state=0)
    analysis = GeneralisationBound(network, loss_bound=2.0).fit(X, X[:, 0])
    ax = BoundDisplay.from_estimator(analysis).plot().ax_
    assert ax.get_ylabel() == "bound on the clipped loss"
    assert "min(1, |f(x) - y| / 2)" in ax.get_title()


def test_frame_holds_all_forms(analysis):
    pandas = pytest.importorskip("pandas")
    frame = BoundDisplay.from_estimator(analysis).frame()
    assert isinstance(frame, pandas.DataFrame)
    terms = frame.capacity.where(np.isfinite(frame.capacity), 0.0) * frame.empirical_risk
    total = terms + frame.geometry_cost + frame.deviation
    np.testing.assert_allclose(total, frame.bound, atol=1e-9)


def test_refusals(analysis):
    with pytest.raises(
        ValueError, match=r"form='one_sided' was not evaluated; choose .* \['covering'"
    ):
        BoundDisplay.from_estimator(analysis).plot(form="one_sided")
    with pytest.raises(NotFittedError):
        BoundDisplay.from_estimator(GeneralisationBound(NetworkClassifier()))
    with pytest.raises(TypeError, match="expected a fitted GeneralisationBound, got Network"):
        BoundDisplay.from_estimator(NetworkClassifier())


def test_the_analysis_draws_the_form_asked_for(analysis):
    assert "exceptions" in analysis.plot(form="exceptions").ax_.get_title()
    with pytest.raises(ValueError, match="form"):
        analysis.plot(form="triangle")
