import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.datasets import make_moons
from sklearn.exceptions import NotFittedError

from sharpfit import BoundDisplay, GeneralisationBound, NetworkClassifier

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
    chosen = np.flatnonzero(rows & (table[column] == position))
    assert table["bound"][chosen] == pytest.approx(height)
    if form != "covering":
        tops = [layer.get_paths()[0].vertices[:, 1] for layer in ax.collections]
        assert max(top.max() for top in tops) == pytest.approx(table["bound"][rows].max())
    assert column in ax.get_xlabel()
    assert form in ax.get_title()
    assert "vacuous" in [text.get_text() for text in ax.texts]


def test_the_chosen_form_is_drawn_by_default_on_given_axes(analysis):
    figure, ax = plt.subplots()
    display = BoundDisplay.from_estimator(analysis).plot(ax)
    assert display.ax_ is ax
    assert display.figure_ is figure
    (marker,) = [line for line in ax.lines if line.get_marker() == "o"]
    assert float(marker.get_ydata()[0]) == pytest.approx(analysis.bound_)
    assert analysis.statement() in ax.get_title()


def test_frame_holds_all_forms(analysis):
    pandas = pytest.importorskip("pandas")
    frame = BoundDisplay.from_estimator(analysis).frame()
    assert isinstance(frame, pandas.DataFrame)
    terms = frame.capacity.where(np.isfinite(frame.capacity), 0.0) * frame.empirical_risk
    total = terms + frame.geometry_cost + frame.deviation
    np.testing.assert_allclose(total, frame.bound, atol=1e-9)


def test_refusals(analysis):
    with pytest.raises(ValueError, match="form='one_sided' was not evaluated"):
        BoundDisplay.from_estimator(analysis).plot(form="one_sided")
    with pytest.raises(NotFittedError):
        BoundDisplay.from_estimator(GeneralisationBound(NetworkClassifier()))
