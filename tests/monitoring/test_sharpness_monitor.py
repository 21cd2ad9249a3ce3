"""The monitor against dense eigenvalues along trajectories, and training without it."""

import copy
import math
import pickle
import re

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, LRScheduler
from skorch.dataset import ValidSplit
from skorch.helper import predefined_split
from torch import nn

from sharpfit import NetworkClassifier, NetworkRegressor
from sharpfit.jacobian import jacobian_norms
from sharpfit.monitoring import SharpnessMonitor, heavy_ball_limit

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
CODES = (X[:, 0] + 0.5 * X[:, 1] ** 2 > 0.3).astype(int)
LABELS = np.array(["no", "yes"])[CODES]


class KeepWeights(Callback):
    """Keeps the weights and the optimiser's state after every update, and before the first."""

    def initialize(self):
        self.modules, self.states = [], []
        return self

    def on_batch_begin(self, net, training=False, **kwargs):
        if training and not self.modules:
            self._keep(net)

    def on_batch_end(self, net, training=False, **kwargs):
        if training:
            self._keep(net)

    def _keep(self, net):
        self.modules.append(copy.deepcopy(net.module_).double().eval())
        self.states.append(copy.deepcopy(net.optimizer_.state_dict()))


def network(*callbacks, kind=NetworkClassifier, **settings):
    return kind(
        **{
            "module__hidden": (4,),
            "module__activation": "tanh",
            "batch_size": -1,
            "max_epochs": 30,
            "lr": 1.0,
            "optimizer__momentum": 0.0,
            "random_state": 0,
            "callbacks": [(f"callback {k}", callback) for k, callback in enumerate(callbacks)],
            **settings,
        }
    )


def dense_hessian(module, loss):
    names = [name for name, _ in module.named_parameters()]
    shapes = [parameter.shape for parameter in module.parameters()]
    rows = torch.as_tensor(X)

    def objective(vector):
        parts = vector.split([shape.numel() for shape in shapes])
        weights = {n: p.view(s) for n, p, s in zip(names, parts, shapes, strict=True)}
        return loss(torch.func.functional_call(module, weights, (rows,)))

    centre = torch.nn.utils.parameters_to_vector(module.parameters()).detach()
    return torch.autograd.functional.hessian(objective, centre)


def cross_entropy(outputs):
    return nn.functional.cross_entropy(outputs, torch.as_tensor(CODES))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("lr", [1.0, 8.0])
def test_every_value_of_a_trajectory_is_within_its_error(lr):
    monitor, weights = SharpnessMonitor(every=1), KeepWeights()
    network(monitor, weights, lr=lr, max_epochs=60).fit(X, LABELS)
    assert len(monitor.records_) == 61
    for record, module in zip(monitor.records_, weights.modules, strict=True):
        eigenvalues = torch.linalg.eigvalsh(dense_hessian(module, cross_entropy))
        outputs = module(torch.as_tensor(X))
        assert record["loss"] == pytest.approx(float(cross_entropy(outputs).detach()), rel=1e-6)
        error = abs(record["sharpness"] - float(eigenvalues[-1]))
        assert error <= record["sharpness_error"] + 1e-9
        assert record["gauss_newton_part"] + record["residual_part"] == pytest.approx(
            record["sharpness"]
        )
        assert record["gauss_newton_part"] >= 0
        assert record["stability_limit"] == 2 / lr
        assert record["trained_sharpness"] == record["sharpness"]
        norms = jacobian_norms(module, torch.as_tensor(X)).spectral
        assert record["jacobian_max"] == pytest.approx(norms.max(), rel=1e-5)
        assert record["jacobian_mean"] == pytest.approx(norms.mean(), rel=1e-5)
        assert record["jacobian_mean_error"] == 0.0
        assert record["problem"] == ""
    products = [record["n_products"] for record in monitor.records_[1:]]
    assert np.median(products) <= 5
    assert np.quantile(products, 0.95) <= 8


def test_gradient_norm_and_slopes():
    monitor, weights = SharpnessMonitor(every=5), KeepWeights()
    network(monitor, weights, max_epochs=5).fit(X, LABELS)
    module = weights.modules[-1]
    outputs = module(torch.as_tensor(X))
    gradients = torch.autograd.grad(cross_entropy(outputs), list(module.parameters()))
    norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
    record = monitor.records_[-1]
    assert record["gradient_norm"] == pytest.approx(norm, rel=1e-6)
    values = outputs.detach().numpy()
    distances = np.linalg.norm(X[:, None] - X[None], axis=2) + np.eye(60)
    rises = np.linalg.norm(values[:, None] - values[None], axis=2)
    assert record["slope_bound"] == pytest.approx((rises / distances).max(), rel=1e-5)
    # What the losses imply is a bound on the slope of the probabilities.
    probabilities = np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)
    rises = np.linalg.norm(probabilities[:, None] - probabilities[None], axis=2)
    assert 0 <= record["loss_slope_bound"] <= (rises / distances).max() + 1e-9


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.RMSprop])
def test_preconditioned_sharpness(optimizer):
    monitor, weights = SharpnessMonitor(every=1), KeepWeights()
    settings = {"optimizer__momentum": 0.5} if optimizer is torch.optim.RMSprop else {}
    net = network(monitor, weights, max_epochs=6, lr=0.05)
    del net.optimizer__momentum
    net.set_params(optimizer=optimizer, optimizer__weight_decay=0.1, **settings).fit(X, LABELS)
    first = monitor.records_[0]
    assert math.isnan(first["stability_limit"])  # no step, no preconditioner
    for record, module, state in list(
        zip(monitor.records_, weights.modules, weights.states, strict=True)
    )[1:]:
        moments = []
        for entry in state["state"].values():
            if optimizer is torch.optim.Adam:
                square = entry["exp_avg_sq"] / (1 - 0.999 ** float(entry["step"]))
            else:
                square = entry["square_avg"]
            moments.append(square.sqrt().flatten().double() + 1e-8)
        scale = torch.cat(moments).rsqrt()
        hessian = dense_hessian(module, cross_entropy)
        hessian = hessian + 0.1 * torch.eye(len(hessian), dtype=torch.float64)
        top = float(torch.linalg.eigvalsh(scale[:, None] * hessian * scale)[-1])
        assert abs(record["trained_sharpness"] - top) <= record["trained_sharpness_error"]
        expected = 38 / 0.05 if optimizer is torch.optim.Adam else heavy_ball_limit(0.05, 0.5)
        assert record["stability_limit"] == pytest.approx(expected)


def test_weight_decay_and_schedules():
    monitor = SharpnessMonitor(every=1, tol=1e-4)
    schedule = LRScheduler("StepLR", step_size=1, gamma=0.5)
    settings = {"optimizer__weight_decay": 0.3, "optimizer__momentum": 0.9, "lr": 0.1}
    network(monitor, schedule, max_epochs=4, **settings).fit(X, LABELS)
    for record in monitor.records_:
        assert record["trained_sharpness"] == pytest.approx(record["sharpness"] + 0.3, rel=1e-3)
    limits = [record["stability_limit"] for record in monitor.records_]
    assert limits == pytest.approx([38.0, 38.0, 76.0, 152.0, 304.0])


def weights_after(net, targets):
    return [p.detach().clone() for p in net.fit(X.astype(np.float32), targets).module_.parameters()]


def raw_net(callbacks):
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 2)
    )
    return NeuralNetClassifier(
        module,
        criterion=nn.CrossEntropyLoss,
        max_epochs=3,
        batch_size=16,
        lr=0.1,
        iterator_train__shuffle=True,
        verbose=0,
        callbacks=callbacks,
    )


@pytest.mark.parametrize("every", [1, "auto"])
@pytest.mark.parametrize("kind", ["network", "raw net"])
def test_training_is_bit_identical_with_and_without(kind, every):
    def build(callbacks):
        if kind == "raw net":
            return raw_net(callbacks)
        return network(*callbacks, module__dropout=0.3, batch_size=16, max_epochs=3)

    def run(callbacks):
        net = build(callbacks)
        torch.manual_seed(1)
        state = weights_after(net, CODES)
        return state, torch.get_rng_state()

    plain, plain_random = run([])
    watched, random = run([SharpnessMonitor(every=every)])
    assert torch.equal(plain_random, random)
    for before, after in zip(plain, watched, strict=True):
        assert torch.equal(before, after)


def test_measured_rows_are_the_training_rows():
    monitor = SharpnessMonitor(every=1)
    net = raw_net([("monitor", monitor)]).set_params(train_split=ValidSplit(4), max_epochs=1)
    net.fit(X.astype(np.float32), CODES)
    train, _ = ValidSplit(4)(net.get_dataset(X.astype(np.float32), CODES), CODES)
    rows = torch.as_tensor(X[train.indices].astype(np.float32))
    outputs = net.infer(rows) if not net.module_.training else net.module_.eval()(rows)
    expected = nn.functional.cross_entropy(outputs, torch.as_tensor(CODES[train.indices]))
    assert monitor.records_[-1]["loss"] == pytest.approx(float(expected.detach()), rel=1e-5)


def test_data_sets_are_read():
    rows = torch.utils.data.TensorDataset(
        torch.as_tensor(X, dtype=torch.float32), torch.as_tensor(CODES)
    )
    monitor = SharpnessMonitor(every=2)
    net = raw_net([("monitor", monitor)]).set_params(
        train_split=predefined_split(rows), max_epochs=1
    )
    net.fit(rows, None)
    assert all(math.isfinite(record["sharpness"]) for record in monitor.records_)


def test_class_and_sample_weights_are_part_of_the_loss():
    monitor, weights = SharpnessMonitor(every=1), KeepWeights()
    sample_weight = RNG.uniform(0.5, 2, size=60)
    net = network(monitor, weights, class_weight={"no": 1.0, "yes": 4.0}, max_epochs=2)
    net.fit(X, LABELS, sample_weight=sample_weight)
    both = torch.as_tensor(sample_weight * np.where(CODES == 1, 4.0, 1.0))

    def loss(outputs):
        values = nn.functional.cross_entropy(outputs, torch.as_tensor(CODES), reduction="none")
        return (values * both).sum() / both.sum()

    for record, module in zip(monitor.records_, weights.modules, strict=True):
        top = float(torch.linalg.eigvalsh(dense_hessian(module, loss))[-1])
        assert abs(record["sharpness"] - top) <= record["sharpness_error"]


def test_regression():
    monitor = SharpnessMonitor(every=1)
    net = network(monitor, kind=NetworkRegressor, module__hidden=(), lr=0.01, max_epochs=2)
    net.fit(X, X[:, 0])
    design = np.column_stack([X, np.ones(60)])
    top = np.linalg.eigvalsh(2 * design.T @ design / 60)[-1]
    for record in monitor.records_:
        assert abs(record["sharpness"] - top) <= record["sharpness_error"]


def test_history_keeps_values_and_records(tmp_path):
    monitor = SharpnessMonitor(every=2)
    net = network(monitor, max_epochs=4).fit(X, LABELS)
    assert net.history[:, "sharpness"] == [monitor.records_[k]["sharpness"] for k in (0, 1, 1, 2)]
    assert all(type(value) is float for value in net.history[:, "jacobian_max"])
    assert SharpnessMonitor.records_of(net.history) == monitor.records_
    net.save_params(f_params=tmp_path / "weights.pt", f_history=tmp_path / "history.json")
    other = network(SharpnessMonitor(every=2), module=net.module_, classes=["no", "yes"])
    del other.module__hidden, other.module__activation
    other.initialize().load_params(
        f_params=tmp_path / "weights.pt", f_history=tmp_path / "history.json"
    )
    assert SharpnessMonitor.records_of(other.history) == monitor.records_


def test_table_of_the_print_log_shows_the_few_values(capsys):
    network(SharpnessMonitor(every=1), max_epochs=2, verbose=1).fit(X, LABELS)
    header = capsys.readouterr().out.splitlines()[0]
    assert "sharpness" in header
    assert "stability_limit" in header
    assert "loss_slope_bound" not in header


def test_fit_resets_and_partial_fit_appends():
    net = network(SharpnessMonitor(every=1), max_epochs=2).fit(X, LABELS)
    monitor = dict(net.callbacks_)["callback 0"]
    assert [record["update"] for record in monitor.records_] == [0, 1, 2]
    net.partial_fit(X, LABELS)
    assert [record["update"] for record in monitor.records_] == [0, 1, 2, 3, 4]
    net.fit(X, LABELS)
    monitor = dict(net.callbacks_)["callback 0"]
    assert [record["update"] for record in monitor.records_] == [0, 1, 2]
    net.set_params(warm_start=True).fit(X, LABELS)
    assert [record["update"] for record in monitor.records_] == [0, 1, 2, 3, 4]


def test_fitted_networks_are_cloned_without_what_they_measured():
    fitted = network(SharpnessMonitor(every=5, tol=0.02), max_epochs=3).fit(X, LABELS)
    copied = clone(fitted).callbacks[0][1]
    assert copied.get_params() == SharpnessMonitor(every=5, tol=0.02).get_params()
    assert not hasattr(copied, "records_")


def test_pickled_monitors_hold_no_data():
    net = network(SharpnessMonitor(every=1), max_epochs=2).fit(X, LABELS)
    monitor = dict(net.callbacks_)["callback 0"]
    other = pickle.loads(pickle.dumps(monitor))
    assert other.records_ == monitor.records_
    assert other._observer is None
    assert other._data is None
    during = pickle.loads(pickle.dumps(net))
    assert dict(during.callbacks_)["callback 0"].records_ == monitor.records_


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_searches_take_monitored_networks(n_jobs):
    net = network(SharpnessMonitor(every=5), max_epochs=5)
    search = GridSearchCV(clone(net), {"lr": [0.1, 0.5]}, cv=2, n_jobs=n_jobs).fit(X, LABELS)
    assert len(SharpnessMonitor.records_of(search.best_estimator_.history)) == 2


def test_diverged_training_goes_on_and_is_recorded():
    monitor = SharpnessMonitor(every=1)
    net = network(monitor, kind=NetworkRegressor, lr=1e100, max_epochs=6)
    with (
        pytest.warns(UserWarning, match="SharpnessMonitor has no measurement at update"),
        pytest.warns(ConvergenceWarning, match="diverged"),
    ):
        net.fit(X, X[:, 0])
    assert len(monitor.records_) == 7
    assert monitor.records_[0]["problem"] == ""
    assert "the loss is not finite" in monitor.records_[-1]["problem"]
    assert math.isnan(monitor.records_[-1]["sharpness"])


def test_hand_written_loops():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    data = torch.as_tensor(X), torch.as_tensor(CODES)
    criterion, monitor = nn.CrossEntropyLoss(), SharpnessMonitor(n_eigenvalues=2)
    for _ in range(4):
        record = monitor.update(module, criterion, data, optimizer)
        eigenvalues = torch.linalg.eigvalsh(dense_hessian(module, cross_entropy))
        assert abs(record["sharpness"] - float(eigenvalues[-1])) <= record["sharpness_error"]
        assert record["eigenvalue_2"] == pytest.approx(float(eigenvalues[-2]), rel=0.02)
        optimizer.zero_grad()
        criterion(module(data[0]), data[1]).backward()
        kept = [p.grad.clone() for p in module.parameters()]
        optimizer.step()
    assert monitor.n_updates_ == 3
    assert module.training
    assert all(torch.equal(p.grad, g) for p, g in zip(module.parameters(), kept, strict=True))
    assert math.isnan(monitor.update(module, criterion, data)["stability_limit"])


def test_half_precision_is_measured_in_single():
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).bfloat16()
    data = torch.as_tensor(X, dtype=torch.bfloat16), torch.as_tensor(CODES)
    record = SharpnessMonitor().update(module, nn.CrossEntropyLoss(), data)
    wide = copy.deepcopy(module).double()
    top = float(torch.linalg.eigvalsh(dense_hessian(wide, cross_entropy))[-1])
    assert record["sharpness"] == pytest.approx(top, rel=0.03)
    assert module[0].weight.dtype == torch.bfloat16


def test_frozen_parameters_are_left_out():
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    module[0].requires_grad_(False)
    optimizer = torch.optim.SGD(module[2].parameters(), lr=0.5)
    data = torch.as_tensor(X), torch.as_tensor(CODES)
    record = SharpnessMonitor().update(module, nn.CrossEntropyLoss(), data, optimizer)
    hessian = dense_hessian(module, cross_entropy)[16:, 16:]
    top = float(torch.linalg.eigvalsh(hessian)[-1])
    assert abs(record["sharpness"] - top) <= record["sharpness_error"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every": 0}, "every=0 must be"),
        ({"every": "0 epochs"}, "every='0 epochs' must be"),
        ({"max_overhead": 0.0}, "max_overhead=0.0 must be positive"),
        ({"max_overhead": "15%"}, "max_overhead='15%' must be positive"),
        ({"history": ("sharpnes",)}, "history names"),
        ({"history": "sharpness"}, r"history='sharpness' must be a sequence"),
        ({"history": None}, r"history=None must be a sequence"),
        ({"n_eigenvalues": "two"}, "n_eigenvalues='two' must be an int"),
        ({"n_jacobian_rows": 0}, "for n_jacobian_rows=0: leave their names out of history"),
        ({"every": True}, "every=True must be"),
        ({"tol": -1}, "tol=-1 must be positive"),
        ({"n_eigenvalues": 0}, "n_eigenvalues=0 must be an int of at least 1"),
        ({"n_rows": 0}, "n_rows=0 must be"),
        ({"n_jacobian_rows": 2.5}, "n_jacobian_rows=2.5 must be"),
        ({"memory_budget": 0}, "memory_budget=0 must be"),
        ({"memory_budget": 1}, "memory_budget=1 must be an int of at least 1024"),
        ({"random_state": None}, "random_state=None must be an int of at least 0"),
    ],
)
def test_bad_settings_are_named_before_training(settings, message):
    with pytest.raises(ValueError, match=message):
        network(SharpnessMonitor(**settings)).fit(X, LABELS)


DATA = torch.as_tensor(X, dtype=torch.float32), torch.as_tensor(CODES)


@pytest.mark.parametrize(
    ("loss", "data", "message"),
    [
        (nn.functional.cross_entropy, DATA, "loss must be a criterion"),
        (nn.CrossEntropyLoss(), DATA[0], "data must be a pair of tensors"),
        (nn.CrossEntropyLoss(), (X, CODES), "use torch.as_tensor"),
        (nn.CrossEntropyLoss(), (*DATA, DATA[1]), r"got \['Tensor', 'Tensor', 'Tensor'\]"),
        (nn.CrossEntropyLoss(), (DATA[0], DATA[1][1:]), "targets"),
        (nn.CrossEntropyLoss(), (DATA[0], torch.tensor(1)), "but 0 targets"),
        (DATA, nn.CrossEntropyLoss(), "loss must be"),
    ],
)
def test_arguments_of_an_update_are_checked(loss, data, message):
    with pytest.raises((TypeError, ValueError), match=message):
        SharpnessMonitor().update(nn.Linear(3, 2), loss, data)


def test_inference_mode_is_refused():
    with torch.inference_mode():
        made = tuple(part + 0 for part in DATA)
        with pytest.raises(ValueError, match=r"torch\.inference_mode\(\), where no derivatives"):
            SharpnessMonitor().update(nn.Linear(3, 2), nn.CrossEntropyLoss(), DATA)
    with pytest.raises(ValueError, match=r"data\.clone\(\) of tensors made inside"):
        SharpnessMonitor().update(nn.Linear(3, 2), nn.CrossEntropyLoss(), made)


SGD = torch.optim.SGD(nn.Linear(3, 2).parameters(), lr=0.1)


@pytest.mark.parametrize(
    ("optimizer", "error", "message"),
    [
        ("sgd", TypeError, "optimizer must be a torch.optim.Optimizer, got str"),
        (torch.optim.lr_scheduler.StepLR(SGD, 1), TypeError, "got StepLR; give its optimizer, a"),
        (SGD, ValueError, "holds none of the trainable parameters of module Linear"),
    ],
)
def test_optimisers_of_an_update_are_checked(optimizer, error, message):
    with pytest.raises(error, match=message):
        SharpnessMonitor().update(nn.Linear(3, 2), nn.CrossEntropyLoss(), DATA, optimizer)


@pytest.mark.parametrize("n_updates", [-3, 1.5])
def test_numbers_of_updates_are_checked(n_updates):
    with pytest.raises(ValueError, match=f"n_updates={n_updates} must be an int of at least 0"):
        SharpnessMonitor().update(nn.Linear(3, 2), nn.CrossEntropyLoss(), DATA, n_updates=n_updates)


def test_other_rows_are_refused_and_equal_ones_are_not():
    monitor, module, loss = SharpnessMonitor(), nn.Linear(3, 2), nn.CrossEntropyLoss()
    monitor.update(module, loss, DATA)
    monitor.update(module, loss, tuple(part.clone() for part in DATA))
    assert len(monitor.records_) == 2
    with pytest.raises(ValueError, match="other inputs than at the first call"):
        monitor.update(module, loss, tuple(part[:10] for part in DATA))
    continued = pickle.loads(pickle.dumps(monitor))
    continued.update(module, loss, tuple(part[:10] for part in DATA))
    assert len(continued.records_) == 3


def test_verbose_prints_a_line(capsys):
    network(SharpnessMonitor(every=1, verbose=1), max_epochs=1).fit(X, LABELS)
    assert "sharpness" in capsys.readouterr().out


@pytest.mark.parametrize(("every", "verbose", "told"), [("auto", 1, 1), ("auto", 0, 0), (3, 1, 0)])
def test_chosen_interval_is_told_where_the_network_is_verbose(every, verbose, told, capsys):
    monitor = SharpnessMonitor(every=every, max_overhead=0.5)
    network(monitor, max_epochs=4, verbose=verbose).fit(X, LABELS)
    lines = [line for line in capsys.readouterr().out.splitlines() if "SharpnessMonitor" in line]
    assert len(lines) == told
    for line in lines:
        count = len(monitor.records_)
        if count == 1:
            assert f"1 measurement in {monitor.n_updates_} updates" in line
            continue
        told, interval = re.search(r"(\d+) measurements, one in (\S+) updates", line).groups()
        assert int(told) == count
        between = monitor.records_[-1]["update"] / (count - 1)
        assert float(interval) == pytest.approx(between, rel=0.01)


@pytest.mark.parametrize("every", [1, 2, 5, 10])
def test_intervals_lie_between_measurements(every):
    monitor = SharpnessMonitor(every=every)
    network(monitor, max_epochs=10, batch_size=-1).fit(X, LABELS)
    assert monitor.interval_ == every
    assert math.isnan(SharpnessMonitor().initialize().interval_)


def test_trainings_that_are_loaded_go_on(tmp_path):
    files = {f"f_{name}": str(tmp_path / name) for name in ("params", "optimizer", "history")}
    network(SharpnessMonitor(every=5), max_epochs=10).fit(X, LABELS).save_params(**files)
    other = network(SharpnessMonitor(every=5), max_epochs=10)
    other.fit(X, LABELS).initialize().load_params(**files)  # fitted for its classes alone
    other.partial_fit(X, LABELS)
    updates = [record["update"] for record in SharpnessMonitor.records_of(other.history)]
    assert updates == [0, 5, 10, 10, 15, 20]


def test_further_eigenvalues_go_into_the_history():
    monitor = SharpnessMonitor(
        every=1, n_eigenvalues=2, history=("eigenvalue_2",), random_state=np.int64(3)
    )
    watched = network(monitor, max_epochs=2, batch_size=-1).fit(X, LABELS)
    assert watched.history[-1, "eigenvalue_2"] == monitor.records_[-1]["eigenvalue_2"]


def test_networks_that_cannot_be_measured_are_refused_at_the_start():
    class Sequences(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, rows):
            return self.layer(rows)[:, :, None]

    data = torch.as_tensor(X, dtype=torch.float32), torch.as_tensor(CODES)
    with pytest.raises(ValueError, match="returns outputs of shape"):
        SharpnessMonitor().update(Sequences(), nn.CrossEntropyLoss(), data)
