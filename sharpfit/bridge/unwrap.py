"""Find the network inside anything shaped like a scikit-learn estimator."""

from dataclasses import dataclass
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.compose import TransformedTargetRegressor
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNet

ACCEPTED = (
    "a NetworkClassifier, a NetworkRegressor, a skorch net, or a Pipeline, GridSearchCV, "
    "FrozenEstimator or TransformedTargetRegressor around one"
)


@dataclass(frozen=True)
class Parts:
    """What an estimator consists of, from its inputs to its network.

    Attributes
    ----------
    network : skorch.NeuralNet
        The network at the end.
    preprocessing : tuple of transformers
        Steps in front of the network, in the order in which they act on the inputs.
    target_transformer : transformer or None
        Fitted transformer of the regression targets, if there is one.
    """

    network: NeuralNet
    preprocessing: tuple[Any, ...]
    target_transformer: Any | None


def unwrap(estimator: BaseEstimator) -> Parts:
    """Take an estimator apart, fitted or not.

    Parameters
    ----------
    estimator : estimator object
        A skorch net, or a pipeline, search, frozen estimator or target transformation
        around one, in any nesting.

    Returns
    -------
    Parts

    Raises
    ------
    TypeError
        If there is no network at the end of it.
    ValueError
        If it is a search with ``refit=False``.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skorch import NeuralNetRegressor
    >>> from sharpfit.bridge import unwrap
    >>> unwrap(make_pipeline(StandardScaler(), NeuralNetRegressor(None))).preprocessing
    (StandardScaler(),)
    """
    current: Any = estimator
    preprocessing: list[Any] = []
    target_transformer = None
    while not isinstance(current, NeuralNet):
        if isinstance(current, FrozenEstimator):
            current = current.estimator
        elif isinstance(current, BaseSearchCV):
            if not current.refit:
                raise ValueError(
                    f"{type(current).__name__} has refit=False and keeps no winner to analyse; set "
                    "refit=True, or the name of the metric that decides"
                )
            current = getattr(current, "best_estimator_", current.estimator)
        elif isinstance(current, Pipeline):
            steps = [step for _, step in current.steps]
            preprocessing += [step for step in steps[:-1] if step not in (None, "passthrough")]
            current = steps[-1]
        elif isinstance(current, TransformedTargetRegressor):
            if target_transformer is not None:
                raise TypeError(
                    "estimator transforms its targets twice; put one transformer, for example a "
                    "Pipeline of both, into a single TransformedTargetRegressor"
                )
            target_transformer = getattr(current, "transformer_", current.transformer)
            current = getattr(current, "regressor_", current.regressor)
        else:
            raise TypeError(
                f"estimator {_describe(current, estimator)} has no neural network to analyse; "
                f"pass {ACCEPTED}"
            )
    return Parts(current, tuple(preprocessing), target_transformer)


def is_trained(estimator: BaseEstimator) -> bool:
    """Tell whether an estimator is trained, its preprocessing and its network both.

    A network is trained when it has a training history or loaded weights; one that is
    merely initialised is not.

    Parameters
    ----------
    estimator : estimator object
        As for `unwrap`.

    Returns
    -------
    bool
    """
    current: Any = estimator
    while not isinstance(current, (NeuralNet, Pipeline)):
        if isinstance(current, FrozenEstimator):
            current = current.estimator
        elif isinstance(current, BaseSearchCV):
            if not hasattr(current, "best_estimator_"):
                return False
            current = current.best_estimator_
        else:
            if not hasattr(current, "regressor_"):
                return False
            current = current.regressor_
    if isinstance(current, Pipeline):
        steps = [step for _, step in current.steps]
        return all(_is_fitted(step) for step in steps[:-1]) and is_trained(steps[-1])
    return _network_is_trained(current)


def has_unexplained_weights(network: NeuralNet) -> bool:
    """Tell whether a network has weights but nothing says where they come from.

    Parameters
    ----------
    network : skorch.NeuralNet

    Returns
    -------
    bool
        True for a net that is initialised but has neither history nor loaded weights.
    """
    return bool(getattr(network, "initialized_", False)) and not _network_is_trained(network)


def _network_is_trained(network: NeuralNet) -> bool:
    if not getattr(network, "initialized_", False):
        return False
    return len(network.history) > 0 or bool(getattr(network, "_weights_loaded", False))


def _is_fitted(step: Any) -> bool:
    if step in (None, "passthrough"):
        return True
    try:
        check_is_fitted(step)
    except NotFittedError:
        return False
    return True


def _describe(found: Any, whole: Any) -> str:
    name = type(found).__name__ if isinstance(found, BaseEstimator) else repr(found)
    if found is whole:
        return name
    return f"{type(whole).__name__} ends in {name}, which"
