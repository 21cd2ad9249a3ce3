"""The Hessian of a loss that is not known to be a sum over samples."""

from typing import Any

import torch
from torch import Tensor

from sharpfit.bridge import Problem
from sharpfit.curvature import HessianSpectrumResult, select_parameters
from sharpfit.linalg import SymmetricOperator, spectral_density, top_eigenpairs, trace_estimate


class ObjectiveHessian(SymmetricOperator):
    """Hessian of the objective of a network that overrides ``get_loss``, by double backward.

    The objective is evaluated once, on all rows together, since a penalty in it would be counted
    once per batch; its graph is kept between products.

    Parameters
    ----------
    problem : Problem
        With an objective and targets.
    parameters : str, iterable of str, callable or None
        Parameters the matrix is taken in, as `sharpfit.curvature.select_parameters` takes them.
    """

    def __init__(self, problem: Problem, parameters: Any = None) -> None:
        self.selection = select_parameters(problem.module, parameters)
        named = dict(problem.module.named_parameters())
        self._parameters = [named[name] for name in self.selection.names]
        self.size = self.selection.size
        self.dtype = self._parameters[0].dtype
        self.device = self._parameters[0].device
        assert problem.objective is not None
        assert problem.targets is not None
        loss = problem.objective(problem.inputs, problem.targets)
        if not bool(torch.isfinite(loss)):
            raise ValueError(
                f"the loss of these rows is {float(loss)}; check that the network has not diverged"
            )
        gradients = torch.autograd.grad(
            loss, self._parameters, create_graph=True, materialize_grads=True
        )
        self._gradient = self.selection.join(gradients)

    def matvec(self, vector: Tensor) -> Tensor:
        """Multiply by one vector of shape (size,)."""
        if not self._gradient.requires_grad:  # an objective linear in the parameters
            return torch.zeros_like(vector)
        products = torch.autograd.grad(
            self._gradient @ vector, self._parameters, retain_graph=True, materialize_grads=True
        )
        return self.selection.join(products)


def objective_spectrum(
    problem: Problem,
    *,
    parameters: Any,
    n_eigenvalues: int,
    which: Any,
    trace: bool = False,
    density: bool = False,
    tol: float,
    max_products: int | None,
    random_state: int | None,
    verbose: int,
) -> HessianSpectrumResult:
    """Compute the spectrum of `ObjectiveHessian`, with the settings of `hessian_spectrum`.

    Parameters
    ----------
    problem : Problem
        With an objective and targets.
    parameters, n_eigenvalues, which, trace, density, tol, max_products, random_state, verbose
        As for `sharpfit.curvature.hessian_spectrum`.

    Returns
    -------
    HessianSpectrumResult
        Its Gauss-Newton share is NaN: the objective has no Gauss-Newton matrix.
    """
    operator = ObjectiveHessian(problem, parameters)
    pairs = top_eigenpairs(
        operator,
        min(n_eigenvalues, operator.size),
        which=which,
        tol=tol,
        max_products=max_products,
        random_state=random_state,
        verbose=verbose,
    )
    settings = {"random_state": random_state, "verbose": verbose}
    return HessianSpectrumResult(
        matrix="hessian",
        which=which,
        eigenvalues=pairs.values.numpy(),
        residual_norms=pairs.residual_norms.numpy(),
        error_bounds=pairs.error_bounds.numpy(),
        converged=pairs.converged.numpy(),
        eigenvectors=pairs.vectors,
        gauss_newton_share=float("nan"),
        trace=trace_estimate(operator, **settings) if trace else None,
        density=spectral_density(operator, **settings) if density else None,
        parameter_names=operator.selection.names,
        n_rows=len(problem.inputs),
        n_products=pairs.n_products,
        interrupted=pairs.interrupted,
        route="graph",
    )
