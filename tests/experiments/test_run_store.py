"""The store of runs keeps what is done, whatever happens to the rest."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pandas
import pytest

ROOT = Path(__file__).parents[2]
# Scripts are run from their folder; workers and other processes get the same path.
sys.path.insert(0, str(ROOT / "benchmarks" / "experiments"))
runs = pytest.importorskip("runs", reason="benchmarks are not installed")
code_version = pytest.importorskip("code_version")


def square(configuration):
    """A run that leaves a trace of every call."""
    with (Path(configuration["traces"]) / str(configuration["x"])).open("a") as file:
        file.write("called\n")
    if configuration["x"] == "overflow":
        raise FloatingPointError("the loss is not finite")
    return {"square": configuration["x"] ** 2, "undefined": float("nan")}


def square_or_interrupt(configuration):
    """A run that is interrupted where the environment says so."""
    if str(configuration["x"]) == os.environ.get("INTERRUPTED_AT"):
        os.kill(os.getpid(), signal.SIGINT)
    return square(configuration)


def killed_once_or_always(configuration):
    """A run that is killed: the first time it is done, or every time."""
    trace = Path(configuration["traces"]) / configuration["when"]
    if configuration["when"] == "always" or not trace.exists():
        if configuration["when"] != "never":
            trace.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        trace.touch()
    return {"answer": 42}


def calls(tmp_path, x):
    trace = tmp_path / "traces" / str(x)
    return len(trace.read_text().splitlines()) if trace.exists() else 0


@pytest.fixture
def configurations(tmp_path):
    (tmp_path / "traces").mkdir()
    return [{"x": x, "traces": str(tmp_path / "traces")} for x in (1, 2, 3)]


def complete(tmp_path, configurations, function=square, **settings):
    return runs.completed(
        function, configurations, name="squares", directory=tmp_path / "kept", **settings
    )


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_runs_are_done_once_and_returned_in_order(tmp_path, configurations, n_jobs):
    rows = complete(tmp_path, configurations, n_jobs=n_jobs)
    assert [row["square"] for row in rows] == [1, 4, 9]
    assert all(row["status"] == "ok" and row["seconds"] >= 0 for row in rows)
    again = complete(tmp_path, [*configurations[::-1], configurations[0]])
    assert [row["square"] for row in again] == [9, 4, 1, 1]
    assert [calls(tmp_path, x) for x in (1, 2, 3)] == [1, 1, 1]


def test_an_interrupt_costs_the_run_in_progress_only(tmp_path, configurations):
    script = (
        "import json, signal, sys\n"
        "from pathlib import Path\n"
        "from tests.experiments.test_run_store import complete, square_or_interrupt\n"
        # Processes in the background inherit that the signal is ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "complete(Path(sys.argv[1]), json.loads(sys.argv[2]), square_or_interrupt)\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), json.dumps(configurations)],
        cwd=ROOT,
        env={**os.environ, "INTERRUPTED_AT": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode != 0
    assert "KeyboardInterrupt" in process.stderr
    rows = complete(tmp_path, configurations, square_or_interrupt)
    assert [row["square"] for row in rows] == [1, 4, 9]
    assert [calls(tmp_path, x) for x in (1, 2, 3)] == [1, 1, 1]


def test_other_configuration_seed_or_code_is_another_run(tmp_path, configurations, monkeypatch):
    complete(tmp_path, configurations)
    complete(tmp_path, [{**configurations[0], "seed": 1}])
    assert calls(tmp_path, 1) == 2
    monkeypatch.setattr(code_version.sharpfit, "__version__", "another")
    complete(tmp_path, configurations[:1])
    assert calls(tmp_path, 1) == 3


def test_results_of_another_state_of_the_package_are_told(
    tmp_path, configurations, monkeypatch, capsys
):
    complete(tmp_path, configurations[:2])
    complete(tmp_path, configurations[:2])
    assert "other code" not in capsys.readouterr().out
    monkeypatch.setattr(runs, "package_digest", lambda: "another")
    complete(tmp_path, configurations)
    assert "2 of the 2 runs that are kept were made with other code" in capsys.readouterr().out
    complete(tmp_path, configurations)
    assert "2 of the 3 runs that are kept were made with other code" in capsys.readouterr().out
    assert [calls(tmp_path, x) for x in (1, 2, 3)] == [1, 1, 1]


def test_a_diverged_run_is_recorded_and_not_repeated(tmp_path, configurations):
    configurations[1]["x"] = "overflow"
    for _ in range(2):
        rows = complete(tmp_path, configurations)
        assert [row["status"] for row in rows] == [
            "ok", "diverged: the loss is not finite", "ok"
        ]  # fmt: skip
    assert calls(tmp_path, "overflow") == 1


def test_a_mistake_in_the_code_is_not_a_result(tmp_path, configurations):
    configurations[1]["x"] = "text"
    with pytest.raises(TypeError):
        complete(tmp_path, configurations)
    assert calls(tmp_path, 1) == 1
    assert len(list((tmp_path / "kept").rglob("*"))) == 2  # the folder and the first run


def test_killed_workers_cost_their_own_run_only(tmp_path):
    configurations = [
        {"when": when, "traces": str(tmp_path), "number": number}
        for number, when in enumerate(["never", "once", "always", "never"])
    ]
    with pytest.warns(UserWarning, match="a worker process died"):
        rows = complete(tmp_path, configurations, killed_once_or_always, n_jobs=2)
    assert [row["status"] for row in rows] == ["ok", "ok", "worker died", "ok"]
    (tmp_path / "always").unlink()
    assert len(list((tmp_path / "kept").rglob("*.json"))) == 3


def test_a_full_disk_is_said_and_leaves_whole_files(tmp_path, configurations):
    complete(tmp_path, configurations[:1])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match=r"could not be written to .*start again"):
            complete(tmp_path, configurations)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    kept = [path for path in (tmp_path / "kept").rglob("*") if path.is_file()]
    assert len(kept) == 1
    assert json.loads(kept[0].read_text())["values"]["square"] == 1
    assert [row["square"] for row in complete(tmp_path, configurations)] == [1, 4, 9]
    assert calls(tmp_path, 1) == 1


def test_tables_hold_every_run_and_survive_a_full_disk(tmp_path, configurations):
    configurations[1]["x"] = "overflow"
    rows = complete(tmp_path, configurations)
    path = tmp_path / "results" / "squares.csv"
    runs.write_table(rows, path)
    table = pandas.read_csv(path)
    assert table["square"].isna().tolist() == [False, True, False]
    assert table["status"][1] == "diverged: the loss is not finite"
    before = path.read_text()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(OSError, match="could not be written"):
            runs.write_table(rows, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == before
    assert [p.name for p in path.parent.iterdir()] == ["squares.csv"]
