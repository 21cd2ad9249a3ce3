"""Repeatable runs that leave the global generators alone."""

import copy
import threading

import numpy as np
import pytest
import torch
from sklearn.base import clone

from sharpfit.networks import NetworkClassifier, NetworkRegressor
from sharpfit.networks._randomness import RandomStream
from tests.networks.modules_for_tests import DropsInputs


def weights(network):
    return torch.cat([p.detach().flatten() for p in network.module_.parameters()])


@pytest.fixture
def global_state():
    def state():
        _, keys, position, *_ = np.random.get_state()  # noqa: NPY002
        return torch.get_rng_state().tolist(), keys.tolist(), position

    return state


@pytest.mark.parametrize("random_state", [None, 0, np.random.RandomState(3)])
def test_global_generators_are_untouched(random_state, iris, global_state):
    X, y = iris
    torch.manual_seed(5)
    before = global_state()
    network = NetworkClassifier(DropsInputs, max_epochs=2, random_state=random_state)
    network.fit(X, y).partial_fit(X, y)
    network.predict(X)
    network.set_params(module__k=3)
    network.initialize()
    NetworkRegressor(max_epochs=2, random_state=random_state).fit(X, y)
    assert global_state() == before


def test_global_generators_are_given_back_after_an_error(iris, global_state):
    X, y = iris
    before = global_state()
    with pytest.raises(ValueError, match="one row"):
        NetworkClassifier(DropsInputs, module__k=7).fit(X, y)
    assert global_state() == before


def test_same_seed_same_network_whatever_the_global_state(iris):
    X, y = iris
    network = NetworkClassifier(DropsInputs, max_epochs=3, random_state=1)
    first = weights(network.fit(X, y))
    torch.manual_seed(123)
    assert torch.equal(weights(network.fit(X, y)), first)
    assert torch.equal(weights(clone(network).fit(X, y)), first)
    assert not torch.equal(weights(clone(network).set_params(random_state=2).fit(X, y)), first)


def test_no_seed_gives_other_networks(iris):
    X, y = iris
    torch.manual_seed(0)
    first = weights(NetworkClassifier(max_epochs=1).fit(X, y))
    torch.manual_seed(0)
    assert not torch.equal(weights(NetworkClassifier(max_epochs=1).fit(X, y)), first)


def test_random_state_instance_is_drawn_from(iris):
    X, y = iris

    def two_runs():
        network = NetworkClassifier(max_epochs=1, random_state=np.random.RandomState(0))
        return weights(network.fit(X, y)), weights(network.fit(X, y))

    first, second = two_runs()
    assert not torch.equal(first, second)
    assert all(map(torch.equal, two_runs(), (first, second)))


@pytest.mark.parametrize("how", ["partial_fit", "warm_start"])
def test_training_in_two_parts_is_training_at_once(how, iris):
    X, y = iris
    arguments = {"random_state": 0, "iterator_train__drop_last": True}
    whole = NetworkClassifier(DropsInputs, max_epochs=6, **arguments).fit(X, y)
    parts = NetworkClassifier(DropsInputs, max_epochs=3, warm_start=True, **arguments)
    step = parts.partial_fit if how == "partial_fit" else parts.fit
    step(X, y)
    # Neither predictions nor a copy disturb the stream.
    parts.predict_proba(X)
    parts = copy.deepcopy(parts)
    step = parts.partial_fit if how == "partial_fit" else parts.fit
    step(X, y)
    assert parts.n_iter_ == 3
    assert len(parts.history) == 6
    torch.testing.assert_close(weights(parts), weights(whole), rtol=0, atol=0)


def test_initialised_weights_follow_the_seed(iris):
    X, y = iris
    arguments = {"module__in_features": 4, "module__n_outputs": 3, "module__dtype": torch.float64}
    initialised = NetworkClassifier(random_state=4, **arguments).initialize()
    untrained = NetworkClassifier(random_state=4, lr=0.0, max_epochs=1).fit(X, y)
    assert torch.equal(weights(initialised), weights(untrained))
    assert torch.equal(weights(initialised.initialize()), weights(untrained))


def test_threads_do_not_share_a_stream(iris):
    X, y = iris
    expected = [weights(NetworkClassifier(random_state=s, max_epochs=4).fit(X, y)) for s in (0, 1)]
    networks = [NetworkClassifier(random_state=s, max_epochs=4) for s in (0, 1, 0, 1)]
    threads = [threading.Thread(target=network.fit, args=(X, y)) for network in networks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for network, truth in zip(networks, expected * 2, strict=True):
        assert torch.equal(weights(network), truth)


def test_stream_copied_while_active_goes_on_from_there():
    stream = RandomStream(0)
    with stream.active():
        torch.rand(3)
        copied = copy.deepcopy(stream)
        rest = torch.rand(2)
    with copied.active():
        assert torch.equal(torch.rand(2), rest)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_generator_is_untouched(iris):
    X, y = iris
    torch.cuda.manual_seed(1)
    before = torch.cuda.get_rng_state()
    network = NetworkClassifier(DropsInputs, max_epochs=2, random_state=0, device="cuda")
    first = weights(network.fit(X, y))
    assert torch.equal(torch.cuda.get_rng_state(), before)
    torch.testing.assert_close(weights(network.fit(X, y)), first)
    assert network.predict_proba(X).shape == (150, 3)
