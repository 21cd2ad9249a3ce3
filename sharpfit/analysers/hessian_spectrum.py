"""Top curvature of the loss of a network, as an estimator."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from sharpfit.analysers.arguments import as_dtype, as_seed
from sharpfit.analysers.attribution_tables import KINDS, data_table, tensor_table
from sharpfit.analysers.delegation import DelegatingAnalyser
from sharpfit.analysers.objective_hessian import objective_spectrum
from sharpfit.bridge import Problem, as_problem
from sharpfit.curvature import HessianSpectrumResult, hessian_spectrum, select_parameters
from sharpfit.curvature.frame import as_frame

__all__ = ["HessianSpectrum"]


class HessianSpectrum(DelegatingAnalyser):
    """Extreme eigenvalues of the curvature of a network's loss, with their error bars.

    The loss is the one the network is trained with, on the rows given to `fit`, with class and
    sample weights but without the optimiser's weight decay, and the network is in evaluation mode
    (no dropout, running statistics of batch norm). A comparison with the stability limit of
    an optimiser must add the weight decay, and holds for batch norm in training mode only as far
    as the two modes agree.

    Every eigenvalue is an estimate with a certified residual: some eigenvalue lies within
    ``residual_norms_`` of it. That none was missed is checked with random vectors; see
    `sharpfit.linalg.top_eigenpairs`.

    Parameters
    ----------
    estimator : estimator object
        A ``NetworkClassifier``, ``NetworkRegressor`` or skorch net, or a pipeline, search,
        frozen estimator or target transformation around one.
    matrix : {"hessian", "gauss_newton"}, default="hessian"
        The Hessian of the loss in the parameters, or its positive semi-definite part, the
        generalised Gauss-Newton matrix.
    n_eigenvalues : int, default=10
        Number of eigenvalues; all of them when there are fewer parameters.
    which : {"largest", "smallest", "magnitude"}, default="largest"
        End of the spectrum: algebraically largest, algebraically smallest, largest in absolute
        value.
    trace, density : bool, default=False
        Whether to compute the trace, and to estimate the density of all eigenvalues.
    parameters : str, iterable of str, callable or None, default=None
        Trainable parameters the matrix is taken in: a regular expression, names, or a function of
        name and parameter. None takes all.
    prefit : "auto" or bool, default="auto"
        "auto" analyses a trained estimator as it is and trains a clone otherwise; True refuses an
        untrained one; False always trains a clone. scikit-learn clones estimators when it
        cross-validates, and a clone is untrained: wrap the network in ``FrozenEstimator`` there.
    batch_size : int or "auto", default="auto"
        Rows of a chunk. The result does not depend on it beyond rounding.
    memory_budget : int, default=2**31
        Bytes for what is kept between products.
    dtype : torch.dtype, str or None, default=None
        Floating dtype of the analysis, such as ``"float64"``; the network's own by default.
    tol : float, default=1e-3
        Relative accuracy of the eigenvalues.
    max_products : int, optional
        Budget of products with the matrix for the eigenvalues.
    random_state : int, RandomState or None, default=None
        Seed of start vectors and probes.
    verbose : int, default=0
        Print one line per this many products.

    Attributes
    ----------
    eigenvalues_ : ndarray of shape (k,)
        Eigenvalues in units of the loss, the most wanted first.
    eigenvectors_ : ndarray of shape (n_parameters, k)
        Orthonormal eigenvectors over the parameters, in the order of `parameter_names_`.
    residual_norms_ : ndarray of shape (k,)
        Norms of ``A v - t v``; some eigenvalue lies within this distance of each.
    error_bounds_ : ndarray of shape (k,)
        Bounds on the error of `eigenvalues_` from residuals and gaps, at most the residual norms
        up to rounding.
    converged_ : ndarray of shape (k,), bool
        Whether the error bounds meet `tol`.
    interrupted_ : bool
        Whether Ctrl-C ended the work early, with fewer or rougher eigenvalues.
    sharpness_ : float
        Largest eigenvalue of `matrix`, whatever `which` says.
    gauss_newton_share_ : float
        Part of the first eigenvalue that comes from the Gauss-Newton matrix; may exceed one.
    trace_, trace_std_error_ : float or None
        Trace and its standard error, zero where it is exact. None unless asked for.
    density_ : sharpfit.linalg.SpectralDensity or None
        Density with standard errors. None unless asked for.
    n_products_ : int
        Products with the matrix spent on the eigenvalues.
    parameter_names_ : list of str
        Names of the selected parameters.
    estimator_ : estimator object
        The trained estimator.
    refitted_ : bool
        Whether `estimator_` is a trained clone.
    n_features_in_ : int
        Number of features of a row.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, if the rows were a data frame with string names.
    classes_ : ndarray of shape (n_classes,)
        Class labels of a classifier.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sharpfit import HessianSpectrum, NetworkClassifier
    >>> X, y = make_moons(200, noise=0.1, random_state=0)
    >>> network = NetworkClassifier(max_epochs=5, random_state=0).fit(X, y)
    >>> spectrum = HessianSpectrum(network, n_eigenvalues=3, random_state=0).fit(X, y)
    >>> spectrum.eigenvalues_.shape, bool(spectrum.converged_.all()), spectrum.refitted_
    ((3,), True, False)
    >>> abs(spectrum.score(X, y) + spectrum.sharpness_) <= 1e-3 * spectrum.sharpness_
    True
    """

    def __init__(
        self,
        estimator: Any,
        *,
        matrix: str = "hessian",
        n_eigenvalues: int = 10,
        which: str = "largest",
        trace: bool = False,
        density: bool = False,
        parameters: Any = None,
        prefit: Any = "auto",
        batch_size: int | str = "auto",
        memory_budget: int = 2**31,
        dtype: torch.dtype | str | None = None,
        tol: float = 1e-3,
        max_products: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ):
        self.estimator = estimator
        self.matrix = matrix
        self.n_eigenvalues = n_eigenvalues
        self.which = which
        self.trace = trace
        self.density = density
        self.parameters = parameters
        self.prefit = prefit
        self.batch_size = batch_size
        self.memory_budget = memory_budget
        self.dtype = dtype
        self.tol = tol
        self.max_products = max_products
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "HessianSpectrum":
        """Compute the spectrum on rows and targets, training a clone first where needed.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Rows, as the estimator takes them.
        y : array-like of shape (n,) or (n, k)
            Targets.
        sample_weight : array-like of shape (n,), optional
            Non-negative weights of the rows in the loss, also for the training of a clone.

        Returns
        -------
        HessianSpectrum
        """
        self._check_parameters()
        if y is None:
            raise ValueError(
                "HessianSpectrum requires y to be passed, but the target y is None: the loss "
                "needs the targets."
            )
        problem = self._problem(self.estimator, X, y, self.prefit, sample_weight)
        seed = as_seed(self.random_state)
        result = self._spectrum(
            problem,
            seed,
            n_eigenvalues=self.n_eigenvalues,
            which=self.which,
            trace=self.trace,
            density=self.density,
        )
        self._kept_problem: Problem | None = problem
        self.estimator_ = problem.estimator
        self.refitted_ = problem.refitted
        validate_data(self, X, skip_check_array=True)
        if not hasattr(self, "n_features_in_"):
            self.n_features_in_ = int(np.prod(np.asarray(X).shape[1:]))
        self._store(result, select_parameters(problem.module, self.parameters).shapes)
        self.sharpness_ = float(self.eigenvalues_[0])
        if self.which != "largest" and (self.which == "smallest" or self.sharpness_ < 0):
            top = self._spectrum(problem, seed, n_eigenvalues=1, which="largest")
            self.sharpness_ = float(top.eigenvalues[0])
        return self

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return minus the largest eigenvalue of `matrix` on these rows.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Rows.
        y : array-like of shape (n,) or (n, k)
            Targets.
        sample_weight : array-like of shape (n,), optional
            Non-negative weights of the rows in the loss.

        Returns
        -------
        float
        """
        check_is_fitted(self, "estimator_")
        problem = self._problem(self.estimator_, X, y, True, sample_weight)
        top = self._spectrum(problem, as_seed(self.random_state), n_eigenvalues=1, which="largest")
        return -float(top.eigenvalues[0])

    def attribution(
        self,
        index: int | Sequence[int] = 0,
        *,
        by: str = "tensor",
        X: Any = None,
        y: Any = None,
        sample_weight: Any = None,
    ) -> Any:
        """Split an eigenvalue exactly over tensors, layers, samples or outputs.

        With a unit eigenvector ``v`` in parts ``v_l``, the eigenvalue is the sum of
        ``eigenvalue * |v_l|^2`` over tensors, the sum over samples of each one's curvature along
        ``v``, and, as far as it comes from the Gauss-Newton matrix, a sum of non-negative parts
        of the outputs. Single eigenvectors of a repeated eigenvalue are arbitrary: give the
        indices of all its copies to average over them.

        Parameters
        ----------
        index : int or sequence of int, default=0
            Position in `eigenvalues_`, or positions to average over.
        by : {"tensor", "layer", "sample", "output", "factor"}, default="tensor"
            What to split over. "factor" splits the Gauss-Newton trace of dense layers, not the
            eigenvalue, into feature energy, backward energy, loss curvature and their alignment,
            with both sides of the inequality between a layer's curvature and the input-output
            Jacobian; see `sharpfit.curvature.layer_terms`.
        X, y, sample_weight : array-like, optional
            Rows, for splits by sample, output and factor; by default those of `fit`, which an
            analysis loaded from a file no longer has.

        Returns
        -------
        pandas.DataFrame or dict of ndarray
            One row per part, with its ``contribution`` in units of the loss, and its ``share`` and
            a bound on its ``error`` for tensors and layers. A dictionary without pandas.
        """
        check_is_fitted(self, "eigenvalues_")
        positions = np.atleast_1d(index)
        if not np.all((positions >= 0) & (positions < len(self.eigenvalues_))):
            last = len(self.eigenvalues_) - 1
            raise ValueError(f"index={index!r} must lie between 0 and {last}.")
        vectors = self.eigenvectors_[:, positions]
        if by in ("tensor", "layer"):
            columns = tensor_table(
                self.parameter_names_,
                self._boundaries,
                vectors,
                self.eigenvalues_[positions],
                self.residual_norms_[positions],
                by_layer=by == "layer",
            )
            return as_frame(columns)
        if by not in KINDS:
            raise ValueError(f"by={by!r} must be one of {KINDS}.")
        problem = self._kept_problem
        if X is not None:
            problem = self._problem(self.estimator_, X, y, True, sample_weight)
        if problem is None:
            raise ValueError(f"by={by!r} needs rows, which a loaded analysis lacks; pass X and y.")
        columns = data_table(
            problem,
            by,
            vectors,
            self.matrix,
            parameters=self.parameters,
            batch_size=self.batch_size,
            memory_budget=self.memory_budget,
        )
        return as_frame(columns)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return state | {"_kept_problem": None} if "_kept_problem" in state else state

    def plot(self, ax: Any = None, *, kind: str = "eigenvalues") -> Any:
        """Draw the spectrum; see `sharpfit.SpectrumDisplay`.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; new ones by default.
        kind : {"eigenvalues", "density", "attribution"}, default="eigenvalues"
            What to draw.

        Returns
        -------
        SpectrumDisplay
        """
        from sharpfit.displays import SpectrumDisplay

        return SpectrumDisplay.from_estimator(self).plot(ax, kind=kind)

    def _check_parameters(self) -> None:
        for name, allowed in (
            ("matrix", ("hessian", "gauss_newton")),
            ("which", ("largest", "smallest", "magnitude")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r} must be one of {allowed}.")
        count = self.n_eigenvalues
        if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1:
            raise ValueError(f"n_eigenvalues={count!r} must be a positive int.")
        if not 0 <= self.tol < 1:
            raise ValueError(f"tol={self.tol!r} must be at least 0 and below 1: it is relative.")
        if self.max_products is not None and self.max_products < count:
            raise ValueError(
                f"max_products={self.max_products} must be at least n_eigenvalues={count}: each "
                "eigenvalue takes a product."
            )

    def _problem(self, estimator: Any, X: Any, y: Any, prefit: Any, sample_weight: Any) -> Problem:
        problem = as_problem(
            estimator, X, y, prefit=prefit, sample_weight=sample_weight, dtype=as_dtype(self.dtype)
        )
        if problem.objective is not None and sample_weight is not None:
            raise ValueError(
                f"sample_weight has no place in the loss of {type(problem.network).__name__}, "
                "which overrides get_loss; leave it out."
            )
        return problem

    def _spectrum(
        self, problem: Problem, seed: int | None, **request: Any
    ) -> HessianSpectrumResult:
        request |= {
            "parameters": self.parameters,
            "tol": self.tol,
            "max_products": self.max_products,
            "random_state": seed,
            "verbose": self.verbose,
        }
        if problem.objective is not None and self.matrix == "hessian":
            result = objective_spectrum(problem, **request)
        else:
            result = hessian_spectrum(
                problem.module,
                problem.sample_loss(),
                problem.inputs,
                problem.targets,
                sample_weight=problem.sample_weight,
                matrix=self.matrix,
                batch_size=self.batch_size,
                memory_budget=self.memory_budget,
                **request,
            )
        if not result.converged.all():
            count, rough = len(result.converged), int(np.sum(~result.converged))
            warnings.warn(
                f"{rough} of {count} eigenvalues are not accurate to tol={self.tol} "
                f"after {result.n_products} products (error_bounds_ tells how accurate they are); "
                'increase max_products or tol, or use dtype="float64" if rounding is the limit.',
                ConvergenceWarning,
                stacklevel=3,
            )
        return result

    def _store(self, result: HessianSpectrumResult, shapes: Sequence[torch.Size]) -> None:
        self.eigenvalues_ = result.eigenvalues
        self.eigenvectors_ = result.eigenvectors.cpu().numpy()
        self.residual_norms_ = result.residual_norms
        self.error_bounds_ = result.error_bounds
        self.converged_ = result.converged
        self.interrupted_ = result.interrupted
        self.gauss_newton_share_ = result.gauss_newton_share
        self.trace_ = None if result.trace is None else result.trace.value
        self.trace_std_error_ = None if result.trace is None else result.trace.standard_error
        self.density_ = result.density
        self.n_products_ = result.n_products
        self.parameter_names_ = list(result.parameter_names)
        self._boundaries = np.cumsum([shape.numel() for shape in shapes])[:-1]

    def _statement(self) -> str | None:
        if not hasattr(self, "sharpness_"):
            return None
        origin = "of a trained clone" if self.refitted_ else "of the estimator as given"
        return f"largest eigenvalue {self.sharpness_:.4g}, {origin}"
