import math

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sharpfit import NetworkClassifier, SharpnessMonitor
from sharpfit.monitoring import diagnose


def records(sharpness, loss, jacobian=None, limit=10.0, gauss_newton=None):
    jacobian = sharpness if jacobian is None else jacobian
    gauss_newton = sharpness if gauss_newton is None else gauss_newton
    return [
        {
            "update": 5 * place,
            "loss": loss[place],
            "sharpness": sharpness[place],
            "trained_sharpness": sharpness[place],
            "stability_limit": limit,
            "jacobian_max": jacobian[place],
            "gauss_newton_part": gauss_newton[place],
        }
        for place in range(len(sharpness))
    ]


def test_edge_of_stability_is_read():
    told = diagnose(records([2, 5, 9.5, 11, 8, 10], [3, 2, 1, 1.2, 0.9, 1.0]))
    assert told.edge_update == 10
    assert told.part_at_edge == pytest.approx(3 / 4)
    assert told.loss_rises == 2
    assert told.sharpness_ratio == 5
    assert "at update 10 (9.5 of 10)" in str(told)
    assert "75 % of the measurements since; the loss rose 2 times." in str(told)


def test_training_below_the_limit():
    told = diagnose(records([2, 3, 4], [3, 2, 1]))
    assert told.edge_update is None
    assert math.isnan(told.part_at_edge)
    assert "at most 40% of it" in str(told)
    assert "grew, from 2 to 4" in str(told)


def test_vanishing_loss_curvature_is_pointed_out():
    rows = records([4, 6, 1], [2, 1, 0.01], jacobian=[1, 3, 8], gauss_newton=[4, 6, 0.9])
    for row, curvature in zip(rows, [0.25, 0.2, 0.01], strict=True):
        row["loss_curvature"] = curvature
    told = diagnose(rows)
    assert told.jacobian_ratio == 8
    assert told.sharpness_ratio == 0.25
    assert told.gauss_newton_share == pytest.approx(0.9)
    assert "fell, from 4 to 1, with a peak of 6" in str(told)
    assert "understates how steep" in str(told)
    assert "to 0.04 times its first value" in str(told)
    assert "90% of the sharpness" in str(told)
    for row in rows:
        row["loss_curvature"] = 2.0  # that of the squared error
    assert "understates" not in str(diagnose(rows))
    together = diagnose(records([1, 2, 9], [2, 1, 0.5], jacobian=[1, 2, 3]))
    assert "understates" not in str(together)


def test_layers_and_floor_are_told():
    rows = records([2, 4], [3, 2], jacobian=[1, 2])
    for row in rows:
        row["layers"] = {"0": {"share": 0.29}, "2": {"share": 0.71}}
        row["sharpness_floor"] = 1.0
        row["loss_curvature"] = 0.1
    told = diagnose(rows)
    assert (told.layer, told.layer_share, told.floor_share) == ("2", 0.71, 0.25)
    assert "71% of the top curvature sits in layer '2'." in str(told)
    assert "alone implies 25% of the last sharpness" in str(told)


def test_missing_measurements_are_counted():
    rows = records([2, np.nan, 4], [3, np.nan, 1])
    assert "1 of 3 measurements is missing." in str(diagnose(rows))
    with pytest.raises(ValueError, match="there is 1 measurement"):
        diagnose(rows[:2])


def test_unknown_limits_are_said():
    rows = records([1, 2], [2, 1], limit=math.nan)
    assert "No stability limit is known: no optimiser was given." in str(diagnose(rows))


def test_the_reason_for_an_unknown_limit_is_said():
    module, monitor = torch.nn.Linear(2, 2), SharpnessMonitor(n_jacobian_rows=0, history=())
    groups = [
        {"params": [module.weight], "momentum": 0.5},
        {"params": [module.bias], "momentum": 0.9},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    rows = torch.eye(2), torch.tensor([0, 1])
    for _ in range(2):
        monitor.update(module, torch.nn.CrossEntropyLoss(), rows, optimizer)
    told = str(diagnose(monitor))
    assert "No stability limit is known: the groups of SGD differ in momentum." in told


def test_networks_and_monitors_are_read():
    X = np.random.default_rng(0).normal(size=(40, 3))
    monitor = SharpnessMonitor(every=2)
    network = NetworkClassifier(
        max_epochs=4, batch_size=-1, random_state=0, callbacks=[("monitor", monitor)]
    ).fit(X, (X[:, 0] > 0).astype(int))
    told = [diagnose(source) for source in (network, monitor, monitor.records_)]
    assert str(told[0]) == str(told[1]) == str(told[2])
    assert told[0].jacobian_ratio == told[1].jacobian_ratio


def test_networks_inside_estimators_and_histories_are_read():
    X = np.random.default_rng(0).normal(size=(40, 3))
    network = NetworkClassifier(
        max_epochs=3, batch_size=-1, random_state=0, callbacks=[("m", SharpnessMonitor(every=1))]
    )
    pipeline = make_pipeline(StandardScaler(), network).fit(X, X[:, 0] > 0)
    told = str(diagnose(pipeline))
    assert told == str(diagnose(pipeline[-1])) == str(diagnose(pipeline[-1].history))


@pytest.mark.parametrize(
    ("training", "error", "message"),
    [
        (None, TypeError, "training must be a network trained with .* got NoneType"),
        ("history.json", TypeError, "got str"),
        ([1.0, 2.0], TypeError, "got list"),
        ([{}], TypeError, "got list"),
        (StandardScaler(), TypeError, "no neural network"),
        ([], ValueError, "list holds no measurements"),
        (SharpnessMonitor(), ValueError, "SharpnessMonitor holds no measurements"),
        (NetworkClassifier(), ValueError, "NetworkClassifier is not trained: train with"),
    ],
)
def test_what_holds_no_measurements_is_named(training, error, message):
    with pytest.raises(error, match=message):
        diagnose(training)


def test_failed_measurements_say_why():
    rows = records([2, np.nan, 4, np.nan], [3, np.nan, 1, np.nan])
    for row in rows:
        row["problem"] = "" if np.isfinite(row["sharpness"]) else "the loss is not finite"
    told = "2 of 4 measurements are missing: the loss is not finite."
    assert told in str(diagnose(rows))
    with pytest.raises(ValueError, match="there is 1 measurement, too few to read; 1 failed: the"):
        diagnose(rows[:2])
    with pytest.raises(ValueError, match=r"there is 1 measurement, .* measure more often"):
        diagnose(rows[:1])


def test_parts_beyond_the_whole_and_peaks_at_the_start():
    told = str(diagnose(records([4, 3, 2], [3, 2, 1], gauss_newton=[4, 3, 2.5])))
    assert "the Gauss-Newton part is 125% of the sharpness; -25% is from" in told
    assert "peak" not in told


def test_a_part_of_no_sharpness_is_not_told():
    told = diagnose(records([2, 1, 0.0], [3, 2, 1], gauss_newton=[2, 1, 0.0]))
    assert math.isnan(told.gauss_newton_share)
    assert "nan" not in str(told)
