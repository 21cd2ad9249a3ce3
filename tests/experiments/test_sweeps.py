"""The sweeps hold what they say, and the verdicts are what their tables say."""

import importlib
from pathlib import Path

import numpy as np
import pandas
import pytest
from skorch.callbacks import Callback

from sharpfit import NetworkClassifier
from sharpfit.networks import StopTrainingAt

pytest.importorskip("mlxtend", reason="the experiments need the extra bench")
FOLDER = Path(__file__).parents[2] / "benchmarks" / "experiments"


@pytest.fixture
def modules(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return {
        name: importlib.import_module(name) for name in ("sweeps", "flat_minima", "trained_run")
    }


@pytest.mark.parametrize("network", ["mlp", "cnn", "resnet"])
def test_a_sweep_of_strength_changes_what_it_names_only(modules, network):
    sweeps = modules["sweeps"]
    base = sweeps.BASES[network]
    for name, settings in sweeps.sweeps(base).items():
        kind, _, parameter = name.partition(": ")
        if kind in ("regulariser", "intervention"):
            assert settings[0] == base
            changed = [{k for k in base if s[k] != base[k]} for s in settings[1:]]
            assert changed == [{parameter}] * len(changed)
            strengths = [s[parameter] for s in settings]
            assert strengths == sorted(set(strengths))


def test_equal_epochs_see_every_row_equally_often(modules):
    sweeps = modules["sweeps"]
    base = sweeps.BASES["mlp"]
    for setting in sweeps.sweeps(base)["batch size, equal epochs"]:
        assert setting["at"] * setting["batch_size"] == base["at"] * base["batch_size"]


def test_settings_that_sweeps_share_are_run_once(modules):
    sweeps = modules["sweeps"]
    settings = sweeps.sweeps(sweeps.BASES["cnn"])
    runs = sweeps.configurations(settings, 2)
    assert len({repr(run) for run in runs}) == len(runs)
    assert sum(run["seed"] == 0 for run in runs) < sum(map(len, settings.values()))


def test_a_sharp_network_that_generalises_passes_no_check_of_flatness(modules):
    flat_minima = modules["flat_minima"]
    rows = [
        {
            "network": "mlp",
            "seed": seed,
            "status": "ok",
            "reached": 1,
            "training_error": 0.0,
            "sharpness": 10.0 - i,
            "largest_jacobian": 1.0 + i + 0.1 * seed,
            "largest_probability_jacobian": 10.0 - i,
            "error_gap": 0.1 + 0.01 * i,
            "loss_gap": 0.2 + 0.01 * i,
        }
        for seed in range(3)
        for i in range(8)
    ]
    unfitted = {**rows[0], "training_error": 0.5, "error_gap": 9.0}
    table = pandas.DataFrame([*rows, unfitted])
    name = flat_minima.TOPICS["six regularisers"][0]
    checks = flat_minima.checks_of("mlp", {name: table}, [name])
    verdicts = {
        (row["claim"], row["gap"]): row["verdict"] for row in flat_minima.findings_of(checks)
    }
    claims = flat_minima.CLAIMS
    assert verdicts[claims["jacobian"], "error"] == "held"
    assert verdicts[claims["sharpness"], "error"] == "did not hold"
    assert verdicts[claims["better"], "loss"] == "held"
    assert verdicts[claims["agree"], ""] == "did not hold"
    assert verdicts[claims["agree_probabilities"], ""] == "held"


class InterruptedAt(Callback):
    """What a signal in the middle of a training does."""

    def on_batch_end(self, net, training=False, **kwargs):
        if training and len(net.history) == 3:
            raise KeyboardInterrupt


@pytest.mark.parametrize("interrupted", [False, True])
def test_an_interrupted_training_is_no_run(modules, interrupted):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 3)).astype(np.float32), np.arange(40) % 2
    callbacks = [StopTrainingAt(updates=10), *([InterruptedAt()] if interrupted else [])]
    network = NetworkClassifier(batch_size=20, callbacks=callbacks, random_state=0)
    train = modules["trained_run"].train
    if interrupted:
        with pytest.raises(KeyboardInterrupt, match="training was interrupted"):
            train(network, X, y)
    else:
        assert train(network, X, y).n_iter_ == 5


def test_a_training_that_diverges_is_recorded_as_such(modules, tmp_path):
    base = modules["sweeps"].BASES["mlp"]
    diverging = {**base, "data": "digits", "at": 20, "lr": 1e6, "seed": 0}
    runs = importlib.import_module("runs")
    (row,) = runs.completed(
        modules["trained_run"].trained_run, [diverging], name="diverging", directory=tmp_path
    )
    assert row["status"] == "diverged: outputs on training rows are not finite"
