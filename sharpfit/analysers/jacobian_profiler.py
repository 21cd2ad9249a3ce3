"""Jacobians of a network at the rows of a data set, as an analysis and as features."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import MetaEstimatorMixin, TransformerMixin, is_classifier
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from sharpfit.analysers.arguments import as_dtype
from sharpfit.analysers.callback_support import CallbackSupport, fit_progress, with_callbacks
from sharpfit.analysers.jacobian_analyses import JacobianAnalyses
from sharpfit.analysers.jacobian_space import analysed_function, check_features, check_request
from sharpfit.analysers.jacobian_summary import jacobian_summary
from sharpfit.analysers.row_norms import logit_norms, output_norms, row_features
from sharpfit.bridge import as_problem, unwrap
from sharpfit.jacobian.surroundings import in_plain_mode

__all__ = ["JacobianProfiler"]

_NORM_FEATURES = ("spectral_norm", "frobenius_norm")
_MARGIN_FEATURES = ("margin_gradient_norm", "normalised_margin")


class JacobianProfiler(CallbackSupport, TransformerMixin, MetaEstimatorMixin, JacobianAnalyses):
    """Profile the input-output Jacobian of a network over the rows of a data set.

    `fit` summarises the norms at the rows and how the network varies between them;
    `transform` describes every row by how sensitive the network is there and how far, to first
    order, the decision boundary lies.

    The norms at the rows are exact or carry error bounds, the slopes are proved lower bounds on
    the Lipschitz constant; the local variation is an estimate from below.

    Parameters
    ----------
    estimator : estimator object
        A ``NetworkClassifier``, ``NetworkRegressor`` or skorch net, or a pipeline, search,
        frozen estimator or target transformation around one.
    output : {"logits", "probabilities", "margin", "loss"}, default="logits"
        What the summary and `score` differentiate: the network's outputs, their softmax (for one
        logit the sigmoid), the margin of the predicted class, or the loss (needs y).
    space : {"network", "input"}, default="network"
        With respect to what: the network's input, or the raw rows in front of affine
        preprocessing (other preprocessing is refused).
    use_targets : bool, default=True
        Whether the y of `fit` are the network's targets. False for a step in front of an
        estimator of something else, such as a detector of misclassified rows: the y that the
        pipeline hands down are then left alone.
    prefit : "auto" or bool, default="auto"
        "auto" analyses a trained estimator as it is and trains a clone otherwise; True refuses an
        untrained one; False always trains a clone. scikit-learn clones the steps of a pipeline
        when it cross-validates, and a clone is untrained: use
        ``JacobianProfiler(FrozenEstimator(network))`` as a step. Features of a network that was
        trained on the same rows are in-sample: rows it has not seen look different. Fit what
        follows on held-out rows, or cross-fit.
    dtype : torch.dtype, str or None, default=None
        Floating dtype of the analysis, such as ``"float64"``; the network's own by default.
    tol : float, default=1e-3
        Relative error at which norms of large Jacobians (more than 64 outputs and inputs) count
        as found; smaller ones are exact.
    batch_size : int or "auto", default="auto"
        Rows of a chunk.
    memory_budget : int, default=2**28
        Bytes that a chunk may use when `batch_size` is "auto".
    random_state : int, RandomState or None, default=0
        Seed of start vectors, probes and of the rows whose surroundings are looked at.
    verbose : int, default=0
        Print one line per this many chunks of rows. Ctrl-C during a fit leaves what an earlier
        one has found.

    Attributes
    ----------
    norms_ : ndarray of shape (n,)
        Spectral norms of the Jacobian of `output` at the rows.
    max_norm_, mean_norm_ : float
        Their largest and mean value.
    norm_error_ : float
        Largest distance of any of them from a true singular value; 0 where exact.
    quantiles_ : ndarray of shape (5,)
        Their quantiles at levels .05, .25, .5, .75 and .95.
    layer_norms_ : dict of str to float
        Mean spectral norm of each layer's own Jacobian, in the order of the calls.
    alignment_ : float or None
        Mean ratio of the network's norm to the product of its layers' (see
        `sharpfit.jacobian.LayerNorms`). None unless the network is a chain of layers.
    slope_bound_ : float
        Largest slope of `output` between rows, over all pairs up to 20 000 rows and over 10
        nearest neighbours beyond: no Lipschitz constant is smaller. The slope of logits is taken
        where `output` is "loss".
    n_duplicate_pairs_ : int
        Pairs of equal rows, which have no slope.
    local_variation_ : float
        Largest norm found around up to 512 rows (on the segments to the nearest neighbours and at
        half that distance in a random direction) over the largest at these rows; see `variation`.
        Of the logits where `output` is "margin" or "loss".
    margin_constant_ : float
        Empirical Lipschitz constant of the margin of the true class, see
        `sharpfit.jacobian.empirical_margin_constant`. Classifiers, only if y was given. With more
        than 64 classes and inputs it takes as many backward passes as there are classes.
    margin_contradicted_ : bool
        Whether pairs of rows show a larger margin slope than any gradient at a row. Likewise.
    n_conflicting_pairs_ : int
        Pairs of equal rows with different targets. Only if y was given.
    loss_slope_bound_ : float
        Lower bound on the Lipschitz constant of the probabilities or predictions that follows
        from the losses alone. Only if y was given and the loss has one.
    estimator_ : estimator object
        The trained estimator.
    refitted_ : bool
        Whether `estimator_` is a trained clone.
    n_features_in_ : int
        Number of features of a row.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, if the rows were a data frame with string names.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sharpfit import JacobianProfiler, NetworkClassifier
    >>> X, y = make_moons(200, noise=0.1, random_state=0)
    >>> network = NetworkClassifier(max_epochs=5, random_state=0).fit(X, y)
    >>> profiler = JacobianProfiler(network).fit(X, y)
    >>> profiler.slope_bound_ <= profiler.margin_constant_ * 2, profiler.refitted_
    (True, False)
    >>> profiler.transform(X[:3]).shape
    (3, 4)
    """

    def __init__(
        self,
        estimator: Any,
        *,
        output: str = "logits",
        space: str = "network",
        use_targets: bool = True,
        prefit: Any = "auto",
        dtype: torch.dtype | str | None = None,
        tol: float = 1e-3,
        batch_size: int | str = "auto",
        memory_budget: int = 2**28,
        random_state: Any = 0,
        verbose: int = 0,
    ):
        self.estimator = estimator
        self.output = output
        self.space = space
        self.use_targets = use_targets
        self.prefit = prefit
        self.dtype = dtype
        self.tol = tol
        self.batch_size = batch_size
        self.memory_budget = memory_budget
        self.random_state = random_state
        self.verbose = verbose

    @with_callbacks
    @in_plain_mode
    def fit(self, X: Any, y: Any = None) -> "JacobianProfiler":
        """Profile the network at the rows, training a clone first where needed.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Rows, as the estimator takes them.
        y : array-like of shape (n,) or (n, k), optional
            Targets; required to train a clone and for ``output="loss"``.

        Returns
        -------
        JacobianProfiler
        """
        y = y if self.use_targets else None
        check_request(self.output, self.space, y)
        data = {"X": X, "y": y, "metadata": {}}
        with fit_progress(self, n_parts=4, **data) as progress:
            with progress.part("network"):
                problem = as_problem(
                    self.estimator, X, y, prefit=self.prefit, dtype=as_dtype(self.dtype)
                )
            function = analysed_function(problem, self.space)
            summary = jacobian_summary(problem, function, self.output, progress, **self._settings())
        check_features(self, X, reset=True)
        self.estimator_ = problem.estimator
        self.refitted_ = problem.refitted
        for name, value in summary.items():
            if value is not None or name == "alignment_":
                setattr(self, name, value)
            else:
                self.__dict__.pop(name, None)  # an earlier fit may have had targets
        return self

    def transform(self, X: Any) -> NDArray[np.float64]:
        """Describe rows by the Jacobian of the logits or predictions, whatever `output` is.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Rows.

        Returns
        -------
        ndarray of shape (n, 4), or (n, 2) for regressors
            Spectral norm; Frobenius norm; for classifiers also the norm of the gradient of the
            margin between the predicted class and the runner-up, and that margin over its
            gradient's norm: to first order, the distance to the decision boundary. A gradient
            below a millionth of the largest one at `fit` counts as that.
        """
        problem, function = self._problem(X)
        norms = logit_norms(problem, function, **self._settings())
        return row_features(norms, self._gradient_scale)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Return the names of the columns of `transform`.

        Parameters
        ----------
        input_features : ignored

        Returns
        -------
        ndarray of str
        """
        check_is_fitted(self, "estimator_")
        has_margins = is_classifier(unwrap(self.estimator_).network)
        margins = _MARGIN_FEATURES if has_margins else ()
        return np.array([*_NORM_FEATURES, *margins], dtype=object)

    def score(self, X: Any, y: Any = None) -> float:
        """Return minus the largest norm of the Jacobian of `output` at rows.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Rows.
        y : array-like of shape (n,) or (n, k), optional
            Targets; needed for ``output="loss"`` only.

        Returns
        -------
        float
        """
        check_is_fitted(self, "estimator_")
        y = y if self.use_targets else None
        check_request(self.output, self.space, y)
        problem, function = self._problem(X, y)
        norms = output_norms(problem, function, self.output, **self._settings())
        return -float(norms.spectral.max())

    def _statement(self) -> str | None:
        if not hasattr(self, "refitted_"):
            return None
        how = "trained a clone" if self.refitted_ else "analysed as given"
        return f"largest norm {self.max_norm_:.3g} ({how})"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags = get_tags(self.estimator).input_tags
        return tags
