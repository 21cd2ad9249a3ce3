"""The problem behind an estimator: a module, a loss and data, as tensors."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from skorch import NeuralNet
from torch import Tensor, nn

from sharpfit.objective import SampleLoss


@dataclass(frozen=True, eq=False)
class Problem:
    """What an analyser needs to know about an estimator and rows of data.

    Attributes
    ----------
    estimator : estimator object
        The fitted estimator: the one that was given, or a fitted clone.
    refitted : bool
        Whether `estimator` is a fitted clone.
    network : skorch.NeuralNet
        The fitted network inside `estimator`; not to be changed.
    module : torch.nn.Module
        Snapshot of the network's module in evaluation mode that returns logits or
        predictions of shape (n, C); C is 1 for a binary network with one logit.
    loss : SampleLoss or None
        Per-sample loss on the module's outputs. None without targets, and for a network
        whose ``get_loss`` is overridden.
    objective : callable or None
        For a network whose ``get_loss`` is overridden: ``objective(module, inputs, targets)``
        returns the trained loss of a batch, with a module like `module` in its place.
    inputs : Tensor of shape (n, ...)
        What the network sees.
    targets : Tensor of shape (n,) or (n, k), or None
        Targets as the loss wants them.
    sample_weight : Tensor of shape (n,) or None
        Sample weights, the network's class weights included.
    task : {"classification", "regression"}
        Kind of targets.
    classes : ndarray of shape (n_classes,) or None
        Class labels of a classifier, in the order of its outputs.
    labels : ndarray of shape (n,), int64, or None
        Positions of the targets in `classes`.
    preprocessing : tuple of transformers
        Fitted steps in front of the network.
    target_transformer : transformer or None
        Fitted transformer of the targets of a regressor.
    raw_inputs : array-like of shape (n, ...)
        The rows as they were given, before any preprocessing.
    """

    estimator: BaseEstimator
    refitted: bool
    network: NeuralNet
    module: nn.Module
    loss: SampleLoss | None
    objective: Callable[[nn.Module, Tensor, Tensor], Tensor] | None
    inputs: Tensor
    targets: Tensor | None
    sample_weight: Tensor | None
    task: Literal["classification", "regression"]
    classes: NDArray[Any] | None
    labels: NDArray[np.int64] | None
    preprocessing: tuple[Any, ...]
    target_transformer: Any | None
    raw_inputs: Any

    def sample_loss(self) -> SampleLoss:
        """Return the per-sample loss, or say why there is none.

        Returns
        -------
        SampleLoss

        Raises
        ------
        ValueError
            If there are no targets, or the network overrides ``get_loss``.
        """
        if self.loss is not None:
            return self.loss
        if self.targets is None:
            raise ValueError("y is None, but the loss needs targets; pass y")
        raise ValueError(
            f"{type(self.network).__name__} overrides get_loss, so its loss is not known to be a "
            "sum over samples: only the Hessian is defined for it. Use matrix='hessian' without "
            "attribution, or move the penalty out of get_loss"
        )
