"""Progress, callbacks and interrupts of a profile."""

import importlib.util
import re

import numpy as np
import pytest
import torch
from sklearn.datasets import make_moons
from torch import nn

from sharpfit import JacobianProfiler, NetworkClassifier

X, LABELS = make_moons(60, noise=0.1, random_state=0)


class Interrupted(nn.Module):
    """A layer that can be told to act as if Ctrl-C were pressed."""

    countdown = -1

    def forward(self, inputs):
        Interrupted.countdown -= 1
        if Interrupted.countdown == 0:
            raise KeyboardInterrupt
        return torch.tanh(inputs)


def network():
    net = nn.Sequential(nn.Linear(2, 4), Interrupted(), nn.Linear(4, 2))
    return NetworkClassifier(net, max_epochs=3, random_state=0).fit(X, LABELS)


def test_lines_count_the_rows(capsys):
    profiler = JacobianProfiler(network(), batch_size=25, verbose=2).fit(X, LABELS)
    lines = capsys.readouterr().out.splitlines()
    assert "[jacobian_norms] 50 of 60 rows" in lines
    assert all(re.fullmatch(r"\[\w+\] \d+ of 60 rows", line) for line in lines)
    profiler.set_params(verbose=1).transform(X)
    assert capsys.readouterr().out.splitlines() == [
        f"[jacobian_norms] {rows} of 60 rows" for rows in (25, 50, 60)
    ]
    profiler.fit(X, LABELS)
    lines = capsys.readouterr().out.splitlines()
    for name in ("layer_norms", "slopes", "local_variation", "empirical_margin_constant"):
        assert f"[{name}] 60 of 60 rows" in lines
    quiet = profiler.set_params(verbose=0).fit(X, LABELS)
    assert capsys.readouterr().out == ""
    assert quiet.max_norm_ == profiler.max_norm_


@pytest.mark.parametrize("place", [1, 5, 12])
def test_an_interrupt_leaves_what_was_known(place):
    net = network()
    profiler = JacobianProfiler(net).fit(X, LABELS)
    before = dict(vars(profiler))
    weights = [parameter.clone() for parameter in net.module_.parameters()]
    Interrupted.countdown = place
    try:
        with pytest.raises(KeyboardInterrupt):
            profiler.fit(X[:40])
    finally:
        Interrupted.countdown = -1
    assert vars(profiler).keys() == before.keys()
    assert all(vars(profiler)[name] is value for name, value in before.items())
    assert all(map(torch.equal, weights, net.module_.parameters()))
    np.testing.assert_array_equal(
        profiler.fit(X[:40]).norms_, profiler.profile(X[:40]).norms.spectral
    )


@pytest.mark.skipif(
    importlib.util.find_spec("sklearn.callback") is None, reason="scikit-learn has no callbacks"
)
def test_callbacks_see_the_parts():
    class Recorder:
        def __init__(self):
            self.events = []

        def setup(self, estimator, context):
            self.events.append(("setup", context.task_name))

        def teardown(self, estimator, context):
            self.events.append(("teardown", context.task_name))

        def on_fit_task_begin(self, estimator, context):
            self.events.append(("begin", context.task_name))

        def on_fit_task_end(self, estimator, context):
            self.events.append(("end", context.task_name))

    recorder = Recorder()
    JacobianProfiler(network()).set_callbacks(recorder).fit(X, LABELS)
    parts = ("network", "rows", "layers", "surroundings")
    inside = [(when, name) for name in parts for when in ("begin", "end")]
    assert recorder.events == [
        ("setup", "fit"), ("begin", "fit"), *inside, ("end", "fit"), ("teardown", "fit")
    ]  # fmt: skip
