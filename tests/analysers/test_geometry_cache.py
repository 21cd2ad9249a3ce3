import threading

import joblib
import numpy as np
import pytest

import sharpfit
import sharpfit.theory.geometry as geometry_module
from sharpfit.analysers.bound.memory import cached_geometry

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(60, 2))
LABELS = RNG.integers(0, 2, 60)
SETTINGS = {"scales": (0.5, 1.0), "capacities": (1.0, 2.0), "random_state": 0}


def geometry(memory, features=FEATURES, labels=LABELS, **settings):
    return cached_geometry(features, {"labels": labels}, memory=memory, **{**SETTINGS, **settings})


@pytest.fixture
def computations(monkeypatch):
    """Count the blocks that are transported."""
    calls = []
    original = geometry_module._block_gains

    def counting(*args):
        calls.append(threading.get_ident())
        return original(*args)

    monkeypatch.setattr(geometry_module, "_block_gains", counting)
    return calls


def test_the_process_keeps_what_has_the_same_content(computations):
    features = RNG.normal(size=(40, 2))
    labels = RNG.integers(0, 2, 40)
    first = geometry("process", features, labels)
    n_blocks = len(computations)
    assert n_blocks > 0
    assert geometry("process", features.copy(), labels.copy()) is first
    assert geometry("process", features, labels, n_jobs=1, verbose=0) is first
    assert len(computations) == n_blocks
    assert geometry("process", features, 1 - labels) is not first
    assert geometry("process", features + 1e-9, labels) is not first
    assert geometry("process", features, labels, random_state=1) is not first
    assert len(computations) == 4 * n_blocks


def test_the_cache_is_bounded(computations):
    first = geometry("process")
    for seed in range(1, 9):
        geometry("process", random_state=seed)
    before = len(computations)
    assert geometry("process") is not first
    assert len(computations) > before


def test_none_computes_every_time(computations):
    first = geometry(None)
    n_blocks = len(computations)
    second = geometry(None)
    assert len(computations) == 2 * n_blocks
    np.testing.assert_array_equal(first.transport_costs, second.transport_costs)


@pytest.mark.parametrize("kind", ["path", "str", "Memory"])
def test_a_directory_keeps_geometries(tmp_path, computations, kind):
    memory = {
        "path": tmp_path,
        "str": str(tmp_path),
        "Memory": joblib.Memory(tmp_path, verbose=0),
    }[kind]
    first = geometry(memory)
    n_blocks = len(computations)
    second = geometry(memory)
    assert len(computations) == n_blocks
    np.testing.assert_array_equal(first.transport_costs, second.transport_costs)
    np.testing.assert_array_equal(first.exceptions[3], second.exceptions[3])
    assert geometry(memory, random_state=1) is not second
    assert len(computations) == 2 * n_blocks


def test_threads_share_one_computation(computations):
    features = RNG.normal(size=(50, 2))
    labels = RNG.integers(0, 2, 50)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(geometry("process", features, labels)))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert all(entry is found[0] for entry in found)
    assert len(set(computations)) == 1


def test_processes_write_at_the_same_time(tmp_path):
    results = joblib.Parallel(n_jobs=2)(
        joblib.delayed(cached_geometry)(
            FEATURES, {"labels": LABELS}, memory=str(tmp_path), **SETTINGS
        )
        for _ in range(6)
    )
    for other in results[1:]:
        np.testing.assert_array_equal(results[0].transport_costs, other.transport_costs)
    assert len(list(tmp_path.rglob("output.pkl"))) == 1


@pytest.mark.parametrize("memory", ["process", "directory"])
def test_an_interrupt_leaves_nothing_behind(tmp_path, monkeypatch, memory):
    features, labels = RNG.normal(size=(30, 2)), RNG.integers(0, 2, 30)
    place = "process" if memory == "process" else tmp_path
    original = geometry_module._block_gains
    calls = []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(geometry_module, "_block_gains", interrupted)
        with pytest.raises(KeyboardInterrupt):
            geometry(place, features, labels)
    assert not list(tmp_path.rglob("output.pkl"))
    after = geometry(place, features, labels)
    expected = geometry(None, features, labels)
    np.testing.assert_array_equal(after.transport_costs, expected.transport_costs)


def test_other_memories_are_refused():
    with pytest.raises(TypeError, match=r"memory=3.*joblib\.Memory"):
        geometry(3)


def test_another_version_computes_anew(tmp_path, computations, monkeypatch):
    geometry(tmp_path)
    n_blocks = len(computations)
    geometry(tmp_path)
    assert len(computations) == n_blocks
    monkeypatch.setattr(sharpfit, "__version__", "0.0.0")
    geometry(tmp_path)
    assert len(computations) == 2 * n_blocks
