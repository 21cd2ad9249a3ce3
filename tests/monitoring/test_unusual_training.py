"""Trainings that are out of the ordinary: the monitor records them and leaves them alone."""

import copy
import math
import random

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import EarlyStopping
from torch import nn
from torch.utils.data import Dataset

from sharpfit import NetworkClassifier, SharpnessMonitor
from sharpfit.curvature import HessianOperator

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype(np.float32)
CODES = (X[:, 0] > 0).astype(int)
ROWS, TARGETS = torch.as_tensor(X), torch.as_tensor(CODES)


def module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def net(monitor=None, kind=NeuralNetClassifier, **settings):
    callbacks = [] if monitor is None else [("monitor", monitor)]
    return kind(
        settings.pop("module", None) or module(),
        criterion=settings.pop("criterion", nn.CrossEntropyLoss),
        max_epochs=settings.pop("max_epochs", 4),
        batch_size=settings.pop("batch_size", -1),
        lr=settings.pop("lr", 0.5),
        train_split=settings.pop("train_split", None),
        verbose=0,
        callbacks=callbacks,
        **settings,
    )


def weights(trained):
    return [p.detach().clone() for p in trained.module_.parameters()]


def top_eigenvalue(network, criterion):
    operator = HessianOperator(copy.deepcopy(network).double(), criterion, ROWS.double(), TARGETS)
    return float(torch.linalg.eigvalsh(operator.to_dense())[-1])


def test_losses_that_are_not_a_number_from_the_start_are_recorded():
    broken = X.copy()
    broken[3, 1] = np.nan
    plain = net().fit(broken, CODES)
    monitor = SharpnessMonitor(every=1)
    with pytest.warns(UserWarning, match="at update 0: the loss is not finite: row 3 of inputs"):
        watched = net(monitor).fit(broken, CODES)
    assert len(watched.history) == len(plain.history)
    assert len(monitor.records_) == 5
    assert all(math.isnan(record["sharpness"]) for record in monitor.records_)
    assert all("remove the row" in record["problem"] for record in monitor.records_)
    for before, after in zip(weights(plain), weights(watched), strict=True):
        torch.testing.assert_close(before, after, rtol=0, atol=0, equal_nan=True)


class Hungry(nn.Module):
    """Runs out of memory when it is evaluated, from a given evaluation on."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 2)
        self.full = False

    def forward(self, rows):
        if self.full and not self.training:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.layer(rows)


def test_training_goes_on_where_a_measurement_runs_out_of_memory():
    hungry, data = Hungry(), (ROWS, TARGETS)
    optimizer = torch.optim.SGD(hungry.parameters(), lr=0.5)
    criterion, monitor = nn.CrossEntropyLoss(), SharpnessMonitor()
    records = []
    for step in range(3):
        hungry.full = step == 1
        if hungry.full:
            with pytest.warns(UserWarning, match="at update 1: out of memory; give a smaller"):
                records.append(monitor.update(hungry, criterion, data, optimizer))
        else:
            records.append(monitor.update(hungry, criterion, data, optimizer))
        optimizer.zero_grad()
        criterion(hungry.train()(ROWS), TARGETS).backward()
        optimizer.step()
    assert [record["problem"] != "" for record in records] == [False, True, False]
    assert math.isnan(records[1]["sharpness"])
    hungry.full = True
    monitor = SharpnessMonitor(every=1)
    with pytest.warns(UserWarning, match="out of memory"):
        watched = net(monitor, module=hungry).fit(X, CODES)
    assert len(watched.history) == 4
    assert len(monitor.records_) == 5


def test_automatic_mixed_precision_is_measured_in_full():
    torch.manual_seed(0)
    trained, data = module(), (ROWS, TARGETS)
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.5)
    scaler = torch.amp.GradScaler("cpu")
    criterion, monitor = nn.CrossEntropyLoss(), SharpnessMonitor()
    for _ in range(3):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            record = monitor.update(trained, criterion, data, optimizer)
            loss = criterion(trained(ROWS), TARGETS)
        truth = top_eigenvalue(trained, criterion)
        assert abs(record["sharpness"] - truth) <= record["sharpness_error"]
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()


def test_accumulated_gradients_stay():
    trained, data = module(), (ROWS, TARGETS)
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.5)
    criterion, monitor = nn.CrossEntropyLoss(), SharpnessMonitor()
    for part in ROWS.split(10):
        (criterion(trained(part), TARGETS[: len(part)]) / 4).backward()
        kept = [p.grad.clone() for p in trained.parameters()]
        monitor.update(trained, criterion, data, optimizer, n_updates=0)
        assert all(torch.equal(p.grad, g) for p, g in zip(trained.parameters(), kept, strict=True))
    optimizer.step()
    assert monitor.n_updates_ == 0
    assert monitor.update(trained, criterion, data, optimizer)["update"] == 1


def test_groups_of_different_rates_have_one_limit():
    trained = module()
    groups = [
        {"params": trained[0].parameters(), "lr": 0.5},
        {"params": trained[2].parameters(), "lr": 0.1},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    record = SharpnessMonitor(tol=1e-4).update(
        trained, nn.CrossEntropyLoss(), (ROWS, TARGETS), optimizer
    )
    operator = HessianOperator(trained.double(), nn.CrossEntropyLoss(), ROWS.double(), TARGETS)
    rates = torch.cat([torch.full((16,), 0.5), torch.full((10,), 0.1)]).double()
    scaled = rates.sqrt()[:, None] * operator.to_dense() * rates.sqrt()
    # Stable as long as the largest eigenvalue of lr^(1/2) H lr^(1/2) is below two.
    found = record["trained_sharpness"] / record["stability_limit"]
    assert found == pytest.approx(float(torch.linalg.eigvalsh(scaled)[-1]) / 2, rel=1e-3)


class Shuffling(Dataset):
    """Yields its rows in another order at every pass, and draws from all global generators."""

    def __len__(self):
        return 40

    def __getitem__(self, place):
        np.random.rand(), random.random(), torch.rand(())  # noqa: NPY002
        return X[(place + int(torch.randint(40, ()))) % 40], CODES[place]


def test_data_sets_that_draw_at_random_leave_training_as_it_is():
    def run(monitor):
        torch.manual_seed(1)
        np.random.seed(1)  # noqa: NPY002
        random.seed(1)
        trained = net(monitor, batch_size=8).fit(Shuffling(), None)
        return weights(trained), np.random.rand(), random.random()  # noqa: NPY002

    monitor = SharpnessMonitor(every=3)
    (plain, *drawn), (watched, *redrawn) = run(None), run(monitor)
    assert drawn == redrawn
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))
    assert all(math.isfinite(record["sharpness"]) for record in monitor.records_)


class Annealed(nn.Module):
    """A criterion with state: its smoothing falls with every call in training."""

    def __init__(self):
        super().__init__()
        self.register_buffer("smoothing", torch.tensor(0.4))

    def forward(self, outputs, targets):
        if outputs.requires_grad:
            self.smoothing *= 0.5
        uniform = -outputs.log_softmax(dim=1).mean()
        plain = nn.functional.cross_entropy(outputs, targets)
        return (1 - self.smoothing) * plain + self.smoothing * uniform


def test_criteria_with_weights_that_change_are_read_anew():
    criterion = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 1.0]))
    trained, monitor = module(), SharpnessMonitor()
    first = monitor.update(trained, criterion, (ROWS, TARGETS))
    criterion.weight[1] = 9.0
    second = monitor.update(trained, criterion, (ROWS, TARGETS))
    criterion.label_smoothing = 0.3
    third = monitor.update(trained, criterion, (ROWS, TARGETS))
    assert second["loss"] != first["loss"]
    expected = float(criterion(trained(ROWS), TARGETS).detach())
    assert third["loss"] == pytest.approx(expected, rel=1e-5)


def test_state_of_a_criterion_stays():
    criterion, monitor = Annealed(), SharpnessMonitor(n_jacobian_rows=0, history=())
    monitor.update(module(), criterion, (ROWS, TARGETS))
    assert float(criterion.smoothing) == pytest.approx(0.4)


def test_layers_that_change_their_settings_are_seen():
    trained = nn.Sequential(nn.Linear(3, 4), nn.LeakyReLU(0.1), nn.Linear(4, 2))
    monitor, criterion = SharpnessMonitor(), nn.CrossEntropyLoss()
    monitor.update(trained, criterion, (ROWS, TARGETS))
    trained[1].negative_slope = 0.9
    record = monitor.update(trained, criterion, (ROWS, TARGETS))
    truth = top_eigenvalue(trained, criterion)
    assert abs(record["sharpness"] - truth) <= record["sharpness_error"]
    trained[0].requires_grad_(False)
    record = monitor.update(trained, criterion, (ROWS, TARGETS))
    truth = top_eigenvalue(trained, criterion)
    assert abs(record["sharpness"] - truth) <= record["sharpness_error"]


def test_unknown_losses_have_no_implied_slope():
    monitor = SharpnessMonitor(every=2)
    net(
        monitor,
        kind=NeuralNetRegressor,
        module=nn.Linear(3, 1),
        criterion=nn.SmoothL1Loss,
    ).fit(X, X[:, :1])
    assert math.isnan(monitor.records_[-1]["loss_slope_bound"])
    assert math.isfinite(monitor.records_[-1]["slope_bound"])


def test_labels_of_one_byte_are_measured_as_others():
    X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    y = (X[:, 0] > 0).long()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    record, expected = (
        SharpnessMonitor().update(network, nn.CrossEntropyLoss(), (X, labels))
        for labels in (y.to(torch.uint8), y)
    )
    for name in ("sharpness", "loss", "jacobian_max", "loss_slope_bound"):
        assert record[name] == pytest.approx(expected[name], rel=1e-5)


@pytest.mark.parametrize(
    ("every", "updates"), [("epoch", [0, 5, 10, 15, 20]), ("2 epochs", [0, 10, 20])]
)
def test_epochs_between_measurements(every, updates):
    monitor = SharpnessMonitor(every=every)
    trained = net(monitor, batch_size=8).fit(X, CODES)
    assert [record["update"] for record in monitor.records_] == updates
    assert trained.history[-1]["sharpness"] == monitor.records_[-1]["sharpness"]
    assert SharpnessMonitor.records_of(trained.history) == monitor.records_


def test_early_stopping_ends_the_records():
    monitor = SharpnessMonitor(every=1)
    trained = net(monitor, max_epochs=50, lr=0.0)
    trained.callbacks.append(("stop", EarlyStopping("train_loss", patience=3)))
    trained.fit(X, CODES)
    assert len(trained.history) == 4
    assert [record["update"] for record in monitor.records_] == [0, 1, 2, 3, 4]


def test_searches_in_processes_keep_the_records():
    network = NetworkClassifier(
        max_epochs=3,
        batch_size=-1,
        random_state=0,
        callbacks=[("monitor", SharpnessMonitor(every=1))],
    )
    search = GridSearchCV(network, {"callbacks__monitor__tol": [0.1, 0.01]}, cv=2, n_jobs=2)
    search.fit(X, CODES)
    assert len(SharpnessMonitor.records_of(search.best_estimator_.history)) == 4
