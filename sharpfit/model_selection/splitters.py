"""Splitters for searches that score candidates on their training rows."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import BaseCrossValidator
from sklearn.utils import indexable
from sklearn.utils.validation import _num_samples


class ResubstitutionSplit(BaseCrossValidator):
    """One split whose training rows and scored rows are both all rows.

    A bound, or any criterion computed from training rows, needs no held-out rows: with
    this splitter a search fits each candidate once, on every row, and scores it on the
    same rows. Scores that need fresh rows, such as accuracy, mean nothing under it.

    Examples
    --------
    >>> import numpy as np
    >>> from sharpfit import ResubstitutionSplit
    >>> list(ResubstitutionSplit().split(np.zeros((3, 2))))
    [(array([0, 1, 2]), array([0, 1, 2]))]
    """

    def split(
        self, X: Any, y: Any = None, groups: Any = None
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Yield all rows twice: to train on and to score on.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Rows.
        y : array-like of shape (n, ...), optional
            Targets; only their number is looked at.
        groups : array-like of shape (n,), optional
            Ignored: no row is held out.

        Yields
        ------
        train, test : ndarray of shape (n,), int
        """
        X, y, groups = indexable(X, y, groups)
        rows = np.arange(_num_samples(X))
        yield rows, rows.copy()

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of splits, which is one.

        Parameters
        ----------
        X, y, groups : object
            Ignored.

        Returns
        -------
        int
        """
        return 1
