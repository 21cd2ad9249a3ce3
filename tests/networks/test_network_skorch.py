"""What skorch users know: callbacks, history, loaders, compiled and lazy modules."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback, Checkpoint, EarlyStopping, EpochScoring, LRScheduler
from skorch.dataset import Dataset, ValidSplit
from torch import nn

from sharpfit.networks import NetworkClassifier, NetworkRegressor, rows_hash
from tests.networks.modules_for_tests import Double, Lazy, Plain


def test_they_are_skorch_nets():
    assert issubclass(NetworkClassifier, NeuralNetClassifier)
    assert issubclass(NetworkRegressor, NeuralNetRegressor)


@pytest.mark.parametrize("use_caching", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_scores_of_epochs_with_string_labels(use_caching, weighted, iris):
    X, y = iris
    names = np.array(["x", "a", "m"])[y]
    network = NetworkClassifier(
        random_state=0,
        batch_size=16,
        lr=0.05,
        max_epochs=9,
        train_split=ValidSplit(3, stratified=True),
        callbacks=[
            EpochScoring("accuracy", name="train_acc", on_train=True, use_caching=use_caching),
            EpochScoring("roc_auc_ovr", lower_is_better=False, use_caching=use_caching),
        ],
    )
    network.fit(X, names, sample_weight=np.ones(150) if weighted else None)
    last = network.history[-1]
    assert last["train_acc"] > 0.9
    assert last["valid_acc"] > 0.8
    assert last["roc_auc_ovr"] > 0.9
    assert {"train_loss", "valid_loss", "dur"} <= last.keys()


def test_scores_are_those_of_the_network(iris):
    X, y = iris
    network = NetworkClassifier(
        random_state=0,
        max_epochs=4,
        callbacks=[EpochScoring("accuracy", name="a", on_train=True, use_caching=False)],
    ).fit(X, y)
    assert network.history[-1, "a"] == accuracy_score(y, network.predict(X))


def test_callbacks_see_rows_as_the_user_gave_them(iris):
    X, y = iris
    names = np.array(["x", "a", "m"])[y]
    seen = []

    class Recorder(Callback):
        def on_train_begin(self, net, X=None, y=None, **kwargs):
            seen.append((X, y, net.input_tensor(X), net.target_tensor(y)))

        def on_batch_end(self, net, batch=None, training=None, **kwargs):
            inputs, targets = batch
            assert inputs.shape == (50, 4)
            assert targets.dtype == torch.int64

    NetworkClassifier(max_epochs=1, batch_size=50, callbacks=[Recorder]).fit(X, names)
    assert seen[0][0] is X
    np.testing.assert_array_equal(seen[0][1], names)
    np.testing.assert_array_equal(seen[0][2], X)
    np.testing.assert_array_equal(seen[0][3], np.searchsorted(["a", "m", "x"], names))


def test_early_stopping_counts_and_does_not_warn(iris):
    X, y = iris
    stop = EarlyStopping(monitor="train_loss", patience=1, threshold=0.5)
    network = NetworkClassifier(callbacks=[stop], max_epochs=200, random_state=0).fit(X, y)
    assert network.n_iter_ == len(network.history) < 200


def test_schedules_and_checkpoints(iris, tmp_path):
    X, y = iris
    checkpoint = Checkpoint(dirname=tmp_path, monitor="train_loss_best", f_pickle="net.pkl")
    schedule = LRScheduler(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    network = NetworkClassifier(
        callbacks=[checkpoint, ("schedule", schedule)], max_epochs=4, random_state=0
    ).fit(X, y)
    assert network.optimizer_.param_groups[0]["lr"] == pytest.approx(0.02 / 2**4)
    before = network.predict_proba(X)
    network.load_params(checkpoint=checkpoint)
    np.testing.assert_array_equal(network.predict_proba(X), before)
    network.set_params(callbacks__schedule__gamma=0.1).fit(X, y)
    assert network.optimizer_.param_groups[0]["lr"] == pytest.approx(0.02 / 10**4)


def test_verbose_prints_the_usual_table(iris, capsys):
    X, y = iris
    NetworkClassifier(max_epochs=1).fit(X, y)
    assert capsys.readouterr().out == ""
    NetworkClassifier(max_epochs=1, verbose=1).fit(X, y)
    assert "train_loss" in capsys.readouterr().out


def test_no_callbacks_at_all(iris):
    X, y = iris
    with pytest.warns(ConvergenceWarning, match="still falling"):
        network = NetworkClassifier(callbacks="disable", lr=1e-4, random_state=0).fit(X, y)
    assert network.n_iter_ == 50


def test_interrupted_training_keeps_its_epochs(iris):
    X, y = iris

    class Interrupt(Callback):
        def on_batch_end(self, net, **kwargs):
            if len(net.history) == 3:
                raise KeyboardInterrupt

    network = NetworkClassifier(callbacks=[Interrupt], random_state=0).fit(X, y)
    assert network.n_iter_ == 3
    assert network.predict(X).shape == (150,)


def test_divergence_is_told(iris):
    X, y = iris
    with pytest.warns(ConvergenceWarning, match=r"became (nan|inf) in epoch .*Lower lr"):
        NetworkRegressor(lr=50.0, random_state=0).fit(X, y * 1e3)
    with pytest.warns(ConvergenceWarning, match=r"became (nan|inf)"):
        NetworkRegressor(lr=50.0, random_state=0).partial_fit(X, y * 1e3)


class Counting(Dataset):
    """A data set of the user, read row by row."""

    reads = 0

    def __getitem__(self, index):
        assert np.ndim(index) == 0
        type(self).reads += 1
        return super().__getitem__(index)


@pytest.mark.parametrize("weighted", [False, True])
def test_slicing_batches_is_reading_row_by_row(weighted, iris):
    X, y = iris
    sample_weight = np.linspace(0, 1, 150) if weighted else None
    arguments = {"max_epochs": 4, "random_state": 0, "train_split": ValidSplit(3)}
    sliced = NetworkClassifier(**arguments).fit(X, y, sample_weight=sample_weight)
    Counting.reads = 0
    by_row = NetworkClassifier(dataset=Counting, **arguments)
    by_row.fit(X, y, sample_weight=sample_weight)
    assert Counting.reads == 4 * 150
    for epoch in range(4):
        for key in ("train_loss", "valid_loss", "valid_acc"):
            np.testing.assert_allclose(by_row.history[epoch, key], sliced.history[epoch, key])
    np.testing.assert_allclose(by_row.predict_proba(X), sliced.predict_proba(X))


def test_rows_are_shuffled_unless_told_otherwise(iris):
    X, y = iris

    def order(**arguments):
        batches = []

        class Recorder(Callback):
            def on_batch_begin(self, net, batch=None, training=None, **kwargs):
                batches.append(batch[0])

        NetworkClassifier(
            Double, max_epochs=2, random_state=0, callbacks=[Recorder], **arguments
        ).fit(X, y)
        return torch.cat(batches)

    rows = torch.tensor(X)
    assert torch.equal(order(iterator_train__shuffle=False), torch.cat([rows, rows]))
    assert torch.equal(order(batch_size=-1), torch.cat([rows, rows]))
    shuffled = order()
    assert not torch.equal(shuffled[:150], rows)
    assert not torch.equal(shuffled[:150], shuffled[150:])
    assert torch.equal(shuffled[:150].sort(0).values, rows.sort(0).values)


def test_forward_in_training_mode_keeps_the_order(iris):
    X, y = iris
    network = NetworkClassifier(max_epochs=1, random_state=0).fit(X, y)
    assert torch.equal(network.forward(X, training=True), network.forward(X))


def test_momentum_is_a_default_only(iris):
    X, y = iris
    for arguments, momentum in [({}, 0.9), ({"optimizer__momentum": 0.0}, 0.0)]:
        network = NetworkClassifier(max_epochs=1, **arguments).fit(X, y)
        assert network.optimizer_.param_groups[0]["momentum"] == momentum
    NetworkClassifier(optimizer=torch.optim.Adam, max_epochs=1).fit(X, y)


def test_lazy_modules_take_their_shapes_from_the_data(iris):
    X, y = iris
    network = NetworkClassifier(Lazy, lr=0.1, random_state=0).fit(X, y)
    assert network.module_.layers[0].in_features == 4
    assert network.score(X, y) > 0.95


def test_module_instances_start_from_their_weights(iris):
    X, y = iris
    module = Plain()
    before = [p.clone() for p in module.parameters()]
    network = NetworkClassifier(module, max_epochs=3, random_state=0)
    first = network.fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(network.fit(X, y).predict_proba(X), first)
    assert all(map(torch.equal, module.parameters(), before))
    untrained = NetworkClassifier(module, max_epochs=1, lr=0.0).fit(X, y)
    assert all(map(torch.equal, untrained.module_.parameters(), before))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("class_weight", [None, {0: 1.0, 1: 3.0, 2: 0.5}])
def test_compiled_modules(class_weight, iris):
    X, y = iris
    arguments = {"max_epochs": 3, "random_state": 0, "class_weight": class_weight}
    network = NetworkClassifier(compile=True, compile__backend="eager", **arguments).fit(X, y)
    plain = NetworkClassifier(**arguments).fit(X, y)
    np.testing.assert_allclose(network.predict_proba(X), plain.predict_proba(X), rtol=1e-10)
    np.testing.assert_allclose(network.decision_function(X), plain.decision_function(X), rtol=1e-8)


def test_warm_start_goes_on(iris):
    X, y = iris
    network = NetworkClassifier(warm_start=True, max_epochs=5, random_state=0)
    losses = [network.fit(X, y).history[-1, "train_loss"] for _ in range(3)]
    assert losses == sorted(losses, reverse=True)
    assert len(network.history) == 15
    with pytest.raises(ValueError, match="not among the classes"):
        network.fit(X, y + 1)


def test_partial_fit_with_classes_that_come_later(iris):
    X, y = iris
    network = NetworkClassifier(random_state=0, max_epochs=2, batch_size=16)
    for start in range(0, 150, 50):
        network.partial_fit(X[start : start + 50], y[start : start + 50], classes=[2, 0, 1])
    np.testing.assert_array_equal(network.classes_, [0, 1, 2])
    assert network.predict_proba(X).shape == (150, 3)


def test_fingerprint_of_the_training_rows(iris):
    X, y = iris
    network = NetworkClassifier(max_epochs=1).fit(X, y)
    assert network.training_rows_hash_ == rows_hash(X, y)
    assert network.training_rows_hash_ != rows_hash(X[:-1], y[:-1])
    assert network.training_rows_hash_ != rows_hash(X, y[::-1])
    assert network.training_rows_hash_ != rows_hash(X + 1e-12, y)
    assert network.partial_fit(X, y).training_rows_hash_ == rows_hash(X, y)
    assert network.partial_fit(X[:75], y[:75]).training_rows_hash_ is None
    assert network.partial_fit(X[:75], y[:75]).training_rows_hash_ is None
    assert network.fit(X[:75], y[:75]).training_rows_hash_ == rows_hash(X[:75], y[:75])


@pytest.mark.parametrize("activation", ["tanh", nn.Softplus])
def test_reference_module(activation, iris):
    X, y = iris
    network = NetworkClassifier(
        module__hidden=[6, 5], module__activation=activation, module__dropout=0.2, max_epochs=2
    ).fit(X, y)
    kinds = [type(layer) for layer in network.module_]
    function = nn.Tanh if activation == "tanh" else activation
    assert kinds == [nn.Linear, function, nn.Dropout, nn.Linear, function, nn.Dropout, nn.Linear]
    assert [p.shape[0] for p in network.module_.parameters()] == [6, 6, 5, 5, 3, 3]
    assert isinstance(network.module_[:3], nn.Sequential)
    linear = NetworkClassifier(module__hidden=(), max_epochs=2).fit(X, y)
    assert len(linear.module_) == 1
