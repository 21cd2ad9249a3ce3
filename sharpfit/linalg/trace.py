"""Trace and Frobenius norm from products with random vectors."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from .operator import SymmetricOperator
from .randomness import as_generator, rademacher

_FIRST_PROBES = 10
_GROWTH = 1.5
_LEAST_PRODUCTS = 4
_FEW_PRODUCTS = 40  # about what XTrace takes to two per cent where it is good
_SMALL_SIZE = 40  # where forming the matrix costs about as much as the first probes


@dataclass(frozen=True)
class TraceEstimate:
    """An estimated trace or norm.

    Attributes
    ----------
    value : float
        The estimate.
    standard_error : float
        Its estimated standard deviation over the random vectors; zero where the value is exact up
        to rounding. It is itself known to about a quarter from ten probes, and a tenth from fifty.
    converged : bool
        Whether the standard error is at most `tol` times the absolute value.
    n_products : int
        Products with the operator spent.
    method : str
        "xtrace", "hutchinson" or "dense"; "exact" and "split" are those of `curvature_trace`.
    interrupted : bool
        Whether a KeyboardInterrupt ended the work early.
    """

    value: float
    standard_error: float
    converged: bool
    n_products: int
    method: str
    interrupted: bool


def trace_estimate(
    operator: SymmetricOperator,
    *,
    method: Literal["xtrace", "hutchinson", "auto"] = "xtrace",
    tol: float = 0.02,
    max_products: int = 1000,
    known: float = 0.0,
    random_state: int | torch.Generator | None = None,
    verbose: int = 0,
) -> TraceEstimate:
    """Estimate the trace of a symmetric operator to a relative standard error.

    Probes are added until the standard error is at most ``tol * |value|``. An operator of at most
    40 rows is formed instead, and so is one whose probes of ``"xtrace"`` would need more products
    than it has rows, within `max_products`; the trace is exact then.

    The standard error is that of the mean over `k` probes, times ``((k - 1) / (k - 3))^(1/2)``, the
    standard deviation of a ratio to an error that is estimated too.

    ``"xtrace"`` (Epperly, Tropp and Webber, 2024) projects out the range seen by all other probes
    from each probe, is exchangeable in the probes and unbiased, and converges fast where the
    spectrum decays. It holds up to five float64 vectors per two products. Its probes' estimates
    share the range and so vary together: in simulations of decaying spectra the variance of their
    mean was 1.05 to 1.8 times that of independent ones, and twice that is stated.
    ``"hutchinson"`` averages ``w^T A w`` over random signs `w` (Hutchinson, 1990) and holds one
    vector. ``"auto"`` begins with the second and goes over to the first as soon as it looks like
    taking more than 40 products: best where the trace is small beside `known`.

    Parameters
    ----------
    operator : SymmetricOperator
        The matrix.
    method : {"xtrace", "hutchinson", "auto"}, default="xtrace"
        Estimator.
    tol : float, default=0.02
        Relative standard error to reach.
    max_products : int, default=1000
        Budget of products, at least 4.
    known : float, default=0.0
        Added to the estimate: the trace of a part of the matrix that was split off because it is
        known. `tol` is relative to the sum.
    random_state : int, torch.Generator or None
        Source of the probes.
    verbose : int, default=0
        Whether to print the estimate after each batch of probes.

    Returns
    -------
    TraceEstimate

    Raises
    ------
    ValueError
        For arguments out of range or products that are not finite.

    Examples
    --------
    >>> import torch
    >>> from sharpfit.linalg import DenseOperator, trace_estimate
    >>> matrix = torch.diag(0.5 ** torch.arange(100, dtype=torch.float64))
    >>> estimate = trace_estimate(DenseOperator(matrix), tol=0.01, random_state=0)
    >>> abs(estimate.value - 2.0) < 0.06
    True
    """
    if method not in ("xtrace", "hutchinson", "auto"):
        raise ValueError(f'method={method!r} must be "xtrace", "hutchinson" or "auto".')
    _check_accuracy(tol, max_products)
    if operator.size <= min(_SMALL_SIZE, max_products):
        return _dense_trace(operator, known, 0)
    generator = as_generator(random_state)
    spent = 0
    if method != "xtrace":
        forms = _QuadraticForms(operator, generator, lambda probe, product: probe @ product)
        patience = _FEW_PRODUCTS if method == "auto" else None
        found = _until_accurate(forms, "hutchinson", tol, max_products, verbose, known, patience)
        spent = found.n_products
        if method == "hutchinson" or found.converged or found.interrupted:
            return found
        if max_products - spent < _LEAST_PRODUCTS:
            return found
    probes = _ExchangeableProbes(operator, generator)
    found = _until_accurate(probes, "xtrace", tol, max_products - spent, verbose, known)
    spent += found.n_products
    if not (found.converged or found.interrupted) and operator.size <= max_products - spent:
        try:
            return _dense_trace(operator, known, spent)
        except KeyboardInterrupt:
            return replace(found, n_products=spent, interrupted=True)
    return replace(found, n_products=spent)


def _dense_trace(operator: SymmetricOperator, known: float, spent: int) -> TraceEstimate:
    value = known + float(_products(operator, _identity(operator)).diagonal().sum())
    return TraceEstimate(value, 0.0, True, spent + operator.size, "dense", False)


def frobenius_norm_estimate(
    operator: SymmetricOperator,
    *,
    tol: float = 0.02,
    max_products: int = 1000,
    random_state: int | torch.Generator | None = None,
    verbose: int = 0,
) -> TraceEstimate:
    """Estimate the Frobenius norm, the root of the sum of squared eigenvalues.

    The square is the mean of ``|A w|^2`` over random signs `w`; the standard error of the root
    follows to first order. An operator of at most 40 rows is formed instead.

    Parameters
    ----------
    operator : SymmetricOperator
        The matrix.
    tol : float, default=0.02
        Relative standard error to reach.
    max_products : int, default=1000
        Budget of products, at least 4.
    random_state : int, torch.Generator or None
        Source of the probes.
    verbose : int, default=0
        Whether to print the estimated square after each batch of probes.

    Returns
    -------
    TraceEstimate

    Raises
    ------
    ValueError
        For arguments out of range or products that are not finite.

    Examples
    --------
    >>> import torch
    >>> from sharpfit.linalg import DenseOperator, frobenius_norm_estimate
    >>> frobenius_norm_estimate(DenseOperator(torch.diag(torch.tensor([3.0, 4.0])))).value
    5.0
    """
    _check_accuracy(tol, max_products)
    if operator.size <= min(_SMALL_SIZE, max_products):
        value = float(torch.linalg.matrix_norm(_products(operator, _identity(operator))))
        return TraceEstimate(value, 0.0, True, operator.size, "dense", False)
    sampler = _QuadraticForms(
        operator, as_generator(random_state), lambda probe, product: product @ product
    )
    square = _until_accurate(sampler, "hutchinson", 2 * tol, max_products, verbose)
    root = math.sqrt(square.value)
    error = square.standard_error / (2 * root) if root else 0.0
    return TraceEstimate(
        root, error, square.converged, square.n_products, square.method, square.interrupted
    )


class _QuadraticForms:
    """Independent samples of a form of a probe and its product."""

    products_per_probe = 1
    variance_factor = 1.0

    def __init__(
        self,
        operator: SymmetricOperator,
        generator: torch.Generator,
        form: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        self.operator = operator
        self.generator = generator
        self.form = form
        self.samples: list[float] = []
        self.n_products = 0

    @property
    def most_probes(self) -> float:
        return math.inf

    def add_probe(self) -> None:
        probe = rademacher(self.operator.size, 1, self.generator).to(self.operator.device)
        product = _products(self.operator, probe)
        self.n_products += 1
        self.samples.append(float(self.form(probe[:, 0], product[:, 0])))

    def estimates(self) -> Tensor:
        return torch.tensor(self.samples, dtype=torch.float64)


class _ExchangeableProbes:
    """The leave-one-out estimates of XTrace, with the basis grown probe by probe."""

    products_per_probe = 2
    variance_factor = 2.0  # of the mean, next to that of independent estimates

    def __init__(self, operator: SymmetricOperator, generator: torch.Generator) -> None:
        self.operator = operator
        self.generator = generator
        self.n_products = 0
        # Rows of probes, of an orthonormal basis of their products, and of its own products.
        self._vectors = torch.empty(
            (3, _FIRST_PROBES, operator.size), dtype=torch.float64, device=operator.device
        )
        self._triangle = torch.empty((0, 0), dtype=torch.float64, device=operator.device)
        self._forms: list[float] = []
        self._exhausted = False  # the basis holds the whole range: its trace is exact

    @property
    def most_probes(self) -> float:
        return self.operator.size // 2

    def add_probe(self) -> None:
        if self._exhausted:
            return
        probe = torch.randn(self.operator.size, generator=self.generator, dtype=torch.float64)
        probe = probe.to(self.operator.device)
        product = _products(self.operator, probe[:, None])[:, 0]
        direction = product.clone()
        count = len(self._triangle)
        basis = self._vectors[1, :count]
        coefficients = torch.zeros_like(direction[:count])
        for _ in range(2):
            found = basis @ direction
            direction -= basis.T @ found
            coefficients += found
        norm = torch.linalg.vector_norm(direction)
        self.n_products += 1
        if norm <= 10 * torch.finfo(self.operator.dtype).eps * torch.linalg.vector_norm(product):
            self._exhausted = True
            return
        direction /= norm
        image = _products(self.operator, direction[:, None])
        self.n_products += 1
        self._forms.append(float(probe @ product))
        triangle = self._triangle.new_zeros((count + 1, count + 1))
        triangle[:count, :count] = self._triangle
        triangle[:count, count] = coefficients
        triangle[count, count] = norm
        self._triangle = triangle
        if count == self._vectors.shape[1]:
            more = self._vectors.new_empty((3, math.ceil(_GROWTH * count), self.operator.size))
            more[:, :count] = self._vectors
            self._vectors = more
        for rows, row in zip(self._vectors, (probe, direction, image[:, 0]), strict=True):
            rows[count] = row

    def estimates(self) -> Tensor:
        count, size = len(self._triangle), self.operator.size
        probes, basis, images = self._vectors[:, :count]
        projected = basis @ images.T
        if self._exhausted:
            return projected.trace().cpu().expand(2)
        inside = basis @ probes.T
        # The direction that leaves the range when probe i is left out is row i of the inverse.
        left_out = torch.linalg.inv(self._triangle).T
        left_out = left_out / torch.linalg.vector_norm(left_out, dim=0)
        kept = inside - left_out * (left_out * inside).sum(dim=0)
        removed = (left_out * (projected @ left_out)).sum(dim=0)
        cross = (kept * (images @ probes.T)).sum(dim=0)
        quadratic = torch.tensor(self._forms, dtype=torch.float64, device=kept.device)
        remainder = quadratic - 2 * cross + (kept * (projected @ kept)).sum(dim=0)
        length = probes.square().sum(dim=1) - kept.square().sum(dim=0)
        scaled = remainder * (size - count + 1) / length
        return (projected.trace() - removed + scaled).cpu()


def _until_accurate(
    sampler: _QuadraticForms | _ExchangeableProbes,
    method: str,
    tol: float,
    max_products: int,
    verbose: int,
    known: float = 0.0,
    patience: int | None = None,
) -> TraceEstimate:
    """Add probes until the error is small enough, or will not be within that many products."""
    most = min(max_products // sampler.products_per_probe, sampler.most_probes)
    target, count = min(_FIRST_PROBES, most), 0
    value, error, converged, interrupted = math.nan, math.inf, False, False
    while not converged and count < most and not interrupted:
        try:
            while count < target:
                sampler.add_probe()
                count += 1
        except KeyboardInterrupt:
            if count < 2:
                raise
            interrupted = True
        estimates = sampler.estimates()
        value = known + float(estimates.mean())
        error = _standard_error(estimates, sampler.variance_factor)
        converged = error <= tol * abs(value)
        if verbose:
            print(
                f"[{method}] {sampler.n_products} products: {value:.6g} ± {error:.2g}", flush=True
            )
        if patience is not None and error**2 * count > (tol * value) ** 2 * patience:
            break
        target = min(math.ceil(_GROWTH * count), most)
    return TraceEstimate(value, error, converged, sampler.n_products, method, interrupted)


def _standard_error(estimates: Tensor, variance_factor: float) -> float:
    count = len(estimates)
    doubt = (count - 1) / (count - 3) if count > 3 else count
    return math.sqrt(variance_factor * doubt * float(estimates.var()) / count)


def _products(operator: SymmetricOperator, vectors: Tensor) -> Tensor:
    product = operator.matmat(vectors.to(operator.dtype)).detach().to(torch.float64)
    if not bool(torch.isfinite(product).all()):
        raise ValueError("a product of the operator is not finite: look for NaN in its data.")
    return product


def _identity(operator: SymmetricOperator) -> Tensor:
    return torch.eye(operator.size, dtype=torch.float64, device=operator.device)


def _check_accuracy(tol: float, max_products: int) -> None:
    if not 0 <= tol < math.inf:
        raise ValueError(f"tol={tol!r} must be at least 0: it is a relative standard error.")
    if max_products < _LEAST_PRODUCTS:
        raise ValueError(f"max_products={max_products} must be at least {_LEAST_PRODUCTS}.")
