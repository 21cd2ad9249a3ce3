"""A store of runs: every run once, by its configuration and the code, whatever happens on the way.

A run is a call of a function with a dict of plain values that returns a dict of plain values.
Its record is one JSON file, written whole or not at all, so that an experiment that was
interrupted, killed or stopped by a full disk goes on where it was.
"""

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas
from code_version import code_version, package_digest
from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError

CACHE = Path(__file__).parent / "cache"
RESULTS = Path(__file__).parent / "results"

Row = dict[str, Any]
RunFunction = Callable[[Row], Row]


def completed(
    function: RunFunction,
    configurations: Iterable[Row],
    *,
    name: str,
    n_jobs: int = 1,
    directory: Path = CACHE,
) -> list[Row]:
    """Return the rows of all runs, doing those that are not kept yet.

    Parameters
    ----------
    function : callable
        Defined at the top level of a module; takes a configuration, seed included, and returns
        plain values. An ``ArithmeticError`` says that the run diverged.
    configurations : iterable of dict
        What JSON can hold.
    name : str
        Name of the experiment.
    n_jobs : int, default=1
        Number of processes.
    directory : Path
        Where records are kept.

    Returns
    -------
    list of dict
        In the order of `configurations`: the configuration, ``status`` ("ok", "diverged: ..." or
        "worker died"), ``seconds`` of CPU time and the values. A run whose worker died is not
        kept, so that the next call tries it again; a diverged one is.

    Raises
    ------
    OSError
        If a record cannot be written; those written before stay.
    """
    configurations = list(configurations)
    version = code_version(function)
    paths = [directory / name / f"{_address(c, version)}.json" for c in configurations]
    todo = {p: c for p, c in zip(paths, configurations, strict=True) if not p.exists()}
    done = len(set(paths)) - len(todo)
    _tell_of_other_code(name, {path for path in paths if path.exists()})
    calls = [delayed(_run)(function, c, version, p) for p, c in todo.items()]
    try:
        for status in Parallel(n_jobs=n_jobs, return_as="generator_unordered")(calls):
            done += 1
            print(f"{name}: {done} of {len(set(paths))} runs, the last one {status}", flush=True)
    except TerminatedWorkerError:
        warnings.warn(
            "a worker process died, as happens when memory runs out; the runs that are missing are "
            "done one at a time",
            UserWarning,
            stacklevel=2,
        )
        for path, call in zip(todo, calls, strict=True):
            if not path.exists():
                _run_alone(call)
    return [_row(p, c) for p, c in zip(paths, configurations, strict=True)]


def write_table(rows: Sequence[Row], path: Path) -> None:
    """Write rows as a CSV file, whole or not at all.

    Parameters
    ----------
    rows : sequence of dict
        A value that a row does not have is left empty.
    path : Path
        The file.
    """
    _write(path, pandas.DataFrame(rows).to_csv(index=False, float_format="%.6g"))


def _address(configuration: Row, version: str) -> str:
    text = json.dumps([configuration, version], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _run(function: RunFunction, configuration: Row, version: str, path: Path) -> str:
    start = time.process_time()
    try:
        values, status = function(dict(configuration)), "ok"
    except ArithmeticError as error:
        values, status = {}, f"diverged: {error}"
    record = {
        "configuration": configuration,
        "version": version,
        "package": package_digest(),
        "status": status,
        "seconds": time.process_time() - start,
        "values": values,
    }
    _write(path, json.dumps(record, indent=1))
    return status


def _tell_of_other_code(name: str, paths: set[Path]) -> None:
    """Say which results another state of sharpfit made, as happens while a version is developed."""
    others = [p for p in paths if json.loads(p.read_text()).get("package") != package_digest()]
    if others:
        print(
            f"{name}: {len(others)} of the {len(paths)} runs that are kept were made with other "
            f"code of this version of sharpfit; delete them in {others[0].parent} to do them again",
            flush=True,
        )


def _run_alone(call: Any) -> None:
    """Do one run in a process of its own, so that its death is its own."""
    try:
        Parallel(n_jobs=2)([call])
    except TerminatedWorkerError:
        # Told by the record that is missing.
        return


def _row(path: Path, configuration: Row) -> Row:
    if not path.exists():
        return {**configuration, "status": "worker died"}
    record = json.loads(path.read_text())
    return {
        **configuration,
        "status": record["status"],
        "seconds": round(record["seconds"], 2),
        **record["values"],
    }


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(
            error.errno,
            f"{path.name} could not be written to {path.parent}: {os.strerror(error.errno or 0)}. "
            "What was written before is whole; make room and start again to go on from there",
        ) from error
