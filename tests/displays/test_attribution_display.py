import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from sharpfit import AttributionDisplay, HessianSpectrum, NetworkClassifier

mpl.use("Agg")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
LABELS = np.array(["a", "b", "c"])[(X[:, 0] > 0).astype(int) + (X[:, 1] > 0)]


@pytest.fixture(scope="module")
def analysis():
    network = NetworkClassifier(
        module__hidden=(6,), module__activation="tanh", max_epochs=3, random_state=0
    )
    return HessianSpectrum(network, n_eigenvalues=4, random_state=0).fit(X, LABELS)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def points(line):
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


@pytest.mark.parametrize(
    ("by", "label"), [("tensor", "parameter"), ("layer", "layer"), ("output", "output")]
)
def test_bars_add_up_to_the_eigenvalue(analysis, by, label):
    display = analysis.plot(kind="attribution", by=by, index=1)
    widths = [patch.get_width() for patch in display.ax_.patches]
    assert sum(widths) == pytest.approx(analysis.eigenvalues_[1], rel=1e-4)
    names = [tick.get_text() for tick in display.ax_.get_yticklabels()]
    assert names == [str(name) for name in display.table[label]]
    assert "unit of the loss" in display.ax_.get_xlabel()
    assert display.ax_.get_title().startswith("Eigenvalue 2 of the Hessian, ")
    assert display.figure_ is display.ax_.figure
    assert list(display.frame().columns) == list(display.table)


def test_gauss_newton_part_of_outputs_is_marked(analysis):
    display = analysis.plot(kind="attribution", by="output")
    marks, _ = points(display.ax_.lines[0])
    np.testing.assert_array_equal(marks, display.table["gauss_newton"])


def test_samples_are_cumulated_from_the_largest(analysis):
    display = analysis.plot(kind="attribution", by="sample")
    ranks, carried = points(display.ax_.lines[0])
    assert (ranks[0], ranks[-1]) == (0, 60)
    assert carried[-1] == pytest.approx(1.0)
    largest = np.max(display.table["contribution"])
    assert carried[1] == pytest.approx(largest / analysis.eigenvalues_[0], rel=1e-4)
    (half,), (share,) = points(display.ax_.lines[2])
    assert carried[half] == share >= 0.5 > carried[half - 1]


def test_factors_multiply_to_the_trace(analysis):
    display = analysis.plot(kind="attribution", by="factor")
    drawn = {line.get_label(): points(line)[0] for line in display.ax_.lines}
    product = np.prod([values for name, values in drawn.items() if name != "trace"], axis=0)
    np.testing.assert_allclose(drawn["trace"], product, rtol=1e-5)


def test_inequality_holds_below_the_line_of_equality(analysis):
    display = analysis.plot(kind="attribution", by="inequality")
    *layers, equality = display.ax_.lines
    assert [line.get_label() for line in layers] == ["layer 0", "layer 2"]
    for line in layers:
        bound, jacobian = points(line)
        assert len(bound) == 60
        assert (jacobian <= bound * (1 + 1e-6)).all()
    np.testing.assert_array_equal(*points(equality))


def test_layers_outside_the_assumptions_are_said(analysis):
    table = dict(analysis.attribution(by="inequality"))
    table["applies"] = table["layer"] == "2"
    display = AttributionDisplay(table, by="inequality").plot()
    labels = [line.get_label() for line in display.ax_.lines]
    assert labels[:2] == ["layer 0, assumptions not met", "layer 2"]


def test_alignment_is_the_distance_of_two_curves(analysis):
    display = analysis.plot(kind="attribution", by="alignment")
    product, norm = (points(line)[1] for line in display.ax_.lines)
    expected = display.table["alignment"][np.argsort(-display.table["jacobian_norm"])]
    np.testing.assert_allclose(norm / product, expected, rtol=1e-6)
    assert display.ax_.get_yscale() == "log"


def test_several_eigenvalues_and_given_axes(analysis):
    _, ax = plt.subplots()
    display = AttributionDisplay.from_estimator(analysis, index=[0, 1], by="layer").plot(ax)
    assert display.ax_ is ax
    mean = analysis.eigenvalues_[:2].mean()
    assert ax.get_title() == f"Eigenvalues 1, 2 of the Hessian, mean {mean:.3g}, by layer"


def test_what_cannot_be_drawn_is_said(analysis):
    with pytest.raises(ValueError, match="by='neuron' must be one of"):
        analysis.plot(kind="attribution", by="neuron")
    with pytest.raises(ValueError, match="by='neuron' must be one of"):
        AttributionDisplay({}, by="neuron").plot()
    with pytest.raises(ValueError, match=r"\['by'\] are for kind=\"attribution\", not 'density'"):
        analysis.plot(kind="density", by="layer")


def test_a_network_without_curvature_can_be_drawn(analysis):
    tables = {by: dict(analysis.attribution(by=by)) for by in ("sample", "inequality", "alignment")}
    for by, table in tables.items():
        for name in ("contribution", "bound", "jacobian", "jacobian_norm", "product_of_norms"):
            if name in table:
                table[name] = np.zeros(len(table[name]))
        ax = AttributionDisplay(table, by=by).plot().ax_
        assert ax.get_yscale() == "linear"


def test_samples_of_a_negative_eigenvalue():
    parts = np.array([-0.1, -5.0, 0.5, -3.0, -0.4])
    display = AttributionDisplay({"contribution": parts}, by="sample").plot()
    assert "1 of 5 carry half" in display.ax_.get_legend_handles_labels()[1]
    np.testing.assert_allclose(display.ax_.lines[0].get_ydata()[1:3], [5 / 8, 1.0])
