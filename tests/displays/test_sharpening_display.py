import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from sharpfit import NetworkClassifier, SharpeningDisplay, SharpnessMonitor

mpl.use("Agg")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
LABELS = (X[:, 0] > 0).astype(int)


@pytest.fixture(scope="module")
def network():
    monitor = SharpnessMonitor(every=2)
    return NetworkClassifier(
        module__hidden=(4,),
        max_epochs=8,
        batch_size=-1,
        random_state=0,
        callbacks=[("monitor", monitor)],
    ).fit(X, LABELS)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def record(update, sharpness, limit=2.0, **values):
    names = (
        "loss",
        "sharpness_error",
        "gauss_newton_part",
        "sharpness_floor",
        "sharpness_floor_error",
        "response_jacobian_max",
        "response_slope_bound",
        "loss_slope_bound",
        "loss_curvature",
    )
    return {
        **dict.fromkeys(names, 0.5),
        "update": update,
        "sharpness": sharpness,
        "trained_sharpness": sharpness,
        "stability_limit": limit,
        **values,
    }


def test_curves_are_the_records(network):
    display = SharpeningDisplay.from_estimator(network).plot()
    records = dict(network.callbacks)["monitor"].records_
    loss, sharpness, jacobian, factors = display.axes_
    updates = [r["update"] for r in records]
    assert updates == [0, 2, 4, 6, 8]
    panels = {
        loss: ("loss",),
        sharpness: ("sharpness", "gauss_newton_part", "sharpness_floor", "stability_limit"),
        jacobian: ("response_jacobian_max", "response_slope_bound", "loss_slope_bound"),
    }
    for ax, names in panels.items():
        for line, name in zip(ax.lines, names, strict=True):
            np.testing.assert_array_equal(line.get_xdata(), updates)
            np.testing.assert_array_equal(line.get_ydata(), [r[name] for r in records])
    first = records[0]["layers"]["0"]["backward_energy"]
    (line,) = [line for line in factors.lines if "backward energy" in line.get_label()]
    np.testing.assert_allclose(
        line.get_ydata(), [r["layers"]["0"]["backward_energy"] / first for r in records]
    )
    assert factors.get_xlabel() == "update"
    assert display.frame()["share of 0"].iloc[0] == records[0]["layers"]["0"]["share"]
    assert all(ax.get_ylabel() for ax in display.axes_)
    np.testing.assert_array_equal(display.frame()["sharpness"], [r["sharpness"] for r in records])


def test_updates_at_the_edge_are_shaded():
    records = [record(0, 0.5), record(10, 1.9), record(20, 2.2), record(30, 1.0)]
    display = SharpeningDisplay(records).plot()
    # Before matplotlib 3.9 a span is a polygon and not a rectangle; both have corners.
    corners = [
        patch.get_patch_transform().transform_path(patch.get_path()).vertices[:, 0]
        for patch in display.axes_[0].patches
    ]
    spans = [(edges.min(), edges.max()) for edges in corners]
    # The first measurement belongs to the sharpening before, the last to neither phase.
    assert spans == [(0.0, 5.0), (5.0, 15.0), (15.0, 25.0)]
    colours = [patch.get_facecolor()[:3] for patch in display.axes_[0].patches]
    assert colours[0] != colours[1] == colours[2]
    labels = [text.get_text() for text in display.axes_[1].get_legend().get_texts()]
    assert labels.count("at the edge (90% of the limit)") == labels.count("sharpening") == 1


def test_preconditioned_sharpness_has_its_own_curve():
    records = [record(k, 1.0, trained_sharpness=5.0) for k in range(3)]
    labels = SharpeningDisplay(records).plot().axes_[1].get_legend_handles_labels()[1]
    assert "with decay and preconditioner" in labels
    plain = [record(k, 1.0) for k in range(3)]
    labels = SharpeningDisplay(plain).plot().axes_[1].get_legend_handles_labels()[1]
    assert "with decay and preconditioner" not in labels


def test_missing_measurements_leave_gaps():
    records = [
        record(0, 0.5),
        record(1, float("nan"), trained_sharpness=float("nan")),
        record(2, 1),
    ]
    display = SharpeningDisplay(records).plot()
    assert np.isnan(display.axes_[1].lines[0].get_ydata()[1])


def test_networks_without_a_monitor_are_told(network):
    plain = NetworkClassifier(max_epochs=1, random_state=0).fit(X, LABELS)
    with pytest.raises(ValueError, match="train with a SharpnessMonitor"):
        SharpeningDisplay.from_estimator(plain)
    with pytest.raises(ValueError, match="list holds no measurements"):
        SharpeningDisplay([])
    with pytest.raises(TypeError, match=r"the monitor or its records, got int"):
        SharpeningDisplay(3)
    with pytest.raises(TypeError, match="no neural network"):
        SharpeningDisplay.from_estimator(StandardScaler())


def test_networks_in_pipelines_are_drawn(network):
    pipeline = Pipeline([("network", network)])
    assert SharpeningDisplay.from_estimator(pipeline).records == network.callbacks[0][1].records_


def test_axes_can_be_given(network):
    _, axes = plt.subplots(1, 3)
    assert SharpeningDisplay.from_history(network.history).plot(axes).axes_[0] is axes[0]


def test_factors_of_the_layers_with_most_curvature_are_drawn():
    shares = {"a": 0.05, "b": 0.3, "c": 0.2, "d": 0.1, "e": 0.15, "f": 0.2}

    def record(update):
        layers = {
            name: {"share": share, "feature_energy": update + 1.0, "backward_energy": 1.0}
            for name, share in shares.items()
        }
        names = ("loss", "sharpness", "trained_sharpness", "stability_limit", "loss_curvature")
        return dict.fromkeys(names, 1.0) | {"update": update, "layers": layers | {"relu": {}}}

    display = SharpeningDisplay([record(0), record(1)]).plot()
    drawn = [line.get_label() for line in display.axes_[3].lines]
    assert drawn[1:] == [f"feature energy, layer {name}" for name in "bcef"]
    plt.close(display.figure_)


def test_records_are_no_history():
    with pytest.raises(TypeError, match="records_"):
        SharpeningDisplay.from_history([{"update": 0}])


def test_preconditioned_sharpness_leaves_the_plain_one_visible():
    records = [record(k, 2.0 + k, trained_sharpness=1e4 * k, limit=8e3) for k in range(4)]
    sharpness = SharpeningDisplay(records).plot().axes_[1]
    assert sharpness.get_yscale() == "log"
    plain = sharpness.transData.transform((0, 2.0)), sharpness.transData.transform((0, 5.0))
    assert plain[1][1] - plain[0][1] > 0.05 * sharpness.bbox.height


def test_what_was_not_measured_is_said():
    missing = dict.fromkeys(
        ("response_jacobian_max", "loss_slope_bound", "loss_curvature", "sharpness_floor"), np.nan
    )
    records = [record(k, 2.0 + k, limit=np.nan, **missing) for k in range(3)]
    axes = SharpeningDisplay(records).plot().axes_
    for ax in axes[2:]:
        assert [text.get_text() for text in ax.texts] == ["not measured"]
        assert not ax.lines
    assert "stability limit, full batch" not in axes[1].get_legend_handles_labels()[1]


@pytest.mark.parametrize("every", [1, 4, 20, 40])
def test_slow_growth_is_sharpening_however_often_was_measured(every):
    # From 2 to 4 in 200 updates, and then as it is.
    records = [
        record(update, min(2 + update / 100, 4.0), limit=20.0) for update in range(0, 401, every)
    ]
    display = SharpeningDisplay(records)
    for measured, phase in zip(records, display._phases(), strict=True):
        if 0 < measured["update"] < 175:
            assert phase == "sharpening"
        if measured["update"] > 200 + max(every, 20):
            assert phase == ""


def test_limits_far_above_are_told():
    shown = SharpeningDisplay([record(k, 1.0, limit=2.5) for k in range(3)]).plot().axes_[1]
    assert shown.get_ylim()[1] > 2.5
    told = SharpeningDisplay([record(k, 1.0, limit=38.0) for k in range(3)]).plot().axes_[1]
    assert told.get_ylim()[1] < 2
    assert "stability limit, full batch: above, 38" in told.get_legend_handles_labels()[1]


def test_single_measurements_are_seen():
    axes = SharpeningDisplay([record(0, 1.0)]).plot().axes_
    assert all(line.get_marker() == "." for ax in axes for line in ax.lines)


def test_numbers_of_axes_are_checked():
    display = SharpeningDisplay([record(0, 1.0), record(1, 1.0)])
    _, grid = plt.subplots(2, 2)
    assert display.plot(grid).axes_[3] is grid[1, 1]
    _, one = plt.subplots()
    with pytest.raises(ValueError, match="axes holds 1 axes, expected three or four"):
        display.plot(one)
