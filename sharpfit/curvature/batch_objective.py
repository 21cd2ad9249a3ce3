"""Objectives of the whole data set that are not sums over its rows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sharpfit.curvature.data import Source
from sharpfit.curvature.network import differentiable_kernels, snapshot
from sharpfit.curvature.operator_settings import checked_weight_decay
from sharpfit.curvature.parameters import ParameterChoice
from sharpfit.linalg import SymmetricOperator
from sharpfit.objective.first_outputs import first_results


@dataclass(frozen=True)
class BatchObjective:
    """A loss with terms that belong to no row, such as a penalty on the parameters.

    It has a Hessian, but no Gauss-Newton matrix and no attribution to samples.

    Parameters
    ----------
    function : callable
        ``function(module, inputs, targets) -> scalar Tensor``, differentiable twice. It is
        given all rows at once.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from sharpfit.curvature import BatchObjective, ObjectiveHessianOperator
    >>> penalised = BatchObjective(lambda module, x, y: (module(x) - y).square().mean()
    ...                            + 0.5 * module.weight.square().sum())
    >>> network, inputs = nn.Linear(1, 1, bias=False), torch.tensor([[3.0]])
    >>> ObjectiveHessianOperator(network, penalised, inputs, torch.ones(1, 1)).to_dense()
    tensor([[19.]])
    """

    function: Callable[[nn.Module, Tensor, Tensor], Tensor]


class ObjectiveHessianOperator(SymmetricOperator):
    """Hessian of a `BatchObjective`, by double backward through one kept graph.

    Parameters
    ----------
    module : torch.nn.Module
        A copy in eval mode is analysed.
    objective : BatchObjective
        The objective.
    inputs : Tensor of shape (n, ...)
        All rows; data sets are refused.
    targets : Tensor of shape (n, ...)
        Their targets.
    parameters : str, iterable of str, callable or None, default=None
        Parameters the matrix is taken in; see `select_parameters`.
    weight_decay : float, default=0.0
        Coefficient added to the diagonal.
    dtype : torch.dtype, optional
        ``torch.float32`` or ``torch.float64`` to analyse a converted copy.

    Attributes
    ----------
    selection : ParameterSelection
        Names and shapes of the parameters.
    n_rows : int
        Number of rows.

    Raises
    ------
    ValueError
        If the objective is not one finite number, or the rows are no tensors.
    """

    route = "graph"
    process_group = None

    def __init__(
        self,
        module: nn.Module,
        objective: BatchObjective,
        inputs: Source,
        targets: Tensor | None = None,
        *,
        parameters: ParameterChoice = None,
        weight_decay: float = 0.0,
        dtype: torch.dtype | None = None,
    ) -> None:
        if not isinstance(inputs, Tensor) or targets is None:
            raise ValueError(
                "a BatchObjective needs inputs and targets as tensors: it cannot be summed over "
                "the batches of a data set"
            )
        network = snapshot(module, parameters, dtype)
        if dtype is not None and inputs.is_floating_point():
            inputs = inputs.to(dtype)
        first_results(
            network.module,
            lambda rows: objective.function(network.module, rows, targets),
            inputs,
            "the objective",
        )
        self.selection = network.selection
        self.size = self.selection.size
        self.dtype = network.dtype
        self.device = network.device
        self.weight_decay = checked_weight_decay(weight_decay)
        self.n_rows = inputs.shape[0]
        self._parameters = network.parameters
        with torch.enable_grad(), differentiable_kernels():
            value = objective.function(network.module, inputs, targets)
            if value.numel() != 1 or not bool(value.isfinite()):
                raise ValueError(f"objective must return one finite number, got {value.detach()}")
            self._gradient: tuple[Tensor, ...] = ()
            if value.requires_grad:
                self._gradient = torch.autograd.grad(
                    value.sum(), self._parameters, create_graph=True, materialize_grads=True
                )

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError(
            f"{type(self).__name__} holds a graph of derivatives and can be neither pickled nor "
            "copied; make another one from its module and objective"
        )

    def matvec(self, vector: Tensor) -> Tensor:
        """Multiply the matrix by one vector.

        Parameters
        ----------
        vector : Tensor of shape (size,)

        Returns
        -------
        Tensor of shape (size,)
        """
        direction = self.selection.split(vector)
        pairs = [
            (part, v)
            for part, v in zip(self._gradient, direction, strict=False)
            if part.requires_grad
        ]
        product = self.weight_decay * vector
        if not pairs:
            return product
        parts = torch.autograd.grad(
            [part for part, _ in pairs],
            self._parameters,
            [v for _, v in pairs],
            retain_graph=True,
            materialize_grads=True,
        )
        return product + self.selection.join(parts)
