"""Eigenvalues of a matrix that changes a little between measurements."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from sharpfit.linalg import SymmetricOperator, as_generator
from sharpfit.monitoring.ritz_basis import RitzBasis

_SPARE = 2  # Ritz vectors carried over beside those asked for
_HINT, _NOISE = 0.3, 0.1  # parts of hint and noise in the last vector of a warm start
_RETURN = 0.5  # how much closer an earlier measurement has to be, to start from it
# Residual of the largest old eigenvectors, in eigenvalues, beyond which the matrix is another.
_CHANGED = 0.3
# How much smaller than the tolerance the error bound has to be where the spectrum has not been
# seen before.
_CAUTION = 4.0
# A warm start also ends when the last product raised the eigenvalue by this part of the tolerance
# alone, if its error bound, which is generous, is below so many tolerances.
_IMPROVEMENT, _LOOSE = 0.1, 5.0
_UNSOUGHT = 2.0  # residual norms that are stated where there was no budget to look for others
_PROBE_PRODUCTS = 6
_COLD_PRODUCTS = 14  # of a cold start, about
_LEAST_UNWANTED = 4  # Ritz values beyond the wanted ones before a gap to them is believed
_FAMILIAR = 1.5  # change of the largest eigenvalue up to which the last spectrum is believed
# Basis vectors beside those asked for, before the basis is compressed: as memory permits.
_LEAST_CAPACITY, _CAPACITY = 8, 30
_SMALL = 0.01  # eigenvalues below this part of the operator's scale share its tolerance


@dataclass(frozen=True)
class TrackedEigenpairs:
    """Approximate largest eigenpairs, with estimates of their errors.

    Attributes
    ----------
    values : Tensor of shape (k,), float64, on the CPU
        Ritz values, descending.
    vectors : Tensor of shape (size, k)
        Orthonormal Ritz vectors.
    residual_norms : Tensor of shape (k,), float64
        ``|A v - t v|``. Some eigenvalue lies within it of `values`.
    error_bounds : Tensor of shape (k,), float64
        Estimated distance of `values` from the largest eigenvalues.
    converged : Tensor of shape (k,), bool
        Whether that meets the tolerance.
    n_products : int
        Products spent.
    coefficients : ndarray of shape (n_products,) or None
        The first vector in those multiplied, in their order; None where some were dropped.
    warm : bool
        Whether the last measurement was the start.
    """

    values: Tensor
    vectors: Tensor
    residual_norms: Tensor
    error_bounds: Tensor
    converged: Tensor
    n_products: int
    coefficients: np.ndarray | None
    warm: bool


class EigenvalueTracker:
    """Follow the largest eigenvalues of a slowly changing symmetric operator.

    A measurement starts from the last Ritz vectors, two more than asked for, with a little of a
    hint and of noise in the last of them: by these it notices when another eigenvalue overtakes.
    Where the last eigenvectors were closer to those two measurements ago than to those in between,
    as in an oscillation of period two, it starts from those before the last. From there
    on it is Lanczos, which ends when the error bound of Li and Li (2005) meets the tolerance, or
    another product hardly changes the values. That bound needs the gap to the rest of the
    spectrum, which is read from the Ritz values, and while they are few from those of the
    measurement it started from.

    The first measurement starts from the hint and noise, or a rough eigenvector, and follows a
    random vector after it converged, since Lanczos may take two close eigenvalues for one. So do
    later ones as long as the last warm start took more products than the last cold one. Where an
    old top vector turns out to be no eigenvector any more, the old spectrum is not believed
    either, and there is more noise. Without an old spectrum four times the bound is stated, and
    two residual norms where the budget ended before others were looked for.

    Errors are estimates: an eigenvector that nothing has pointed to is found by noise alone. Of the
    largest eigenvalues along 54 trajectories of small networks, trained by full batches, batches
    of 16 and Adam up to learning rates at which they are unstable, 0.5 % were further off than
    stated: 0.1 % with full batches and Adam, 1.3 % with small ones, where nothing may be left of
    the last eigenvectors. Of the third largest it was 0.6 %.

    Parameters
    ----------
    n_eigenvalues : int, default=1
        Number of eigenvalues to follow.
    tol : float, default=1e-2
        Relative accuracy.
    max_products : int, default=100
        Budget of products of one measurement.
    memory_budget : int, default=2**28
        Bytes for the basis of a measurement. It is restarted when they are used up, but keeps
        eight vectors beside those asked for.
    random_state : int, default=0
        Seed of the noise.

    Examples
    --------
    >>> import torch
    >>> from sharpfit.linalg import DenseOperator
    >>> from sharpfit.monitoring import EigenvalueTracker
    >>> matrix = torch.diag(torch.linspace(0, 3, 200, dtype=torch.float64) ** 4)
    >>> tracker = EigenvalueTracker()
    >>> cold = tracker.measure(DenseOperator(matrix))
    >>> warm = tracker.measure(DenseOperator(1.01 * matrix))
    >>> warm.n_products < cold.n_products
    True
    """

    def __init__(
        self,
        n_eigenvalues: int = 1,
        *,
        tol: float = 1e-2,
        max_products: int = 100,
        memory_budget: int = 2**28,
        random_state: int = 0,
    ) -> None:
        self.n_eigenvalues = n_eigenvalues
        self.tol = tol
        self.max_products = max_products
        self.memory_budget = memory_budget
        self._generator = as_generator(random_state)
        self._products = {"cold": 0, "warm": 0}
        self.reset()

    def reset(self) -> None:
        """Forget the last eigenvectors."""
        self._memory: list[_Memory] = []
        self._lag = 1

    @property
    def is_new(self) -> bool:
        """Whether there is no measurement to start from."""
        return not self._memory

    def measure(
        self,
        operator: SymmetricOperator,
        hint: Tensor | None = None,
        *,
        rough: Tensor | None = None,
        max_products: int | None = None,
    ) -> TrackedEigenpairs:
        """Return the largest eigenpairs of the operator as it is now.

        Parameters
        ----------
        operator : SymmetricOperator
            The matrix.
        hint : Tensor of shape (size,), optional
            A vector that leans to the top eigenvectors, as a gradient does to those of a Hessian.
        rough : Tensor of shape (size,), optional
            A rough top eigenvector to start from where no measurement is.
        max_products : int, optional
            A smaller budget for this measurement.

        Returns
        -------
        TrackedEigenpairs
            The `n_eigenvalues` followed, or as many as there are.
        """
        wanted = min(self.n_eigenvalues, operator.size)
        limit = max(self.max_products if max_products is None else max_products, wanted)
        if self._memory and self._memory[-1].images.shape[1] != operator.size:
            self.reset()
        warm = bool(self._memory) and self._products["warm"] <= self._products["cold"]
        basis = RitzBasis(operator, self.memory_budget)
        spare = min(max(basis.capacity - wanted, _LEAST_CAPACITY), _CAPACITY)
        known = None
        if warm:
            known = self._expand_old(basis, wanted, hint)
        else:
            start = self._noise(operator) + _unit(hint, operator)
            basis.expand(start if rough is None else _unit(rough, operator) + _NOISE * start)
        looking, before = not warm, -np.inf
        while basis.n_products < limit and not basis.complete:
            residual = self._open_residual(basis, wanted, known, before)
            before = basis.values[: min(wanted, len(basis))].sum()
            if residual is None and not looking:
                break
            if residual is None:
                looking = not self._probe(basis, limit)
                continue
            if len(basis) >= wanted + spare:
                basis.compress(wanted + spare // 2)
            if not basis.expand(residual):
                basis.expand(self._noise(operator))
        return self._result(basis, wanted, known, warm, looking and not basis.complete)

    def _expand_old(self, basis: RitzBasis, wanted: int, hint: Tensor | None) -> np.ndarray | None:
        """Start from old Ritz vectors; return their spectrum if the matrix is still like it."""
        old = self._memory[-min(self._lag, len(self._memory))]
        # After a step of power iteration that cost nothing.
        start = nn.functional.normalize(old.images.to(basis.operator.device), dim=1)
        for vector in start[:wanted]:
            basis.expand(vector)
        residual, largest = float(basis.residuals(1).norm()), abs(basis.values[0])
        change = residual / largest if residual < largest else 1.0
        for vector in start[wanted:-1]:
            basis.expand(vector)
        # The last is the least accurate: what it misses is where a newcomer would show.
        last = start[-1] + max(_NOISE, change) * self._noise(basis.operator).to(start)
        basis.expand(last + _HINT * _unit(hint, basis.operator).to(start))
        return old.spectrum if change <= _CHANGED else None

    def _noise(self, operator: SymmetricOperator) -> Tensor:
        # In single precision it takes a quarter of the time, and noise is as good.
        noise = torch.randn(operator.size, generator=self._generator).to(operator.device)
        return nn.functional.normalize(noise.double(), dim=0)

    def _probe(self, basis: RitzBasis, limit: int) -> bool:
        """Follow a random vector for a few products; return whether the budget allowed it."""
        direction = self._noise(basis.operator)
        for _ in range(_PROBE_PRODUCTS):
            if basis.n_products >= limit:
                return False
            if not basis.expand(direction):
                break  # the basis spans a space the operator does not leave
            direction = basis.newest_product()
        return True

    def _open_residual(
        self, basis: RitzBasis, wanted: int, known: np.ndarray | None, before: float
    ) -> Tensor | None:
        """Return the residual of the first pair that is not accurate enough."""
        if len(basis) < wanted:
            return self._noise(basis.operator)
        residuals = basis.residuals(min(wanted + _SPARE, len(basis)))
        bounds = _error_bounds(basis.values, residuals, wanted, known)
        values = basis.values[:wanted]
        allowed = self.tol * np.maximum(np.abs(values), _SMALL * basis.scale)
        allowed = np.maximum(allowed, _CAUTION * _precision(basis))
        if known is None:
            allowed = allowed / _CAUTION
        elif values.sum() - before <= _IMPROVEMENT * allowed.min():
            allowed = _LOOSE * allowed
        unsettled = np.flatnonzero(bounds > allowed)
        return residuals[unsettled[0]] if len(unsettled) else None

    def _result(
        self,
        basis: RitzBasis,
        wanted: int,
        known: np.ndarray | None,
        warm: bool,
        unsought: bool,
    ) -> TrackedEigenpairs:
        count = min(wanted + _SPARE, len(basis))
        values, residuals = basis.values[:wanted], basis.residuals(count)
        bounds = _error_bounds(basis.values, residuals, len(values), known) + _precision(basis)
        norms = residuals[:wanted].double().norm(dim=1).cpu()
        if known is None:
            bounds *= _CAUTION
        if unsought:  # for another eigenvalue close by, which the gap knows nothing of
            bounds = np.maximum(bounds, _UNSOUGHT * norms.numpy())
        vectors = basis.vectors(wanted)
        images = basis.images(count)
        if bool(images[:wanted].any(dim=1).all()):
            self._remember(vectors, _Memory(images, basis.values.copy()))
        else:  # of eigenvalues zero: there is nothing to start from
            self.reset()
        # One that was cut short does not tell what a cold start takes.
        least = _COLD_PRODUCTS if unsought else 0
        self._products["warm" if warm else "cold"] = max(basis.n_products, least)
        return TrackedEigenpairs(
            values=torch.as_tensor(values.copy()),
            vectors=vectors.T.to(basis.operator.dtype),
            residual_norms=norms,
            error_bounds=torch.as_tensor(bounds),
            converged=torch.as_tensor(
                bounds <= self.tol * np.maximum(np.abs(values), _SMALL * basis.scale)
            ),
            n_products=basis.n_products,
            coefficients=basis.coefficients(),
            warm=warm,
        )

    def _remember(self, vectors: Tensor, latest: "_Memory") -> None:
        """Keep the last two measurements, and which of them the next will be more like."""
        missing = [old.missing(vectors) for old in self._memory]
        # Below the tolerance, the last one is as good: it has seen newcomers one more time.
        returned = len(missing) == 2 and missing[1] > max(self.tol, missing[0] / _RETURN)
        self._lag = 2 if returned else 1
        self._memory = [*self._memory[-1:], latest]


@dataclass(frozen=True)
class _Memory:
    """What a measurement leaves for later ones: products of Ritz vectors, and Ritz values."""

    images: Tensor
    spectrum: np.ndarray

    def missing(self, vectors: Tensor) -> float:
        """Return what unit vectors have beside the images: squared lengths, together."""
        lengths = self.images.norm(dim=1, keepdim=True)
        return len(vectors) - float((self.images @ vectors.T / lengths).square().sum())


def _error_bounds(
    values: np.ndarray, residuals: Tensor, wanted: int, known: np.ndarray | None
) -> np.ndarray:
    """Bound the errors of the largest Ritz values.

    The `j` most wanted Ritz vectors are coupled by a block of norm `b` to everything else, whose
    spectrum lies a gap `g` below: the error is at most ``2 b^2 / (g + sqrt(g^2 + 4 b^2))``, for
    any `j`.
    """
    norms = residuals.double().norm(dim=1).cpu().numpy()
    believed = None if known is None else _scaled(known, values[0])
    found = norms[:wanted].copy()
    for place in range(wanted):
        for block in range(place + 1, len(norms) + 1):
            end = values[block] if block < len(values) else -np.inf
            end += norms[block] if block < len(norms) else 0.0
            if believed is not None and block < len(believed):
                end = max(end, believed[block])
            elif len(values) < block + _LEAST_UNWANTED:
                break
            gap, joint = values[place] - end, float(np.sum(norms[:block] ** 2))
            if gap > 0:
                bound = 2 * joint / (gap + np.sqrt(gap**2 + 4 * joint))
                found[place] = min(found[place], bound)
    return found


def _scaled(spectrum: np.ndarray, largest: float) -> np.ndarray | None:
    """Return an old spectrum, scaled to a new largest eigenvalue, if it is like it."""
    change = largest / spectrum[0] if spectrum[0] > 0 else np.inf
    return spectrum * change if 1 / _FAMILIAR < change < _FAMILIAR else None


def _unit(hint: Tensor | None, operator: SymmetricOperator) -> Tensor:
    """Return a unit vector along the hint, or zero without one."""
    if hint is None:
        return torch.zeros(operator.size, dtype=torch.float64, device=operator.device)
    return nn.functional.normalize(hint.to(operator.device, torch.float64), dim=0)


def _precision(basis: RitzBasis) -> float:
    return float(torch.finfo(basis.operator.dtype).eps) * basis.scale
