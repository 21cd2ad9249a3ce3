"""Build the problem behind an estimator, training a clone where needed."""

import copy
import warnings
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import sklearn
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_consistent_length
from skorch import NeuralNet, NeuralNetClassifier
from torch import Tensor, nn

from sharpfit.bridge.data import encode_labels, input_tensor, preprocess, target_tensor
from sharpfit.bridge.problem import Problem
from sharpfit.bridge.unwrap import has_unexplained_weights, is_trained, unwrap
from sharpfit.networks._randomness import untouched_generators
from sharpfit.objective import RowwiseLoss, SampleLoss, as_sample_loss, split_head

Prefit = Literal["auto"] | bool


def as_problem(
    estimator: BaseEstimator,
    X: Any,
    y: Any = None,
    *,
    prefit: Prefit = "auto",
    sample_weight: Any = None,
    dtype: torch.dtype | None = None,
) -> Problem:
    """Return the module, loss and data behind an estimator and rows.

    The estimator, its network, the data and the global random states stay as they are:
    the module is a deep copy in evaluation mode.

    Parameters
    ----------
    estimator : estimator object
        A skorch net, or a pipeline, fitted search, frozen estimator or target
        transformation around one.
    X : array-like of shape (n, ...)
        Raw rows, as the estimator takes them.
    y : array-like of shape (n,) or (n, k), optional
        Targets.
    prefit : "auto" or bool, default="auto"
        "auto" takes a trained estimator as it is and fits a clone otherwise; True
        refuses an untrained one; False always fits a clone.
    sample_weight : array-like of shape (n,), optional
        Weights of the samples in the loss, also handed to the fit of a clone.
    dtype : torch.dtype, optional
        Floating dtype of the analysis; the module's own by default.

    Returns
    -------
    Problem

    Raises
    ------
    TypeError
        If `estimator` contains no network, or the rows are not one dense array.
    ValueError
        If an argument has an unknown value, `y` is missing where a fit needs it, or its
        labels are unknown to the network.
    sklearn.exceptions.NotFittedError
        If ``prefit=True`` and the estimator is not trained.
    """
    if prefit not in ("auto", True, False):
        raise ValueError(f"prefit must be 'auto', True or False, got {prefit!r}")
    unwrap(estimator)
    check_consistent_length(X, y, sample_weight)
    fitted, refitted = _fitted(estimator, X, y, prefit, sample_weight)
    parts = unwrap(fitted)
    network = parts.network
    _warn_about_hidden_rows(network)

    inputs = input_tensor(network, preprocess(X, parts.preprocessing))
    module, criterion = _snapshot(network, inputs)
    if dtype is not None:
        module = module.to(dtype)
        inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
    classes = _classes(network, module, inputs)
    loss = objective = targets = labels = weights = None
    if y is not None:
        targets = target_tensor(network, y, parts.target_transformer)
        if targets.is_floating_point() and inputs.is_floating_point():
            targets = targets.to(inputs.dtype)
        if classes is not None and _is_vector(y):
            labels = encode_labels(y, classes)
        weights = _sample_weight(network, y, sample_weight, inputs.device)
        if _overrides_loss(network):
            objective = _objective(network)
        else:
            loss = _sample_loss(criterion, classes is not None, module, inputs, targets)
    return Problem(
        estimator=fitted,
        refitted=refitted,
        network=network,
        module=module,
        loss=loss,
        objective=objective,
        inputs=inputs,
        targets=targets,
        sample_weight=weights,
        task="regression" if classes is None else "classification",
        classes=classes,
        labels=labels,
        preprocessing=parts.preprocessing,
        target_transformer=parts.target_transformer,
        raw_inputs=X,
    )


def _fitted(
    estimator: BaseEstimator, X: Any, y: Any, prefit: Prefit, sample_weight: Any
) -> tuple[BaseEstimator, bool]:
    name = type(estimator).__name__
    if prefit is not False:
        if is_trained(estimator):
            return estimator, False
        if prefit is True:
            raise NotFittedError(
                f"estimator {name} is not trained, and prefit=True does not train; call its fit "
                "first, or pass prefit='auto' to fit a clone"
            )
        if has_unexplained_weights(unwrap(estimator).network):
            warnings.warn(
                f"the network in {name} is initialised but has no training history, so a clone of "
                "it is fitted and its present weights are not used; if they were loaded, load the "
                "history with them (f_history=), or train with partial_fit first",
                UserWarning,
                stacklevel=4,
            )
    if y is None:
        raise ValueError(
            f"y is None, but estimator {name} is to be fitted first; pass y, or a trained estimator"
        )
    network = unwrap(estimator).network
    is_plain = not hasattr(network, "loss_row_weights")
    weights = {}
    if sample_weight is not None:
        if is_plain:
            raise TypeError(
                f"sample_weight is given, but the skorch net {type(network).__name__} cannot train "
                "with it; use NetworkClassifier or NetworkRegressor, or pass a trained net"
            )
        weights = {_weight_parameter(estimator): sample_weight}
    try:
        return clone(estimator).fit(X, y, **weights), True
    except RuntimeError as error:
        if is_plain and "dtype" in str(error):
            raise TypeError(
                f"the skorch net {type(network).__name__} cannot train on rows of this dtype "
                f"({error}); pass X.astype('float32'), or use NetworkClassifier or "
                "NetworkRegressor, which convert"
            ) from error
        raise


def _weight_parameter(estimator: BaseEstimator) -> str:
    """Name under which ``fit`` hands sample weights on to the network."""
    if sklearn.get_config()["enable_metadata_routing"]:
        return "sample_weight"
    current: Any = estimator
    prefix = ""
    while not isinstance(current, NeuralNet):
        if isinstance(current, Pipeline):
            name, current = current.steps[-1]
            prefix += f"{name}__"
        else:
            current = current.regressor if hasattr(current, "regressor") else current.estimator
    return f"{prefix}sample_weight"


def _warn_about_hidden_rows(network: NeuralNet) -> None:
    if network.train_split is not None:
        warnings.warn(
            f"{type(network).__name__} has train_split={network.train_split!r}, so it was trained "
            "on a part of the rows it was given and an analysis of all of them is not one of its "
            "training rows; set train_split=None to train on every row",
            UserWarning,
            stacklevel=4,
        )


def _snapshot(network: NeuralNet, inputs: Tensor) -> tuple[nn.Module, nn.Module]:
    """Copy the module so that it returns logits in evaluation mode, and its criterion."""
    original = getattr(network.module_, "_orig_mod", network.module_)  # below torch.compile
    module = copy.deepcopy(original).eval()
    module.zero_grad(set_to_none=True)
    with untouched_generators(_cuda_devices(inputs)):
        return split_head(
            module,
            copy.deepcopy(network.criterion_),
            inputs[: min(8, len(inputs))],
            criterion_takes_log=isinstance(network, NeuralNetClassifier),
        )


def _cuda_devices(inputs: Tensor) -> list[torch.device]:
    return [inputs.device] if inputs.device.type == "cuda" else []


def _classes(network: NeuralNet, module: nn.Module, inputs: Tensor) -> NDArray[Any] | None:
    """Class labels in the order of the outputs, or None for a regressor."""
    if not is_classifier(network):
        return None
    if hasattr(network, "target_tensor"):
        return np.asarray(network.classes_)
    # Plain skorch nets do not encode labels: label k is output k.
    with torch.no_grad():
        n_outputs = module(inputs[:1]).shape[1]
    return np.arange(max(n_outputs, 2))


def _is_vector(y: Any) -> bool:
    shape = np.asarray(y).shape
    return len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)


def _sample_weight(
    network: NeuralNet, y: Any, sample_weight: Any, device: torch.device
) -> Tensor | None:
    if hasattr(network, "loss_row_weights"):
        weights = network.loss_row_weights(y, sample_weight)
    else:
        weights = sample_weight
    return None if weights is None else torch.as_tensor(np.asarray(weights), device=device)


def _overrides_loss(network: NeuralNet) -> bool:
    owner = next(kind for kind in type(network).__mro__ if "get_loss" in vars(kind))
    return owner.__module__.split(".")[0] not in ("skorch", "sharpfit")


def _objective(network: NeuralNet) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    analysed = copy.deepcopy(network)

    def objective(module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        # Past skorch's __setattr__, which would register the module as a new one.
        analysed.__dict__["module_"] = module
        return analysed.get_loss(module(inputs), targets, X=inputs, training=False)

    return objective


def _sample_loss(
    criterion: nn.Module, is_classification: bool, module: nn.Module, inputs: Tensor, y: Tensor
) -> SampleLoss:
    loss = as_sample_loss(criterion, task="classification" if is_classification else "regression")
    if isinstance(loss, RowwiseLoss):
        with torch.no_grad():
            loss.check_additive(module(inputs[:64]), y[:64])
    return loss
