"""Comparisons of trained networks: tables, statuses, equal training, resuming."""

import os
import resource
import signal
import subprocess
import sys

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.datasets import make_moons
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback
from torch import nn

from sharpfit import (
    NetworkClassifier,
    NetworkRegressor,
    ResubstitutionSplit,
    compare_models,
    selection_scorer,
)
from sharpfit.comparison import Comparison
from sharpfit.networks import StopTrainingAt

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = make_moons(160, noise=0.3, random_state=0)
TRAIN, TEST = slice(0, 80), slice(80, 160)
ROWS = (X[TRAIN], Y[TRAIN], X[TEST], Y[TEST])
MEASURES = ["sharpness", "squared_norm", "negative_margin", "selection_criterion", "bound"]


def network(**settings):
    settings = {"max_epochs": 4, "batch_size": 64, "random_state": 0, "lr": 0.1} | settings
    return NetworkClassifier(**settings)


def networks(n=4, **settings):
    return {f"h{width}": network(module__hidden=(width,), **settings) for width in range(2, 2 + n)}


def test_table_of_trained_networks():
    fitted = {name: net.fit(X[TRAIN], Y[TRAIN]) for name, net in networks().items()}
    comparison = compare_models(fitted, *ROWS, measures=MEASURES)
    frame = comparison.frame()
    assert list(frame["run"]) == list(fitted)
    for name, training, test, gap in frame[["run", "training", "test", "gap"]].itertuples(False):
        assert training == pytest.approx(1 - fitted[name].score(X[TRAIN], Y[TRAIN]))
        assert test == pytest.approx(1 - fitted[name].score(X[TEST], Y[TEST]))
        assert gap == pytest.approx(test - training)
    wrong = 1 - frame["test"]
    np.testing.assert_allclose(frame["gap_error"], np.sqrt(wrong * (1 - wrong) / len(Y[TEST])))
    expected = [-selection_scorer(net, X[TRAIN], Y[TRAIN]) for net in fitted.values()]
    np.testing.assert_allclose(frame["selection_criterion"], expected)
    assert list(frame["n_updates"]) == [8] * 4
    assert repr(comparison) == (
        "Comparison: 4 runs compared as they were trained, all after 8 updates; "
        "gap = test minus training error"
    )


def test_candidates_of_a_search_are_refitted_in_parallel():
    grid = {
        "networkclassifier__module__hidden": [(2,), (4,)],
        "networkclassifier__lr": [0.05, 0.1],
    }
    search = GridSearchCV(
        make_pipeline(StandardScaler(), network()),
        grid,
        scoring=selection_scorer,
        cv=ResubstitutionSplit(),
    ).fit(X[TRAIN], Y[TRAIN])
    comparison = compare_models(search, *ROWS, measures=["selection_criterion"], n_jobs=2)
    frame = comparison.frame()
    np.testing.assert_allclose(
        frame["selection_criterion"], -search.cv_results_["mean_test_score"], rtol=1e-6
    )
    assert set(comparison.hyperparameters) == set(grid)
    assert comparison.granulated("selection_criterion").n_groups == dict.fromkeys(sorted(grid), 2)
    assert comparison.sign_error("selection_criterion").by_environment
    assert 0 <= comparison.conditional_information("selection_criterion").value <= 1


def test_equal_updates_and_equal_training_loss():
    by_updates = compare_models(networks(3), *ROWS, measures=["sharpness"], equal="updates", at=7)
    assert list(by_updates.frame()["n_updates"]) == [7, 7, 7]
    assert "at equal updates (7)" in repr(by_updates)
    by_loss = compare_models(
        networks(3, max_epochs=200),
        *ROWS,
        measures=["sharpness"],
        equal="training_loss",
        at=0.45,
    )
    assert set(by_loss.frame()["status"]) == {"ok"}
    assert len(set(by_loss.frame()["n_updates"])) > 1
    unreachable = compare_models(
        networks(3), *ROWS, measures=["sharpness"], equal="training_loss", at=1e-9
    )
    assert "did not reach training_loss = 1e-09" in unreachable.frame()["status"][0]
    assert "3 runs do not count" in repr(unreachable)


def test_diverged_runs_are_recorded_not_dropped():
    models = {**networks(4), "diverging": network(lr=1e30)}
    comparison = compare_models(models, *ROWS, measures=["sharpness"])
    frame = comparison.frame()
    assert frame["status"].iloc[-1] != "ok"
    assert len(frame) == 5
    correlations = comparison.correlations()
    assert list(correlations["n_runs"]) == [4]
    assert "1 runs do not count" in comparison.statement


def test_correlations_are_scipys_and_adjusted_for_the_number_of_measures():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(40, 3)), columns=["a", "b", "gap"])
    table["c"] = table["gap"] + 0.1 * table["a"]
    comparison = Comparison.from_table(table, ["a", "b", "c"])
    frame = comparison.correlations(n_bootstrap=50)
    assert frame["measure"].iloc[0] == "c"
    for name, value, p_value in frame[["measure", "value", "p_value"]].itertuples(False):
        expected = stats.kendalltau(table[name], table["gap"])
        assert (value, p_value) == pytest.approx((expected.statistic, expected.pvalue))
    assert (frame["adjusted_p_value"] >= frame["p_value"]).all()
    assert set(comparison.correlations(given="c", n_bootstrap=5)["measure"]) == {"a", "b"}


def test_regressors_compare_losses():
    target = X[:, 0] ** 2
    models = [NetworkRegressor(max_epochs=3, random_state=seed) for seed in range(3)]
    comparison = compare_models(
        models, X[TRAIN], target[TRAIN], X[TEST], target[TEST], measures=["sharpness"], gap="loss"
    )
    predicted = models[0].fit(X[TRAIN], target[TRAIN]).predict(X[TEST])
    assert comparison.frame()["test"][0] == pytest.approx(np.mean((predicted - target[TEST]) ** 2))


def test_finished_runs_are_kept_on_disk(tmp_path):
    memory = joblib.Memory(tmp_path, verbose=0)
    first = compare_models(networks(3), *ROWS, measures=["sharpness"], memory=memory)

    def n_stored():
        return sum("output.pkl" in files for _, _, files in os.walk(tmp_path))

    assert n_stored() == 3
    again = compare_models(networks(4), *ROWS, measures=["sharpness"], memory=memory)
    assert n_stored() == 4  # the three known runs were not computed again
    assert again.frame()["sharpness"][:3].tolist() == first.frame()["sharpness"].tolist()
    compare_models(networks(3, random_state=1), *ROWS, measures=["sharpness"], memory=memory)
    assert n_stored() == 7


SCRIPT = """
import sys
import numpy as np
from torch import nn
from sharpfit import NetworkClassifier, compare_models

class Module(nn.Linear):
    SLOPE

X, y = np.eye(4, dtype=np.float32), np.arange(4) % 2
shape = {"module__in_features": 4, "module__out_features": 2, "random_state": 0}
models = [NetworkClassifier(Module, lr=lr, **shape) for lr in (0.1, 0.2)]
settings = {"measures": ["squared_norm"], "memory": sys.argv[1], "n_jobs": 2}
print(list(compare_models(models, X, y, X, y, **settings).frame()["status"]))
"""


def test_networks_of_the_users_own_script_are_kept_by_their_source(tmp_path):
    def run(slope):
        script = tmp_path / "script.py"
        script.write_text(SCRIPT.replace("SLOPE", f"slope = {slope}"))
        process = subprocess.run(
            [sys.executable, str(script), str(tmp_path / "kept")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.stdout == "['ok', 'ok']\n", process.stderr
        return len(list(tmp_path.rglob("output.pkl")))

    assert [run(1), run(1), run(2)] == [2, 2, 4]


def test_what_has_no_hash_is_named(tmp_path):
    models = {"plain": network(), "nameless": network(optimizer=lambda *args, **kwargs: None)}
    with pytest.raises(ValueError, match="run 'nameless' has none"):
        compare_models(models, *ROWS, memory=tmp_path)


@pytest.mark.filterwarnings("ignore::joblib.memory.JobLibCollisionWarning")
def test_a_full_disk_costs_what_could_not_be_kept(tmp_path):
    memory = joblib.Memory(tmp_path, verbose=0)
    first = compare_models(networks(1), *ROWS, measures=["sharpness"], memory=memory)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.warns(Warning, match="Unable to cache to disk"):
            full = compare_models(networks(3), *ROWS, measures=["sharpness"], memory=memory)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(full.frame()["status"]) == ["ok"] * 3
    again = compare_models(networks(3), *ROWS, measures=["sharpness"], memory=memory)
    assert again.frame()["sharpness"].tolist() == full.frame()["sharpness"].tolist()
    assert again.frame()["sharpness"][0] == first.frame()["sharpness"][0]
    assert sum("output.pkl" in files for _, _, files in os.walk(tmp_path)) == 3


class Suicidal(nn.Linear):
    """Kills the process that trains it, as the system does when memory runs out."""

    def forward(self, inputs):
        os._exit(1)


def test_killed_worker_costs_one_run():
    models = {**networks(2), "killer": network(module=Suicidal(2, 2))}
    with pytest.warns(UserWarning, match="worker process died"):
        comparison = compare_models(models, *ROWS, measures=["sharpness"], n_jobs=2)
    status = comparison.frame()["status"]
    assert list(status[:2]) == ["ok", "ok"]
    assert status[2].startswith("worker died")


class Interrupted(Callback):
    """Sends the process that trains what Ctrl-C sends."""

    def on_epoch_begin(self, net, **kwargs):
        signal.raise_signal(signal.SIGINT)


def test_interrupted_training_is_no_run(tmp_path):
    # skorch's fit returns as if training were done.
    # Processes in the background inherit that the signal is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            compare_models(
                {**networks(1), "interrupted": network(callbacks=[Interrupted()])},
                *ROWS,
                measures=["squared_norm"],
                memory=joblib.Memory(tmp_path, verbose=0),
            )
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(list(tmp_path.rglob("output.pkl"))) == 1


def test_networks_that_stop_themselves_are_runs():
    stopping = network(callbacks=[StopTrainingAt(updates=3)])
    frame = compare_models({"short": stopping}, *ROWS, measures=["squared_norm"]).frame()
    assert list(frame["status"]) == ["ok"]
    assert list(frame["n_updates"]) == [3]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"measures": ["relative_flatnes"]}, "did you mean 'relative_flatness'"),
        ({"measures": ["zzz"]}, "none is like it"),
        ({"measures": []}, "measures is empty"),
        ({"gap": "accuracy"}, "'accuracy'"),
        ({"equal": "epochs", "at": 3}, "'epochs'"),
        ({"equal": "updates"}, "at must be the positive updates"),
        ({"equal": "updates", "at": 2.5}, "whole number of updates, got 2.5"),
        ({"at": 5}, "needs equal="),
        ({"hyperparameters": {"lr": [1]}}, "1 values for 4 runs"),
    ],
)
def test_bad_arguments(settings, message):
    with pytest.raises(ValueError, match=message):
        compare_models(networks(), *ROWS, **settings)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((X, Y[:9], X, Y), "X and y must have as many rows as each other, got 160 and 9"),
        ((X, Y, X, Y[:9]), "X_test and y_test"),
        ((X, Y, X[:, :1], Y), r"rows of X have shape \(2,\), but rows of X_test \(1,\)"),
        ((X, Y, np.where(X > 1, np.nan, X), Y), "X_test holds .* values that are not finite"),
        ((X, Y, X, Y + 1), r"y_test contains the label\(s\) \[2\], which no row of y has"),
        ((X, Y), "X_test is needed to measure networks"),
    ],
)
def test_bad_rows_are_refused_before_anything_is_trained(rows, message):
    with pytest.raises(ValueError, match=message):
        compare_models([network(max_epochs=10**9)], *rows)


def test_other_models_are_refused():
    with pytest.raises(ValueError, match="models is empty"):
        compare_models([], *ROWS)
    with pytest.raises(TypeError, match="LogisticRegression has no neural network"):
        compare_models([network(max_epochs=10**9), LogisticRegression()], *ROWS)
    with pytest.raises(TypeError, match=r"write \['sharpness'\]"):
        compare_models([network()], *ROWS, measures="sharpness")
    with pytest.raises(TypeError, match="got NetworkClassifier"):
        compare_models(network(), *ROWS)
    with pytest.raises(ValueError, match="trained already"):
        compare_models([network().fit(*ROWS[:2])], *ROWS, equal="updates", at=3)
    with pytest.raises(ValueError, match="not fitted"):
        compare_models(GridSearchCV(network(), {"lr": [0.1]}), *ROWS)
    comparison = compare_models(networks(3), *ROWS, measures=["sharpness"])
    with pytest.raises(ValueError, match="hyperparameters="):
        comparison.granulated("sharpness")
    with pytest.raises(ValueError, match="did you mean 'sharpness'"):
        comparison.correlations(given="sharpnes")
    with pytest.raises(ValueError, match="'path_norm' was not measured"):
        Comparison.from_table({"gap": [1.0], "lr": [1]}, [], hyperparameters=["lr"]).sign_error(
            "path_norm"
        )


TABLE = {
    "gap": [0.1, 0.3, 0.2, 0.4],
    "sharpness": [1.0, 3.0, 2.0, 4.0],
    "own": [4.0, 3.0, 2.0, 1.0],
    "lr": [1, 1, 2, 2],
    "status": ["ok", "ok", "ok", "diverged"],
}


@pytest.mark.parametrize("kind", [dict, pd.DataFrame])
def test_a_table_is_compared_as_it_is(kind):
    found = compare_models(kind(TABLE), hyperparameters=["lr"])
    assert found.measures == ("sharpness",)
    assert found.correlations(n_bootstrap=10)["n_runs"].tolist() == [3]
    assert found.hyperparameters == {"lr": [1, 1, 2, 2]}
    found = compare_models(kind(TABLE), measures=["own"], equal="updates", at=5, gap="loss")
    assert repr(found).startswith("Comparison: 3 runs compared at equal updates (5); gap = test ")
    assert found.gap_kind == "loss"


@pytest.mark.parametrize(
    ("table", "settings", "message"),
    [
        (TABLE, {"measures": ["sharpnes"]}, "no column 'sharpnes'"),
        (TABLE, {"X": X}, "leave out X"),
        ({"gap": [1], "own": [1]}, {}, "no column named as one of"),
        ({"sharpness": [1.0]}, {}, "no column 'gap'"),
        (TABLE | {"own": ["a"] * 4}, {"measures": ["own"]}, "'own' must hold numbers"),
        (TABLE | {"own": [1]}, {"measures": ["own"]}, "'own' has 1 rows, but 'gap' 4"),
    ],
)
def test_bad_tables(table, settings, message):
    with pytest.raises(ValueError, match=message):
        compare_models(table, **settings)


def test_names_alone_are_no_list():
    with pytest.raises(TypeError, match=r"write \['own'\]"):
        compare_models(TABLE, measures="own")
    with pytest.raises(TypeError, match=r"must map names .* got \['lr'\]"):
        compare_models(networks(), *ROWS, hyperparameters=["lr"])
