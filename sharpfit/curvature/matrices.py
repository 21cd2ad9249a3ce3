"""The matrices that whole analyses are made of."""

from typing import Any, Literal

from torch import nn

from sharpfit.curvature.batch_objective import BatchObjective, ObjectiveHessianOperator
from sharpfit.curvature.gauss_newton import GaussNewtonOperator
from sharpfit.curvature.hessian import HessianOperator
from sharpfit.curvature.operator import NetworkOperator

Matrix = Literal["hessian", "gauss_newton"]
SpectrumOperator = NetworkOperator | ObjectiveHessianOperator

MATRICES: dict[str, type[NetworkOperator]] = {
    "hessian": HessianOperator,
    "gauss_newton": GaussNewtonOperator,
}


def spectrum_operator(
    matrix: Matrix, module: nn.Module, criterion: Any, *rows: Any, **settings: Any
) -> SpectrumOperator:
    """Return the operator of a matrix.

    Parameters
    ----------
    matrix : {"hessian", "gauss_newton"}
    module : torch.nn.Module
    criterion : torch.nn.Module, SampleLoss or BatchObjective
    *rows : Tensor, Dataset or DataLoader
        Inputs, and targets where they are tensors.
    **settings : dict
        Settings of the operator.

    Returns
    -------
    NetworkOperator or ObjectiveHessianOperator
    """
    if isinstance(criterion, BatchObjective) and matrix == "hessian":
        return ObjectiveHessianOperator(module, criterion, *rows, **settings)
    if matrix not in MATRICES:
        raise ValueError(f"matrix must be one of {tuple(MATRICES)}, got {matrix!r}")
    return MATRICES[matrix](module, criterion, *rows, **settings)
