"""Analyses that figures are drawn of."""

from typing import Any

from sklearn.utils.validation import check_is_fitted


def check_analysis(analysis: Any, kind: type, attribute: str) -> None:
    """Refuse what is no fitted analysis of a kind.

    Parameters
    ----------
    analysis : object
    kind : type
        Analyser.
    attribute : str
        What fitting it sets.

    Raises
    ------
    TypeError
        For anything else.
    sklearn.exceptions.NotFittedError
        For one that is not fitted.
    """
    if not isinstance(analysis, kind):
        raise TypeError(
            f"expected a fitted {kind.__name__}, got {type(analysis).__name__}; of an estimator, "
            f"{kind.__name__}(estimator).fit(X, y) is one."
        )
    check_is_fitted(analysis, attribute)
