"""The matrices that whole analyses are made of."""

import difflib
import inspect
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

    Raises
    ------
    TypeError
        For a setting that the operator does not have.
    """
    kind: type[SpectrumOperator]
    if isinstance(criterion, BatchObjective) and matrix == "hessian":
        kind = ObjectiveHessianOperator
    elif matrix in MATRICES:
        kind = MATRICES[matrix]
    else:
        raise ValueError(f"matrix must be one of {tuple(MATRICES)}, got {matrix!r}")
    known = inspect.signature(kind).parameters
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise TypeError(
                f"{kind.__name__} has no setting {name!r}"
                f"{f'; did you mean {near[0]!r}?' if near else f'; it has {tuple(known)[4:]}'}"
            )
    return kind(module, criterion, *rows, **settings)
