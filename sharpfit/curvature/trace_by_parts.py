"""The trace of a curvature matrix, as much of it exactly as there are closed forms for."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sharpfit.curvature.batch_objective import BatchObjective
from sharpfit.curvature.data import Source
from sharpfit.curvature.hessian import HessianOperator
from sharpfit.curvature.matrices import Matrix, SpectrumOperator, spectrum_operator
from sharpfit.curvature.operator import NetworkOperator
from sharpfit.curvature.parts import Watch
from sharpfit.curvature.residual import ResidualOperator
from sharpfit.curvature.sharding import resolve_group, shared_seed
from sharpfit.curvature.trace import exact_trace, gauss_newton_traces
from sharpfit.linalg import TraceEstimate, trace_estimate
from sharpfit.objective import SampleLoss

# The exact part takes one backward pass per output, all probes together some tens of products.
_SPLIT_PAYS_UP_TO = 50


def curvature_trace(
    module: nn.Module,
    criterion: nn.Module | SampleLoss | BatchObjective,
    inputs: Source,
    targets: Tensor | None = None,
    *,
    matrix: Matrix = "hessian",
    tol: float = 0.02,
    max_products: int = 1000,
    random_state: int | None = None,
    verbose: int = 0,
    **settings: Any,
) -> TraceEstimate:
    r"""Compute the trace of the Hessian or Gauss-Newton matrix of a loss.

    It is exact where `exact_trace` knows it. Otherwise, where the trace of the Gauss-Newton
    matrix is known and the outputs are few, random vectors are spent on the residual alone:
    with :math:`H = G + R` and random signs `w`, the variance of
    :math:`\mathrm{tr}\,G + w^\top R\,w` is at most :math:`2\,|R|_F^2`, which near a good fit is
    a small part of :math:`2\,|H|_F^2`. What remains is estimated as a whole by XTrace.

    Parameters
    ----------
    module : torch.nn.Module
        Returns logits or predictions of shape (n, C); analysed in eval mode, on a copy.
    criterion : torch.nn.Module, SampleLoss or BatchObjective
        Loss of the outputs.
    inputs : Tensor of shape (n, ...), Dataset or DataLoader
        The rows.
    targets : Tensor of shape (n, ...), optional
        Targets of a tensor of inputs.
    matrix : {"hessian", "gauss_newton"}, default="hessian"
        The matrix.
    tol : float, default=0.02
        Relative standard error to reach where the trace is not exact.
    max_products : int, default=1000
        Budget of products, at least 4.
    random_state : int, optional
        Seed of the probes.
    verbose : int, default=0
        Whether to print the estimate after each batch of probes.
    **settings : dict
        Settings of the operator, as for `hessian_spectrum`.

    Returns
    -------
    TraceEstimate
        Weight decay included, with the method "exact", "split", "xtrace" or "dense".

    Raises
    ------
    ValueError
        For arguments out of range, and for rows whose outputs or losses are not finite.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from sharpfit.curvature import curvature_trace
    >>> network, inputs = nn.Linear(1, 1), torch.tensor([[3.0]])
    >>> trace = curvature_trace(network, nn.MSELoss(), inputs, torch.ones(1, 1))
    >>> trace.value, trace.standard_error  # 2 (x^2 + 1)
    (20.0, 0.0)
    """
    arguments = (module, criterion, inputs, targets)
    group = resolve_group(settings.get("process_group", "auto"))
    return best_trace(
        spectrum_operator(matrix, *arguments, **settings),
        lambda operator: operator,
        residual=partial(ResidualOperator, *arguments, **settings),
        tol=tol,
        max_products=max_products,
        random_state=shared_seed(group, random_state),
        verbose=verbose,
    )


def best_trace(
    operator: SpectrumOperator,
    watch: Watch,
    *,
    residual: Callable[..., ResidualOperator],
    **probing: Any,
) -> TraceEstimate:
    """Compute the trace of an operator in the best way there is.

    Parameters
    ----------
    operator : SpectrumOperator
        The matrix.
    watch : callable
        Products are made with ``watch(operator)``.
    residual : callable
        Returns the residual operator on the same rows, with settings by name.
    **probing : dict
        Settings of `trace_estimate`.

    Returns
    -------
    TraceEstimate
    """
    if not isinstance(operator, NetworkOperator):
        return trace_estimate(watch(operator), **probing)
    decay = operator.weight_decay * operator.size
    traces = exact_trace(operator)
    if traces is not None:
        return TraceEstimate(float(traces.sum()) + decay, 0.0, True, 0, "exact", False)
    if not isinstance(operator, HessianOperator) or _n_outputs(operator) > _SPLIT_PAYS_UP_TO:
        return trace_estimate(watch(operator), **probing)
    traces = gauss_newton_traces(operator)
    if traces is None:
        return trace_estimate(watch(operator), **probing)
    operator.release()  # the residual keeps what it needs, within the same memory budget
    remainder = residual(weight_decay=0.0)
    known = float(traces.sum()) + decay
    found = trace_estimate(watch(remainder), method="auto", known=known, **probing)
    return replace(found, method="split")


@torch.no_grad()
def _n_outputs(operator: NetworkOperator) -> int:
    return operator.network.module(next(operator.chunks(1)).inputs).shape[1]
