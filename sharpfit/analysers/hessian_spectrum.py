"""Top curvature of the loss of a network, as an estimator."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted, validate_data

from sharpfit.analysers.arguments import as_dtype, as_seed
from sharpfit.analysers.attribution_tables import (
    RELATIONS,
    SPLITS,
    as_positions,
    data_table,
    tensor_table,
)
from sharpfit.analysers.callback_support import CallbackSupport, fit_progress, with_callbacks
from sharpfit.analysers.delegation import DelegatingAnalyser
from sharpfit.analysers.problem_spectrum import problem_spectrum, refuse_streams
from sharpfit.analysers.spectrum_settings import check_spectrum_settings
from sharpfit.bridge import Problem, as_problem
from sharpfit.curvature import HessianSpectrumResult, select_parameters
from sharpfit.curvature.frame import as_frame

__all__ = ["HessianSpectrum"]


class HessianSpectrum(CallbackSupport, DelegatingAnalyser):
    """Extreme eigenvalues of the curvature of a network's loss, with their error bars.

    The loss is the one the network is trained with, on the rows given to `fit`, with class and
    sample weights but without the optimiser's weight decay, and the network is in evaluation mode
    (no dropout, running statistics of batch norm). A comparison with the stability limit of
    an optimiser must add the weight decay, and holds for batch norm in training mode only as far
    as the two modes agree.

    Every eigenvalue is an estimate with a certified residual: some eigenvalue lies within
    ``residual_norms_`` of it. That none was missed is checked with random vectors, and
    ``miss_probability_`` bounds the risk that remains; see `sharpfit.linalg.top_eigenpairs`.

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
        Bytes, 2 GiB by default, for what is kept between products and one chunk's working
        memory. What does not fit is computed again at every product, with the same result. The
        network, the rows and the Lanczos vectors come on top.
    dtype : torch.dtype, str or None, default=None
        Floating dtype of the analysis, such as ``"float64"``; the network's own by default.
    tol : float, default=1e-3
        Relative accuracy of the eigenvalues.
    max_products : int, optional
        Budget of products with the matrix for the eigenvalues.
    n_jobs : int or None, default=None
        Processes for eigenvalues, trace and density, as joblib takes them. They give the numbers
        of one process up to rounding, and each has a `memory_budget` of its own.
    random_state : int, RandomState or None, default=None
        Seed of random vectors.
    verbose : int, default=0
        Print one line per this many products. Callbacks of scikit-learn 1.9 and later, set with
        `set_callbacks`, are told of every product.

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
    miss_probability_ : float
        Upper bound on the probability with which an eigenvalue beyond the last of these would not
        have been noticed.
    interrupted_ : bool
        Whether Ctrl-C, or a callback, ended the work early, with fewer or rougher numbers.
    sharpness_ : float
        Largest eigenvalue of `matrix`, whatever `which` says; NaN if the work was interrupted
        before it was known.
    gauss_newton_share_ : float
        Part of the first eigenvalue that comes from the Gauss-Newton matrix; may exceed one.
    trace_, trace_std_error_ : float or None
        Trace and its standard error, zero where it is exact. None unless asked for.
    density_ : sharpfit.linalg.SpectralDensity or None
        Density with standard errors. None unless asked for.
    n_products_ : int
        Products with the matrix spent on the eigenvalues.
    route_ : {"closed_form", "traced", "graph"}
        How products were computed: hand-written derivatives, a replayed trace, or double backward.
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
        n_jobs: int | None = None,
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
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @with_callbacks
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
        check_spectrum_settings(self.get_params(deep=False))
        refuse_streams(X)
        if y is None:
            raise ValueError(
                "HessianSpectrum requires y to be passed, but the target y is None: the loss "
                "needs the targets."
            )
        n_parts = 2 + (self.which != "largest") + bool(self.trace) + bool(self.density)
        data = {"X": X, "y": y, "metadata": {"sample_weight": sample_weight}}
        with fit_progress(self, n_parts, **data) as progress:
            with progress.part("network"):
                problem = self._problem(self.estimator, X, y, self.prefit, sample_weight)
            result = self._spectrum(
                problem,
                n_eigenvalues=self.n_eigenvalues,
                which=self.which,
                trace=bool(self.trace),
                density=bool(self.density),
                sharpness=True,
                n_jobs=self.n_jobs,
                progress=progress,
            )
            self._kept_problem: Problem | None = problem
            self.estimator_ = problem.estimator
            self.refitted_ = problem.refitted
            validate_data(self, X, skip_check_array=True)
            if not hasattr(self, "n_features_in_"):
                self.n_features_in_ = int(np.prod(np.asarray(X).shape[1:]))
            self._store(result, select_parameters(problem.module, self.parameters).shapes)
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
        return -float(self._spectrum(problem, n_eigenvalues=1, which="largest").eigenvalues[0])

    def attribution(
        self,
        index: int | Sequence[int] = 0,
        *,
        by: str = "tensor",
        X: Any = None,
        y: Any = None,
        sample_weight: Any = None,
    ) -> Any:
        """Split an eigenvalue exactly, or relate the curvature of layers to the Jacobian.

        With a unit eigenvector ``v`` in parts ``v_l``, the eigenvalue is the sum of
        ``eigenvalue * |v_l|^2`` over tensors, and the sum over samples, or over outputs, of the
        curvature each has along ``v``. Single eigenvectors of a repeated eigenvalue are
        arbitrary: give the indices of all its copies to average over them.

        Parameters
        ----------
        index : int or sequence of int, default=0
            Position in `eigenvalues_`, or positions to average over.
        by : str, default="tensor"
            "tensor", "layer", "sample" and "output" say what to split over. The others do not
            depend on `index`. "factor" has the Gauss-Newton trace of every dense layer as a
            product of feature energy, backward energy, loss curvature and their alignment;
            "inequality", for every dense layer and sample, how large the layer's curvature lets
            the input-output Jacobian be, and how large it is, see
            `sharpfit.curvature.layer_terms`; "alignment", for every sample, the norm of the
            product of the layers' Jacobians against the product of their norms, which tells
            larger layers from layers that line up, see `sharpfit.jacobian.layer_norms`.
        X, y, sample_weight : array-like, optional
            Rows; by default those of `fit`, which an analysis loaded from a file no longer has.
            Splits over tensors and layers need none.

        Returns
        -------
        pandas.DataFrame or dict of ndarray
            One row per part. For splits the ``share`` and the ``contribution`` in units of the
            loss, which add up to one and to the eigenvalue, with a bound on the ``error`` for
            tensors and layers, and with the parts of the Gauss-Newton matrix and the residual
            for samples and outputs. A dictionary without pandas.
        """
        check_is_fitted(self, "eigenvalues_")
        if by not in SPLITS + RELATIONS:
            raise ValueError(f"by={by!r} must be one of {SPLITS + RELATIONS}.")
        if X is None and not (y is None and sample_weight is None):
            raise ValueError("y or sample_weight was given without X; pass all rows, or none.")
        positions = as_positions(index, len(self.eigenvalues_))
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
        problem = self._kept_problem
        if X is not None:
            problem = self._problem(self.estimator_, X, y, True, sample_weight)
        if problem is None:
            raise ValueError(f"by={by!r} needs rows, which a loaded analysis lacks; pass X and y.")
        settings = {"parameters": self.parameters, **self._chunks()}
        return as_frame(data_table(problem, by, vectors, self.matrix, **settings))

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return state | {"_kept_problem": None} if "_kept_problem" in state else state

    def plot(self, ax: Any = None, *, kind: str = "eigenvalues", **attribution: Any) -> Any:
        """Draw the spectrum, or a table of `attribution`.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; new ones by default.
        kind : {"eigenvalues", "density", "attribution"}, default="eigenvalues"
            What to draw.
        **attribution : dict
            Arguments of `attribution`, such as ``by="sample"``, for ``kind="attribution"``.

        Returns
        -------
        SpectrumDisplay or AttributionDisplay
            The latter for ``kind="attribution"``.
        """
        from sharpfit.displays import AttributionDisplay, SpectrumDisplay

        if kind == "attribution":
            return AttributionDisplay.from_estimator(self, **attribution).plot(ax)
        if attribution:
            raise ValueError(f'{sorted(attribution)} are for kind="attribution", not {kind!r}.')
        return SpectrumDisplay.from_estimator(self).plot(ax, kind=kind)

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

    def _spectrum(self, problem: Problem, **request: Any) -> HessianSpectrumResult:
        return problem_spectrum(
            problem,
            matrix=self.matrix,
            parameters=self.parameters,
            chunks=self._chunks(),
            tol=self.tol,
            max_products=self.max_products,
            random_state=as_seed(self.random_state),
            verbose=self.verbose,
            **request,
        )

    def _chunks(self) -> dict[str, Any]:
        return {"batch_size": self.batch_size, "memory_budget": self.memory_budget}

    def _store(self, result: HessianSpectrumResult, shapes: Sequence[torch.Size]) -> None:
        self.eigenvalues_ = result.eigenvalues
        self.eigenvectors_ = result.eigenvectors.cpu().numpy()
        self.residual_norms_ = result.residual_norms
        self.error_bounds_ = result.error_bounds
        self.converged_ = result.converged
        self.miss_probability_ = result.miss_probability
        self.interrupted_ = result.interrupted
        self.sharpness_ = float("nan") if result.sharpness is None else result.sharpness
        self.gauss_newton_share_ = result.gauss_newton_share
        self.trace_ = None if result.trace is None else result.trace.value
        self.trace_std_error_ = None if result.trace is None else result.trace.standard_error
        self.density_ = result.density
        self.n_products_ = result.n_products
        self.route_ = result.route
        self.parameter_names_ = list(result.parameter_names)
        self._boundaries = np.cumsum([shape.numel() for shape in shapes])[:-1]

    def _statement(self) -> str | None:
        if not hasattr(self, "sharpness_"):
            return None
        origin = "of a trained clone" if self.refitted_ else "of the estimator as given"
        return f"largest eigenvalue {self.sharpness_:.4g}, {origin}"
