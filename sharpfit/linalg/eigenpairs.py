"""Extreme eigenpairs by thick-restart Lanczos with full reorthogonalisation."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from .eigenpair_arguments import check_arguments
from .error_bounds import truncation_bounds
from .krylov import InterruptedProduct, KrylovSubspace, RitzPairs, storage_dtype
from .operator import SymmetricOperator
from .random_chain import RandomChain
from .randomness import as_generator

Which = Literal["largest", "smallest", "magnitude"]

_DEFAULT_PRODUCTS = 1000
_SMALL = 0.01  # eigenvalues below this part of the operator's scale share its tolerance
_PROBE_PRODUCTS = 10
# Probabilities of a miss at which a random vector is followed no further: of any eigenvalue that
# belongs to the wanted ones, and of a copy of one of them, which only this vector can show.
_RISK = 0.05
_RISK_OF_COPIES = 0.002


@dataclass(frozen=True)
class Eigenpairs:
    """Approximate eigenpairs with certified error bars.

    Attributes
    ----------
    values : Tensor of shape (k,), float64, on the CPU
        Ritz values: descending for ``which="largest"``, ascending for ``"smallest"``, descending
        in absolute value for ``"magnitude"``.
    vectors : Tensor of shape (size, k)
        Orthonormal Ritz vectors, in the operator's dtype and on its device.
    residual_norms : Tensor of shape (k,), float64
        ``|A v - t v|`` of the products as computed. Some eigenvalue lies within it of `values`.
    error_bounds : Tensor of shape (k,), float64
        Bound on the error of `values`: the smaller of the residual norm and the quadratic bound
        of Li and Li (2005), which takes the gap to the rest of the spectrum from the Ritz values.
    converged : Tensor of shape (k,), bool
        Whether the error bound meets the tolerance.
    n_products : int
        Products with the operator spent.
    n_probes : int
        Random vectors that were followed to look for missed eigenvalues; the last of them found
        none unless the products ran out.
    miss_probability : float
        Upper bound on the probability with which the last of them finds nothing where there is
        an eigenvalue beyond the last of `values` and its tolerance. One when none was followed
        to its end, zero when the whole space was searched.
    interrupted : bool
        Whether a KeyboardInterrupt ended the work early; fewer than the requested number of pairs
        may then be present.
    coefficients : ndarray of shape (n_products, k) or None
        Coordinates of `vectors` in the vectors that were multiplied, in their order; None where
        the basis was too small for all of them.
    """

    values: Tensor
    vectors: Tensor
    residual_norms: Tensor
    error_bounds: Tensor
    converged: Tensor
    n_products: int
    n_probes: int
    miss_probability: float
    interrupted: bool
    coefficients: np.ndarray | None


def top_eigenpairs(
    operator: SymmetricOperator,
    n_eigenvalues: int,
    *,
    which: Which = "largest",
    tol: float = 1e-3,
    max_products: int | None = None,
    start: Tensor | None = None,
    check_multiplicity: bool = True,
    memory_budget: int | None = None,
    random_state: int | torch.Generator | None = None,
    verbose: int = 0,
) -> Eigenpairs:
    r"""Compute the largest, smallest or absolutely largest eigenpairs of a symmetric operator.

    Thick-restart Lanczos (Wu and Simon, 2000) with full reorthogonalisation. Projections and dot
    products are float64 whatever the operator's dtype.

    A pair with Ritz value :math:`t` is *converged* when the bound on its eigenvalue's error is at
    most ``tol * max(|t|, s / 100)``, `s` being the largest product norm seen, so `tol` is relative
    to each eigenvalue except for those a hundred times smaller than the operator. The bound is
    the smaller of the residual norm and :math:`2b^2 / (g + \sqrt{g^2 + 4b^2})`, where `b` is the
    joint residual of this and all more extreme pairs and `g` the gap to the rest of the spectrum,
    read off the Ritz values. Residuals are those of the products as computed, at no additional
    product. The part of them that is due to rounding (seen as asymmetry of the products) does not
    shrink with more products: once it dominates, the work stops and `converged` is False.

    A Krylov space holds one vector of each eigenspace and may take two close eigenvalues for one.
    So after convergence a random vector orthogonal to everything multiplied so far is followed.
    If its Ritz values enter the wanted set, or come too close to it for the error bounds to
    stand, the work goes on with it and another vector after that. It ends when a vector reaches
    nothing new although it would have, with probability 0.95 for an eigenvalue just beyond the
    last wanted one and 0.998 for a copy of a wanted one; or after ten products. The bound on the
    remaining `miss_probability` is rigorous up to the errors of the products (van Dorsselaer,
    Hochstenbach and van der Vorst, 2000).

    Parameters
    ----------
    operator : SymmetricOperator
        The matrix.
    n_eigenvalues : int
        Number of pairs, at most ``operator.size``.
    which : {"largest", "smallest", "magnitude"}, default="largest"
        End of the spectrum: algebraically largest, algebraically smallest, largest in absolute
        value.
    tol : float, default=1e-3
        Relative accuracy of the eigenvalues. Zero asks for all that rounding allows.
    max_products : int, optional
        Budget of products; at least `n_eigenvalues`. Default 1000.
    start : Tensor of shape (size,) or (size, j), optional
        Vectors believed to lie near the wanted eigenspace, for example earlier eigenvectors. By
        default one random vector.
    check_multiplicity : bool, default=True
        Whether to follow random vectors after convergence. Without it repeated eigenvalues may be
        reported once, and those a start is orthogonal to are not found.
    memory_budget : int, optional
        Bytes for the basis. It is kept in float64 when a full one fits, and otherwise in the
        operator's dtype (at least float32); what still does not fit makes restarts more frequent,
        down to ``2 * n_eigenvalues + 20`` vectors. By default float64 up to 1 GiB, and no limit.
    random_state : int, torch.Generator or None
        Source of the random vectors.
    verbose : int, default=0
        Print one line per this many products.

    Returns
    -------
    Eigenpairs

    Raises
    ------
    ValueError
        For arguments out of range, a start of another shape, or products that are not finite.

    Examples
    --------
    >>> import torch
    >>> from sharpfit.linalg import DenseOperator, top_eigenpairs
    >>> matrix = torch.diag(torch.tensor([4.0, 4.0, 1.0, 0.5, 0.0], dtype=torch.float64))
    >>> top_eigenpairs(DenseOperator(matrix), 3, random_state=0).values
    tensor([4.0000, 4.0000, 1.0000], dtype=torch.float64)
    """
    budget = _DEFAULT_PRODUCTS if max_products is None else max_products
    check_arguments(operator, n_eigenvalues, which, tol, budget)
    search = _Search(
        operator, n_eigenvalues, which, tol, budget, memory_budget, as_generator(random_state)
    )
    search.verbose = verbose
    search.begin(start)
    interrupted, looking = False, check_multiplicity
    try:
        while True:
            if not search.finished():
                search.advance()
            elif looking:
                looking = search.probe()
            else:
                break
    except InterruptedProduct as interruption:
        if not search.subspace.expanded:
            raise KeyboardInterrupt from interruption
        interrupted = True
    return search.result(interrupted)


class _Search:
    """State of one call of `top_eigenpairs`."""

    verbose = 0

    def __init__(
        self,
        operator: SymmetricOperator,
        n_eigenvalues: int,
        which: Which,
        tol: float,
        budget: int,
        memory_budget: int | None,
        generator: torch.Generator,
    ) -> None:
        self.operator = operator
        self.n_eigenvalues = n_eigenvalues
        self.which = which
        self.tol = tol
        self.budget = budget
        self.generator = generator
        self.n_probes = 0
        self.miss_probability = 1.0
        capacity, dtype = _basis_shape(operator, n_eigenvalues, memory_budget)
        self.subspace = KrylovSubspace(operator, capacity, dtype)
        self._n_waiting = 0  # start vectors without their product
        self._residual: np.ndarray | None = None  # of the pair to improve, in the frontier

    def begin(self, start: Tensor | None) -> None:
        """Fill the frontier with the start vectors, or a random one."""
        if start is None:
            self._inject_random()
            self._n_waiting = 1
            return
        if not isinstance(start, Tensor):
            raise TypeError(
                f"start must be a Tensor, got {type(start).__name__}; use torch.as_tensor(start)."
            )
        columns = start[:, None] if start.ndim == 1 else start
        if columns.ndim != 2 or columns.shape[0] != self.operator.size:
            raise ValueError(
                f"start has shape {tuple(start.shape)}, expected ({self.operator.size},) or "
                f"({self.operator.size}, j)."
            )
        if not bool(torch.isfinite(columns).all()):
            raise ValueError("start has entries that are not finite.")
        capacity = self.subspace.capacity
        if columns.shape[1] > capacity // 2 and capacity < self.operator.size:
            raise ValueError(
                f"start has {columns.shape[1]} vectors, more than half of the {capacity} the basis "
                "holds: give fewer, or a larger memory_budget."
            )
        for column in columns.T:
            self.subspace.inject(column)
        self._n_waiting = len(self.subspace.frontier)
        if self._n_waiting == 0:
            raise ValueError("start has no non-zero vector.")

    def finished(self) -> bool:
        """Whether the wanted pairs meet the tolerance, cannot get better, or products ran out."""
        subspace = self.subspace
        if subspace.n_products >= self.budget:
            return True
        if len(subspace.expanded) < self.n_eigenvalues or self._n_waiting:
            return False
        if len(subspace.expanded) == self.operator.size:
            return True
        pairs = subspace.ritz_pairs()
        order, truncation = self._wanted(pairs)
        rounding = self._rounding(pairs)[order]
        allowed = np.maximum(self._allowed(pairs.values[order]) - rounding, rounding)
        if self.verbose and subspace.n_products % self.verbose == 0:
            settled = int(np.sum(truncation <= allowed))
            print(
                f"[top_eigenpairs] {subspace.n_products} products, {settled} of "
                f"{self.n_eigenvalues} eigenvalues settled",
                flush=True,
            )
        open_pairs = np.flatnonzero(truncation > allowed)
        if len(open_pairs) == 0:
            return True
        self._residual = pairs.directions[:, order[open_pairs[0]]]
        return False

    def advance(self) -> None:
        """Spend one product on the most extreme pair that is not settled."""
        subspace = self.subspace
        self._make_room(2)
        if not subspace.frontier:
            self._inject_random()
        elif self._residual is not None:
            subspace.steer(self._residual)
        self._residual = None
        subspace.expand(subspace.frontier[0])
        self._n_waiting = max(self._n_waiting - 1, 0)

    def probe(self) -> bool:
        """Follow a random vector outside the basis; whether it reaches the wanted set."""
        subspace = self.subspace
        if len(subspace.expanded) == self.operator.size:
            self.miss_probability = 0.0
            return False
        if subspace.n_products >= self.budget:
            return False
        if self.operator.size - len(subspace.expanded) <= _PROBE_PRODUCTS:
            self.advance()  # all of the little that is left is as cheap as a sample
            return True
        self._make_room(_PROBE_PRODUCTS + 1)
        values = subspace.ritz_pairs().values
        wanted = self._keys(values)[self._order(values)][: self.n_eigenvalues]
        margin = max(float(self._allowed(wanted[-1])), self._precision())
        limit = wanted[-1] + margin
        nearest = min(wanted[wanted > limit], default=np.inf)  # of which a copy would be wanted
        chain = RandomChain(subspace, self.generator)
        self.n_probes += 1
        self.miss_probability = 1.0
        while len(chain) < _PROBE_PRODUCTS and subspace.n_products < self.budget:
            chain.extend()
            if self._keys(chain.ritz_values()).max() > limit:
                self.miss_probability = 1.0
                return True
            self.miss_probability = chain.miss_probability(self._ends(limit))
            copies = chain.miss_probability(self._ends(nearest))
            if self.miss_probability <= _RISK and copies <= _RISK_OF_COPIES:
                break
        return False

    def result(self, interrupted: bool) -> Eigenpairs:
        """Gather the wanted pairs."""
        pairs = self.subspace.ritz_pairs()
        order, truncation = self._wanted(pairs)
        bounds = truncation + self._rounding(pairs)[order]
        values = pairs.values[order]
        return Eigenpairs(
            values=torch.as_tensor(values),
            vectors=self.subspace.vectors(pairs.coefficients[:, order]),
            residual_norms=torch.as_tensor(pairs.residual_norms[order]),
            error_bounds=torch.as_tensor(bounds),
            converged=torch.as_tensor(bounds <= self._allowed(values)),
            n_products=self.subspace.n_products,
            n_probes=self.n_probes,
            miss_probability=self.miss_probability,
            interrupted=interrupted,
            coefficients=None if self.subspace.compressed else pairs.coefficients[:, order],
        )

    def _make_room(self, count: int) -> None:
        """Restart, if needed, so that `count` more vectors fit."""
        subspace = self.subspace
        limit = subspace.capacity - count
        if subspace.n_vectors <= limit or subspace.capacity >= self.operator.size:
            return
        pairs = subspace.ritz_pairs()
        room = limit - len(subspace.frontier)
        keep = min(max(self.n_eigenvalues + 1, (self.n_eigenvalues + room) // 2), room)
        subspace.compress(pairs, self._order(pairs.values)[:keep])

    def _inject_random(self) -> None:
        self.subspace.inject(torch.randn(self.operator.size, generator=self.generator))

    def _keys(self, values: np.ndarray) -> np.ndarray:
        """How much each value is wanted."""
        if self.which == "largest":
            return values
        return -values if self.which == "smallest" else np.abs(values)

    def _wanted(self, pairs: RitzPairs) -> tuple[np.ndarray, np.ndarray]:
        """Return the places of the wanted pairs, and bounds on their errors but for rounding."""
        order = self._order(pairs.values)
        wanted = min(self.n_eigenvalues, len(order))
        keys, couplings = self._keys(pairs.values)[order], pairs.couplings[order]
        return order[:wanted], truncation_bounds(keys, couplings, wanted)

    def _ends(self, key: float) -> list[float]:
        """Return the values that are wanted this much."""
        if self.which == "largest":
            return [key]
        return [-key] if self.which == "smallest" else [key, -key]

    def _order(self, values: np.ndarray) -> np.ndarray:
        return np.argsort(-self._keys(values), kind="stable")

    def _precision(self) -> float:
        return float(torch.finfo(self.operator.dtype).eps) * self.subspace.scale

    def _rounding(self, pairs: RitzPairs) -> np.ndarray:
        return pairs.rounding + self._precision()

    def _allowed(self, values: np.ndarray) -> np.ndarray:
        return self.tol * np.maximum(np.abs(values), _SMALL * self.subspace.scale)


def _basis_shape(
    operator: SymmetricOperator, n_eigenvalues: int, memory_budget: int | None
) -> tuple[int, torch.dtype]:
    """Choose the number of basis vectors and their dtype within the memory budget."""
    wanted = min(operator.size, max(4 * n_eigenvalues, n_eigenvalues + 50) + _PROBE_PRODUCTS)
    least = min(operator.size, 2 * (n_eigenvalues + _PROBE_PRODUCTS))
    dtype = storage_dtype(operator, wanted, memory_budget)
    if memory_budget is None or dtype == torch.float64:
        return wanted, dtype
    return max(least, min(wanted, memory_budget // (dtype.itemsize * operator.size))), dtype
