"""Scorers that read a fitted network and its training rows."""

import warnings
from abc import ABC, abstractmethod
from typing import Any, Literal

import numpy as np
from sklearn.base import BaseEstimator

from sharpfit.bridge import preprocess, unwrap
from sharpfit.networks import rows_hash

Rows = Literal["training", "any"]

# Names of scorers that have warned in this process. A search scores hundreds of times, and
# Python's own once-per-place rule forgets whenever a library suspends its filters.
_WARNED: set[str] = set()


class TrainingRowsScorer(ABC):
    """A scorer object with scikit-learn's call signature; higher is better.

    Subclasses implement `score`. Instances are picklable and hold settings only.

    Parameters
    ----------
    rows : {"training", "any"}, default="training"
        "training" warns, once per process, when a network is scored on rows other than those
        it was fitted on, which this library's networks record and plain skorch nets do not;
        "any" does not look.

    Attributes
    ----------
    __name__ : str
        Name under which the scorer is printed.
    """

    __name__: str

    def __init__(self, rows: Rows = "training"):
        if rows not in ("training", "any"):
            raise ValueError(f"rows must be 'training' or 'any', got {rows!r}")
        self.rows = rows

    def __call__(self, estimator: BaseEstimator, X: Any, y: Any = None) -> float:
        """Score a fitted estimator on rows.

        Parameters
        ----------
        estimator : estimator object
            A fitted network, or a pipeline or search around one.
        X : array-like of shape (n, ...)
            Rows.
        y : array-like of shape (n,) or (n, k), optional
            Targets.

        Returns
        -------
        float
        """
        if self.rows == "training":
            self._warn_about_other_rows(estimator, X, y)
        return float(self.score(estimator, X, y))

    @abstractmethod
    def score(self, estimator: BaseEstimator, X: Any, y: Any) -> float:
        """Compute the score of a fitted estimator on rows.

        Parameters
        ----------
        estimator : estimator object
        X : array-like of shape (n, ...)
        y : array-like of shape (n,) or (n, k)

        Returns
        -------
        float
        """

    def _warn_about_other_rows(self, estimator: BaseEstimator, X: Any, y: Any) -> None:
        parts = unwrap(estimator)
        expected = getattr(parts.network, "training_rows_hash_", None)
        # Plain skorch nets do not record the rows they were trained on.
        if expected is None or self.__name__ in _WARNED:
            return
        if parts.target_transformer is not None:
            y = np.asarray(y)
            y = parts.target_transformer.transform(y.reshape(-1, 1) if y.ndim == 1 else y)
        if rows_hash(preprocess(X, parts.preprocessing), y) != expected:
            _WARNED.add(self.__name__)
            warnings.warn(
                f"{self.__name__} is given rows that the network was not trained on, as happens "
                "in a search without cv=ResubstitutionSplit(): every candidate is then fitted on "
                "a part of the rows, and the score is no statement on the refitted model. Pass "
                "cv=ResubstitutionSplit() (and an integer random_state to a halving search), or "
                "make a scorer with rows='any' if other rows are meant",
                UserWarning,
                stacklevel=3,
            )

    def _accept_sample_weight(self) -> bool:
        # scikit-learn asks each scorer of a multi-metric search when fit gets sample weights.
        return False

    def __repr__(self) -> str:
        return self.__name__
