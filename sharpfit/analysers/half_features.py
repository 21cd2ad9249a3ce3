"""Features fitted on one random half of the rows, which a bound may use as its metric."""

from numbers import Real
from typing import Any

import joblib
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, clone, is_classifier
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import check_consistent_length, check_is_fitted

__all__ = ["HalfFeatures"]


class HalfFeatures(TransformerMixin, BaseEstimator):
    """Pipeline step that fits features on a random part of the rows and transforms all rows.

    A bound whose distances are taken between features holds when the features were fitted on the
    reference half ``U`` of the rows alone, while whatever follows is trained on all rows.
    :class:`~sharpfit.GeneralisationBound` and ``bound_scorer`` recognise the step: everything up
    to it is the metric, and its rows are ``U``. Rows other than those of the fit can be
    transformed, but no bound can be taken on them. Parts of the estimator that are frozen, or
    modules with weights, stay as they were fitted before: the bound assumes then that they were
    fitted on other rows. To fit the features once for all candidates
    of a search, freeze the fitted step: ``FrozenEstimator(HalfFeatures(network).fit(X, y))``.

    Parameters
    ----------
    estimator : transformer, classifier or regressor
        Fitted, as a clone, on the drawn rows. A transformer gives ``transform``, a classifier the
        class probabilities, a regressor its predictions.
    fraction : float, default=0.5
        Share of the rows that is drawn.
    n_metrics : int, default=1
        Number of feature steps among which this one was chosen by looking at the rows; the bound
        pays the logarithm.
    random_state : int, default=0
        Seed of the draw. An integer, so that every candidate of a search draws the same rows.

    Attributes
    ----------
    estimator_ : estimator object
        The fitted clone.
    mask_ : ndarray of bool of shape (n_samples,)
        True for the rows it was fitted on.
    rows_hash_ : str
        Hash of the rows of the fit.

    Raises
    ------
    TypeError
        If ``estimator`` gives no features.
    ValueError
        If ``fraction`` is not strictly between 0 and 1 or leaves a side without rows, or rows and
        targets differ in number.

    Examples
    --------
    >>> import numpy as np
    >>> from sharpfit import HalfFeatures
    >>> from sklearn.preprocessing import StandardScaler
    >>> step = HalfFeatures(StandardScaler()).fit(np.arange(8.0).reshape(-1, 1))
    >>> int(step.mask_.sum())
    4
    """

    def __init__(
        self,
        estimator: Any,
        *,
        fraction: float = 0.5,
        n_metrics: int = 1,
        random_state: int = 0,
    ):
        self.estimator = estimator
        self.fraction = fraction
        self.n_metrics = n_metrics
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> "HalfFeatures":
        """Draw the rows and fit a clone of the estimator on them.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,), optional
            Targets, for an estimator that needs them.

        Returns
        -------
        HalfFeatures
        """
        if not (isinstance(self.fraction, Real) and 0.0 < self.fraction < 1.0):
            raise ValueError(f"fraction={self.fraction!r} must lie strictly between 0 and 1.")
        if not isinstance(self.random_state, int | np.integer) or self.random_state < 0:
            raise TypeError(
                f"random_state={self.random_state!r} must be an integer, not negative: the rows "
                "must be drawn in the same way for every candidate."
            )
        is_whole = isinstance(self.n_metrics, int | np.integer) and self.n_metrics is not True
        if not is_whole or self.n_metrics < 1:
            raise ValueError(f"n_metrics={self.n_metrics!r} must be a positive integer.")
        _check_estimator(self.estimator)
        check_consistent_length(X, y)
        n_samples = X.shape[0] if hasattr(X, "shape") else len(X)
        n_drawn = round(self.fraction * n_samples)
        if not 0 < n_drawn < n_samples:
            raise ValueError(
                f"fraction={self.fraction!r} of {n_samples} rows leaves one side empty."
            )
        mask = np.zeros(n_samples, dtype=bool)
        drawn = np.random.default_rng(int(self.random_state)).permutation(n_samples)[:n_drawn]
        mask[drawn] = True
        rows = np.flatnonzero(mask)
        targets = None if y is None else _safe_indexing(y, rows)
        self.estimator_ = clone(self.estimator).fit(_safe_indexing(X, rows), targets)
        self.mask_ = mask
        self.rows_hash_ = _rows_hash(X)
        if hasattr(self.estimator_, "n_features_in_"):
            self.n_features_in_ = self.estimator_.n_features_in_
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Compute the features of any rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples, n_outputs)
        """
        check_is_fitted(self, "estimator_")
        if hasattr(self.estimator_, "transform"):
            return self.estimator_.transform(X)
        if is_classifier(self.estimator_):
            return self.estimator_.predict_proba(X)
        predictions = np.asarray(self.estimator_.predict(X))
        return predictions.reshape(len(predictions), -1)

    def reference_mask(self, X: Any) -> np.ndarray:
        """Return which rows the features were fitted on, if these are the rows of the fit.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows of the fit.

        Returns
        -------
        ndarray of bool of shape (n_samples,)

        Raises
        ------
        ValueError
            If these are other rows.
        """
        check_is_fitted(self, "estimator_")
        if _rows_hash(X) != self.rows_hash_:
            raise ValueError(
                "HalfFeatures was fitted on other rows than those of the bound; the one-sided "
                "bound holds on the rows of the fit only. Pass the X of the fit, in its order; in "
                "a search, cv=ResubstitutionSplit() scores candidates on the rows of their fit."
            )
        return self.mask_


def _check_estimator(estimator: Any) -> None:
    """Refuse what gives no features, before it is fitted."""
    if isinstance(estimator, type) or not hasattr(estimator, "fit"):
        name = estimator.__name__ if isinstance(estimator, type) else type(estimator).__name__
        raise TypeError(
            f"estimator must be a transformer, classifier or regressor, got {name}"
            f"{f'; write {name}()' if isinstance(estimator, type) else ''}."
        )
    found = "predict_proba" if is_classifier(estimator) else "predict"
    if not hasattr(estimator, "transform") and not hasattr(estimator, found):
        raise TypeError(
            f"estimator {type(estimator).__name__} has neither transform nor {found}, from which "
            "features come; give a transformer, a classifier with probabilities or a regressor."
        )


def _rows_hash(X: Any) -> str:
    return joblib.hash(np.ascontiguousarray(X.to_numpy() if hasattr(X, "to_numpy") else X))
