"""What an analyser passes on to the estimator it analyses."""

import html
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted


def _estimator_has(name: str) -> Callable[[Any], bool]:
    def check(self: Any) -> bool:
        return hasattr(getattr(self, "estimator_", self.estimator), name)

    return check


class StatingEstimator(BaseEstimator):
    """Base of estimators whose representations end with what `_statement` returns."""

    def _statement(self) -> str | None:
        return None

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        text, statement = super().__repr__(N_CHAR_MAX), self._statement()
        return text if statement is None else f"{text}  # {statement}"

    def _repr_html_inner(self) -> str:
        return super()._repr_html_inner() + self._statement_html()

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        bundle = super()._repr_mimebundle_(**kwargs)
        if "text/html" in bundle:
            bundle["text/html"] += self._statement_html()
        return bundle

    def _statement_html(self) -> str:
        statement = self._statement()
        return "" if statement is None else f"<p>{html.escape(statement)}</p>"


class DelegatingAnalyser(MetaEstimatorMixin, StatingEstimator):
    """Base of analysers that predict as the estimator they analyse.

    Subclasses have a parameter `estimator` and set `estimator_` when fitted.
    """

    estimator: Any
    estimator_: Any

    @property
    def classes_(self) -> np.ndarray:
        """Class labels of a classifier."""
        return self.estimator_.classes_

    @available_if(_estimator_has("predict"))
    def predict(self, X: Any) -> np.ndarray:
        """Predict with the trained estimator.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Rows.

        Returns
        -------
        ndarray
        """
        check_is_fitted(self, "estimator_")
        return self.estimator_.predict(X)

    @available_if(_estimator_has("predict_proba"))
    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict class probabilities with the trained estimator.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Rows.

        Returns
        -------
        ndarray of shape (n, n_classes)
        """
        check_is_fitted(self, "estimator_")
        return self.estimator_.predict_proba(X)

    @available_if(_estimator_has("decision_function"))
    def decision_function(self, X: Any) -> np.ndarray:
        """Return the decision function of the trained estimator.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Rows.

        Returns
        -------
        ndarray
        """
        check_is_fitted(self, "estimator_")
        return self.estimator_.decision_function(X)

    @available_if(_estimator_has("transform"))
    def transform(self, X: Any) -> np.ndarray:
        """Transform with the trained estimator.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Rows.

        Returns
        -------
        ndarray
        """
        check_is_fitted(self, "estimator_")
        return self.estimator_.transform(X)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.estimator_type = inner.estimator_type
        tags.classifier_tags = inner.classifier_tags
        tags.regressor_tags = inner.regressor_tags
        tags.target_tags = inner.target_tags
        tags.input_tags = inner.input_tags
        return tags
