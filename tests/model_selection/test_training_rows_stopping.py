"""Stopping by the training rows: which epoch is kept, and that nothing else changes."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import make_classification
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from torch import nn

from sharpfit.bridge import as_problem
from sharpfit.model_selection.selection import SelectionCriterion
from sharpfit.model_selection.stopping import TrainingRowsStopping
from sharpfit.networks import NetworkClassifier, NetworkRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def rows():
    X, y = make_classification(100, 5, n_informative=4, n_redundant=0, flip_y=0.2, random_state=0)
    return X.astype(np.float32), y.astype(np.int64)


class KeepAll(Callback):
    """Records the weights of every epoch, as the truth to compare with."""

    def on_train_begin(self, net, **kwargs):
        self.states = []

    def on_epoch_end(self, net, **kwargs):
        self.states.append(copy.deepcopy(net.module_.state_dict()))


def network(*callbacks, kind=NetworkClassifier, **parameters):
    settings = {"max_epochs": 15, "lr": 0.1, "random_state": 0, "module__hidden": (32, 32)}
    named = [(f"callback{i}", callback) for i, callback in enumerate(callbacks)]
    return kind(callbacks=named, **(settings | parameters))


def same_weights(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def fitted_callback(net, position=0):
    return dict(net.callbacks_)[f"callback{position}"]


@pytest.mark.parametrize("every", [1, 4])
def test_the_kept_weights_are_those_of_the_best_judged_epoch(rows, every):
    X, y = rows
    net = network(TrainingRowsStopping(every=every), KeepAll()).fit(X, y)
    states = fitted_callback(net, 1).states
    problem = as_problem(net, X, y)
    criterion = SelectionCriterion(problem)
    values = {}
    for epoch, state in enumerate(states, start=1):
        if epoch % every == 0 or epoch == len(states):
            problem.module.load_state_dict(state)
            values[epoch] = criterion(problem.module)
    stopping = fitted_callback(net)
    assert stopping.best_epoch_ == min(values, key=values.get)
    assert stopping.best_criterion_ == min(values.values())
    assert same_weights(net.module_.state_dict(), states[stopping.best_epoch_ - 1])
    judged = {i + 1: row["selection_criterion"] for i, row in enumerate(net.history)
              if "selection_criterion" in row}  # fmt: skip
    assert judged == values


def test_stops_after_patience_epochs_without_improvement(rows):
    X, y = rows
    messages = []
    net = network(
        TrainingRowsStopping(patience=3, sink=messages.append), max_epochs=500, lr=0.3
    ).fit(X, y)
    stopping = fitted_callback(net)
    assert len(net.history) == stopping.best_epoch_ + 3 < 500
    assert [str(stopping.best_epoch_) in message for message in messages] == [True, True]


def test_judging_does_not_change_the_training(rows):
    X, y = rows
    watched = network(TrainingRowsStopping(load_best=False), module__dropout=0.3, max_epochs=5).fit(
        X, y
    )
    alone = network(module__dropout=0.3, max_epochs=5).fit(X, y)
    assert same_weights(watched.module_.state_dict(), alone.module_.state_dict())


def test_regression(rows):
    X, _ = rows
    net = network(TrainingRowsStopping(), kind=NetworkRegressor, lr=0.01).fit(X, X[:, 0] ** 2)
    assert 1 <= fitted_callback(net).best_epoch_ <= 15


def test_plain_skorch_net(rows):
    X, y = rows
    net = NeuralNetClassifier(
        nn.Linear(5, 2),
        criterion=nn.CrossEntropyLoss,
        train_split=None,
        max_epochs=4,
        verbose=0,
        callbacks=[TrainingRowsStopping()],
    ).fit(X, y)
    assert net.predict(X).shape == (100,)


def test_partial_fit_starts_anew_and_lets_go_of_the_rows(rows):
    X, y = rows
    net = network(TrainingRowsStopping(), max_epochs=3).fit(X, y)
    net.partial_fit(X, y)
    stopping = fitted_callback(net)
    assert 4 <= stopping.best_epoch_ <= 6
    assert len(pickle.dumps(stopping)) < 1000
    assert np.array_equal(pickle.loads(pickle.dumps(net)).predict(X), net.predict(X))
    assert clone(net).fit(X, y).history[-1]["epoch"] == 3


class Spoil(Callback):
    """Makes the outputs infinite from the third epoch on, as a training that diverges."""

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) >= 3:
            with torch.no_grad():
                net.module_[-1].bias.fill_(torch.inf)


def test_a_training_that_diverges_keeps_its_last_sound_epoch(rows):
    X, y = rows
    net = network(Spoil(), TrainingRowsStopping(patience=1)).fit(X, y)
    assert fitted_callback(net, 1).best_epoch_ in (1, 2)
    assert np.isfinite(net.decision_function(X)).all()


@pytest.mark.parametrize(
    ("parameters", "name"), [({"patience": 0}, "patience"), ({"every": 0}, "every"),
                             ({"patience": "3"}, "patience"), ({"patience": 1.5}, "patience"),
                             ({"threshold": float("nan")}, "threshold"),
                             ({"threshold": -0.1}, "threshold")],
)  # fmt: skip
def test_bad_settings_are_named_before_training(rows, parameters, name):
    with pytest.raises(ValueError, match=name):
        network(TrainingRowsStopping(**parameters)).fit(*rows)
