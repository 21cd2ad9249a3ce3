"""Spectral density by stochastic Lanczos quadrature."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from .krylov import InterruptedProduct, KrylovSubspace, storage_dtype
from .operator import SymmetricOperator
from .randomness import as_generator, rademacher


@dataclass(frozen=True)
class SpectralDensity:
    """An estimated density of eigenvalues.

    Attributes
    ----------
    grid : ndarray of shape (g,)
        Points on the axis of eigenvalues.
    density : ndarray of shape (g,)
        Share of eigenvalues per unit of the axis, smoothed by a Gaussian of standard deviation
        `width`; integrates to one over the whole axis.
    standard_error : ndarray of shape (g,)
        Standard error of `density` over the random probes. It does not see the quadrature error.
    quadrature_change : ndarray of shape (g,)
        Absolute change of `density` when the last quarter of the Lanczos steps is dropped: an
        indication of the quadrature error, not a bound.
    width : float
        Standard deviation of the smoothing Gaussian, in the units of the eigenvalues.
    nodes, weights : ndarray of shape (n_probes, n_steps)
        Quadrature of each probe; weights sum to one per row and are zero in unused places.
    shortened : tuple of ndarray of shape (k, n_probes, n_steps), or None
        Nodes and weights without the last quarter of the Lanczos steps, without one step less and
        so on, up to the last step alone; None if exact.
    size : int
        Number of eigenvalues of the operator.
    exact : bool
        Whether the nodes are all eigenvalues, from the dense matrix.
    n_products : int
        Products with the operator spent.
    interrupted : bool
        Whether a KeyboardInterrupt left fewer probes than asked for.
    """

    grid: np.ndarray
    density: np.ndarray
    standard_error: np.ndarray
    quadrature_change: np.ndarray
    width: float
    nodes: np.ndarray
    weights: np.ndarray
    shortened: tuple[np.ndarray, np.ndarray] | None
    size: int
    exact: bool
    n_products: int
    interrupted: bool

    def count_below(self, value: float) -> tuple[float, float]:
        """Estimate the number of eigenvalues below `value`.

        Parameters
        ----------
        value : float
            For the count of negative eigenvalues, a negative number beyond rounding: a singular
            operator has nodes on both sides of zero.

        Returns
        -------
        count : float
            Mean over the probes, of the weight of nodes below `value`, times the operator's size.
        error : float
            Root of the sum of two squares: the standard error over the probes, and the largest
            change of the count when up to a quarter of the Lanczos steps is dropped, an estimate
            of the quadrature error. Where many eigenvalues are next to `value` it can be larger.
        """
        shares = np.where(self.nodes < value, self.weights, 0.0).sum(axis=1)
        error = float(_standard_error(shares, self.exact))
        count = float(shares.mean())
        if self.shortened is not None:
            nodes, weights = self.shortened
            shorter = np.where(nodes < value, weights, 0.0).sum(axis=2).mean(axis=1)
            error = math.hypot(error, float(np.abs(count - shorter).max()))
        return self.size * count, self.size * error


def spectral_density(
    operator: SymmetricOperator,
    *,
    n_probes: int = 5,
    n_steps: int = 40,
    n_points: int = 512,
    width: float | None = None,
    memory_budget: int | None = None,
    random_state: int | torch.Generator | None = None,
    verbose: int = 0,
) -> SpectralDensity:
    """Estimate the density of eigenvalues by stochastic Lanczos quadrature.

    Every probe of random signs starts a Lanczos recurrence with full reorthogonalisation, whose
    Ritz values and squared first components are a Gauss quadrature of the probe's spectral
    measure (Golub and Meurant, 2010; Ubaru, Chen and Saad, 2017). The mean over probes is
    unbiased for the density up to the quadrature error, which falls with `n_steps` and grows as
    `width` shrinks. Where ``n_probes * n_steps`` products would form the whole matrix, it is
    formed and the density is exact.

    Parameters
    ----------
    operator : SymmetricOperator
        The matrix.
    n_probes : int, default=5
        Random probes, at least 2 for a standard error.
    n_steps : int, default=40
        Lanczos steps, and products, per probe; at least 4.
    n_points : int, default=512
        Points of the grid.
    width : float, optional
        Standard deviation of the smoothing Gaussian, default one per cent of the spectrum's range.
    memory_budget : int, optional
        Bytes for the Lanczos basis in float64, beyond which it is kept in the operator's dtype;
        default 1 GiB.
    random_state : int, torch.Generator or None
        Source of the probes.
    verbose : int, default=0
        Whether to print a line per probe.

    Returns
    -------
    SpectralDensity

    Raises
    ------
    ValueError
        For arguments out of range or products that are not finite.

    Examples
    --------
    >>> import torch
    >>> from sharpfit.linalg import DenseOperator, spectral_density
    >>> matrix = torch.diag(torch.linspace(-1, 3, 101))
    >>> spectral_density(DenseOperator(matrix)).count_below(-0.01)
    (25.0, 0.0)
    """
    _check_arguments(operator, n_probes, n_steps, n_points, width)
    if operator.size <= n_probes * n_steps:
        values = torch.linalg.eigvalsh(operator.to_dense().detach().to(torch.float64))
        nodes = values.cpu().numpy()[None]
        weights = np.full_like(nodes, 1 / operator.size)
        return _smooth(nodes, weights, None, n_points, width, operator.size, operator.size, False)

    generator = as_generator(random_state)
    dtype = storage_dtype(operator, n_steps, memory_budget)
    complete, shortened, n_products, interrupted = [], [], 0, False
    for number in range(n_probes):
        subspace = KrylovSubspace(operator, n_steps + 1, dtype)
        subspace.inject(rademacher(operator.size, 1, generator)[:, 0])
        try:
            while subspace.frontier and subspace.n_products < n_steps:
                subspace.expand(subspace.frontier[0])
        except (InterruptedProduct, KeyboardInterrupt) as interruption:
            if number < 2:
                raise KeyboardInterrupt from interruption
            interrupted = True
            break
        n_products += subspace.n_products
        complete.append(_quadrature(subspace, len(subspace.expanded), n_steps))
        steps, n_lengths = len(subspace.expanded), max(n_steps // 4, 1)
        lengths = [max(steps - dropped, 1) for dropped in range(n_lengths, 0, -1)]
        shortened.append([_quadrature(subspace, length, n_steps) for length in lengths])
        if verbose:
            print(f"[spectral_density] probe {number + 1} of {n_probes}", flush=True)
    nodes, weights = (np.stack(part) for part in zip(*complete, strict=True))
    return _smooth(
        nodes, weights, shortened, n_points, width, operator.size, n_products, interrupted
    )


def _quadrature(
    subspace: KrylovSubspace, steps: int, n_steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the first `steps` Lanczos steps, padded to `n_steps`."""
    pairs = subspace.ritz_pairs(subspace.expanded[:steps])
    nodes, weights = np.zeros(n_steps), np.zeros(n_steps)
    nodes[:steps] = pairs.values
    weights[:steps] = pairs.coefficients[0] ** 2
    return nodes, weights


def _smooth(
    nodes: np.ndarray,
    weights: np.ndarray,
    shortened: list[list[tuple[np.ndarray, np.ndarray]]] | None,
    n_points: int,
    width: float | None,
    size: int,
    n_products: int,
    interrupted: bool,
) -> SpectralDensity:
    used = nodes[weights > 0]
    low, high = float(used.min()), float(used.max())
    if width is None:
        width = (high - low) / 100 or max(abs(high), 1.0) / 100
    grid = np.linspace(low - 4 * width, high + 4 * width, n_points)
    curves = np.stack(
        [_gaussians(grid, *quadrature, width) for quadrature in zip(nodes, weights, strict=True)]
    )
    density = curves.mean(axis=0)
    exact = shortened is None
    change, kept = np.zeros_like(density), None
    if shortened is not None:
        stacked = np.array(shortened).transpose(2, 1, 0, 3)  # kind, length, probe, step
        kept = (stacked[0], stacked[1])
        shorter = [_gaussians(grid, *lengths[0], width) for lengths in shortened]
        change = np.abs(density - np.mean(shorter, axis=0))
    return SpectralDensity(
        grid=grid,
        density=density,
        standard_error=_standard_error(curves, exact),
        quadrature_change=change,
        width=width,
        nodes=nodes,
        weights=weights,
        shortened=kept,
        size=size,
        exact=exact,
        n_products=n_products,
        interrupted=interrupted,
    )


def _gaussians(
    grid: np.ndarray, nodes: np.ndarray, weights: np.ndarray, width: float
) -> np.ndarray:
    exponent = -0.5 * ((grid[:, None] - nodes) / width) ** 2
    return np.exp(exponent) @ weights / (width * math.sqrt(2 * math.pi))


def _standard_error(samples: np.ndarray, exact: bool) -> np.ndarray:
    """Return the standard error of the mean over the first axis; zero for exact values."""
    if exact:
        return np.zeros(samples.shape[1:])
    return np.asarray(np.std(samples, axis=0, ddof=1) / math.sqrt(len(samples)))


def _check_arguments(
    operator: SymmetricOperator, n_probes: int, n_steps: int, n_points: int, width: float | None
) -> None:
    if operator.size == 0:
        raise ValueError("the operator has size 0: it has no spectrum.")
    if n_probes < 2:
        raise ValueError(f"n_probes={n_probes} must be at least 2, for a standard error.")
    if n_steps < 4:
        raise ValueError(f"n_steps={n_steps} must be at least 4.")
    if n_points < 2:
        raise ValueError(f"n_points={n_points} must be at least 2.")
    if width is not None and not 0 < width < math.inf:
        raise ValueError(f"width={width!r} must be positive, in the units of the eigenvalues.")
