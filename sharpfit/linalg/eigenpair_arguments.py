"""What the eigensolver is asked for, checked before any product."""

from numbers import Real
from typing import Any

from .operator import SymmetricOperator


def check_arguments(operator: Any, n_eigenvalues: Any, which: Any, tol: Any, budget: Any) -> None:
    """Refuse arguments of `top_eigenpairs` that are not what they should be.

    Parameters
    ----------
    operator, n_eigenvalues, which, tol : object
        As for `top_eigenpairs`.
    budget : object
        Its `max_products`.

    Raises
    ------
    TypeError
        For one of another kind.
    ValueError
        For one out of range.
    """
    if not isinstance(operator, SymmetricOperator):
        raise TypeError(
            f"operator must be a SymmetricOperator, got {type(operator).__name__}; a symmetric "
            "matrix becomes one by DenseOperator(torch.as_tensor(matrix))."
        )
    if operator.size == 0:
        raise ValueError("the operator has size 0: it has no eigenvalues.")
    if isinstance(n_eigenvalues, bool) or not hasattr(n_eigenvalues, "__index__"):
        raise TypeError(f"n_eigenvalues must be an int, got {n_eigenvalues!r}.")
    if not 1 <= n_eigenvalues <= operator.size:
        raise ValueError(
            f"n_eigenvalues={n_eigenvalues} must be between 1 and the operator's size, "
            f"{operator.size}."
        )
    if which not in ("largest", "smallest", "magnitude"):
        raise ValueError(f'which={which!r} must be "largest", "smallest" or "magnitude".')
    if not isinstance(tol, Real) or not 0 <= float(tol) < 1:
        raise ValueError(f"tol={tol!r} must be at least 0 and below 1: it is relative.")
    if not isinstance(budget, Real) or not float(budget).is_integer():
        raise TypeError(f"max_products must be an int, got {budget!r}.")
    if budget < n_eigenvalues:
        raise ValueError(
            f"max_products={budget} cannot give n_eigenvalues={n_eigenvalues} pairs; each needs "
            "at least one product."
        )
