"""Finished runs, kept on disk under what their results depend on."""

import inspect
import pickle
from collections.abc import Callable
from typing import Any

import joblib
from sklearn.base import BaseEstimator

import sharpfit
from sharpfit.bridge import unwrap
from sharpfit.comparison.runs import Run, evaluate_run


def keeping(memory: str | joblib.Memory) -> Callable[..., Run]:
    """Return `evaluate_run`, whose results are kept under their key.

    Parameters
    ----------
    memory : path or joblib.Memory
        Where.

    Returns
    -------
    callable
    """
    store = memory if isinstance(memory, joblib.Memory) else joblib.Memory(memory, verbose=0)
    # A worker cannot name a class of the user's script or notebook, which hashing needs.
    hashed_before = [name for name in inspect.signature(evaluate_run).parameters if name != "key"]
    return store.cache(evaluate_run, ignore=hashed_before)


def key_of_run(name: str, estimator: BaseEstimator, *settings: Any) -> str:
    """Return what the result of a run is kept under.

    Parameters
    ----------
    name : str
        Name of the run, for the error.
    estimator : estimator object
        A network, or a pipeline around one. The source of its module's class counts, where
        Python knows it.
    *settings : object
        Whatever else the result depends on.

    Returns
    -------
    str
        A hash of these and the version of the library.

    Raises
    ------
    ValueError
        If something has no hash, such as a function without a name.
    """
    module = unwrap(estimator).network.module
    kind = module if inspect.isclass(module) else type(module)
    try:
        source = inspect.getsource(kind)
    except (OSError, TypeError):
        source = ""
    try:
        return joblib.hash((estimator, settings, source, sharpfit.__version__))
    except pickle.PicklingError as error:
        raise ValueError(
            f"memory= keeps runs by the hash of their estimators, and run {name!r} has none: "
            f"{error.args[0]}. Define its classes and functions at the top level of a file, or "
            "leave memory out"
        ) from error
