"""A content-addressed cache for geometries, so that all candidates of a search share one."""

import difflib
import threading
from collections import OrderedDict
from os import PathLike
from pathlib import Path
from typing import Any

import joblib

import sharpfit
from sharpfit.theory import Geometry, fit_geometry

__all__ = ["cached_geometry", "check_memory"]

_MOST_ENTRIES = 8


class _ProcessCache:
    """The last few geometries of this process, by the content of what they were computed from.

    One thread computes an entry while others that want it wait. An entry is stored when it is
    complete, so an interrupt leaves nothing behind.
    """

    def __init__(self, most_entries: int):
        self._most_entries = most_entries
        self._entries: OrderedDict[str, Geometry] = OrderedDict()
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    def get(self, features: Any, outcomes: Any, settings: dict[str, Any]) -> Geometry:
        hidden = {"n_jobs", "verbose"}
        relevant = {key: value for key, value in settings.items() if key not in hidden}
        key = joblib.hash((features, outcomes, relevant))
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            with self._guard:
                if key in self._entries:
                    self._entries.move_to_end(key)
                    return self._entries[key]
            geometry = _compute(features, outcomes, **settings)
            with self._guard:
                self._entries[key] = geometry
                while len(self._entries) > self._most_entries:
                    oldest, _ = self._entries.popitem(last=False)
                    self._locks.pop(oldest, None)
            return geometry

    def clear(self) -> None:
        with self._guard:
            self._entries.clear()
            self._locks.clear()


_process_cache = _ProcessCache(_MOST_ENTRIES)


def check_memory(memory: Any) -> None:
    """Refuse what is no cache."""
    if not (memory is None or isinstance(memory, str | PathLike) or hasattr(memory, "cache")):
        raise TypeError(
            f"memory={memory!r} must be 'process', None, a path or a joblib.Memory, as in "
            "scikit-learn's Pipeline."
        )
    if not isinstance(memory, str | PathLike) or memory == "process":
        return
    if isinstance(memory, str) and _looks_like_process(memory):
        raise ValueError(
            f"memory={memory!r} is next to 'process', this process' own cache; write './{memory}' "
            "for a folder of that name."
        )
    if Path(memory).is_file():
        raise ValueError(f"memory={memory!r} is a file; give a folder to keep geometries in.")


def _looks_like_process(name: str) -> bool:
    return bool(difflib.get_close_matches(name.lower(), ["process"], cutoff=0.9))


def _compute(
    features: Any,
    outcomes: dict[str, Any],
    *,
    n_jobs: int | None = None,
    verbose: int = 0,
    version: str = "",
    **settings: Any,
) -> Geometry:
    """Compute a geometry; `version` is there for the hash of the arguments."""
    return fit_geometry(features, **outcomes, n_jobs=n_jobs, verbose=verbose, **settings)


def cached_geometry(
    features: Any, outcomes: dict[str, Any], *, memory: Any, **settings: Any
) -> Geometry:
    """Return the geometry of a data set, computed at most once where there is a cache.

    Parameters
    ----------
    features : ndarray of shape (n, d)
        Rows of the metric space.
    outcomes : dict
        ``labels``, or ``targets`` and ``loss_bound``.
    memory : "process", str, path, joblib.Memory or None
        ``"process"`` keeps the last 8 geometries in this process. A path or a ``joblib.Memory``
        keeps them on disk, where all workers share them; joblib writes to a temporary file and
        renames it, so that concurrent writers and interrupts leave no half-written entry. None
        computes every time.
    **settings
        Further arguments of :func:`~sharpfit.theory.fit_geometry`.

    Returns
    -------
    Geometry
    """
    check_memory(memory)
    if memory is None:
        return _compute(features, outcomes, **settings)
    if isinstance(memory, str) and memory == "process":
        return _process_cache.get(features, outcomes, settings)
    if isinstance(memory, str | PathLike):
        memory = joblib.Memory(memory, verbose=0)
    kept = memory.cache(_compute, ignore=["n_jobs", "verbose"])
    # A certificate may not rest on what an older version computed.
    return kept(features, outcomes, version=sharpfit.__version__, **settings)
