"""A bound on the error of a network from the rows it was trained on."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.utils.validation import check_is_fitted

from sharpfit.analysers.bound import (
    BoundSettings,
    ProblemBound,
    bound_of_problem,
    floor_of_rows,
)
from sharpfit.analysers.bound.arguments import check_metrics, check_rows
from sharpfit.analysers.bound.metric import untrained_rows
from sharpfit.analysers.bound.statement import floor_statement, statement
from sharpfit.analysers.delegation import DelegatingAnalyser
from sharpfit.bridge import as_problem, unwrap
from sharpfit.theory import DEFAULT_CAPACITIES, curve_table
from sharpfit.theory.intrinsic_dimension import IntrinsicDimension, intrinsic_dimension

__all__ = ["GeneralisationBound"]


class GeneralisationBound(DelegatingAnalyser):
    """Bound the error of a network, with all rows used for training.

    The bound compares two halves of the sample with each other, not the network with held-out
    rows: if every point of one half is near a point of the other, a network whose margin is large
    in units of its Lipschitz constant must also be right nearby. It holds for all networks at
    once, so it survives a search over any number of candidates on the same rows, early stopping
    and every seed, as long as the settings below are the same for all of them and were fixed in
    advance.

    It is *certified* if ``lipschitz`` is ``"certified"`` or a callable that certifies what it
    returns and no assumption is violated (see ``assumptions_``), an *estimate* otherwise, and
    *vacuous* from 1 on. Where rows can be set
    aside, a binomial limit on their errors is tighter; this bound needs none.

    Parameters
    ----------
    estimator : estimator object
        A ``NetworkClassifier``, ``NetworkRegressor`` or skorch net, or a pipeline, search, frozen
        estimator or target transformation around one.
    method : str, default="best"
        ``"transport"``, ``"one_sided"``, ``"variance"``, ``"covering"`` or ``"exceptions"`` (see
        :mod:`sharpfit.theory`), or ``"best"``, under which all available forms share the
        probability of failure by fixed weights and the smallest bound is taken.
    lipschitz : {"empirical", "certified"} or callable, default="empirical"
        Lipschitz constant of the margin. ``"certified"`` multiplies the constants of the layers;
        ``"empirical"`` takes the largest variation seen on the sample. A callable gets
        ``(module, inputs, targets)``, with the module in evaluation mode returning logits, the
        network's inputs and the class numbers (or targets), and returns a certified constant of
        the margin (or prediction), a :class:`~sharpfit.jacobian.Certificate` or certified radii,
        one per row, in the network's input space; for example
        :func:`sharpfit.jacobian.certified_radii`.
    metric : None, "euclidean", "preprocessed" or FrozenEstimator, default=None
        Where distances are taken. ``"euclidean"``: between the raw rows; affine preprocessing is
        folded into the Lipschitz constant, other preprocessing is refused. A ``FrozenEstimator``
        that is a step of the pipeline: between its outputs. ``"preprocessed"``: between the
        network's inputs, an estimate only when the preprocessing was fitted on the same rows.
        None takes the output of a :class:`~sharpfit.HalfFeatures` step or of leading frozen steps
        where there are any, and the raw rows otherwise.
    confidence : float, default=0.95
        Probability with which the bound holds.
    scales : sequence of float, optional
        Grid of inverse lengths; see :func:`~sharpfit.theory.fit_geometry`.
    capacities : sequence of float, default=(1, 2, 4, inf)
        Grid of capacities of the transport.
    radii : sequence of float, optional
        Grid of covering radii.
    n_splits : int, default=1
        Number of random splits over which the transport form averages.
    chunk_size : int or "auto", default="auto"
        Largest number of rows of one class and half that are transported exactly; larger classes
        are cut into chunks, which keeps the bound valid and makes it larger. "auto" is exact up
        to 5000.
    loss_bound : float, optional
        For regression, where it is required: the residual at which the loss is clipped, in units
        of the target. The bound is on ``min(1, |f(x) - y| / loss_bound)``.
    memory : "process", path, joblib.Memory or None, default="process"
        Where the geometry of the rows is kept, so that networks on the same rows share it.
    n_jobs : int or None, default=None
        Parallel workers of the geometry.
    prefit : "auto" or bool, default="auto"
        ``"auto"`` analyses a trained estimator as it is and trains a clone otherwise; True refuses
        an untrained one; False always trains a clone.
    random_state : int, default=0
        Seed of the splits.
    verbose : int, default=0
        Verbosity of joblib's progress messages.

    Attributes
    ----------
    bound_ : float
        The bound; 1 or more says nothing, but still ranks networks.
    method_ : str
        The form that gave it.
    empirical_risk_ : float
        Mean ramp loss on the rows.
    geometry_cost_ : float
        Transport cost or frequency of uncovered points.
    deviation_ : float
        Price of the finite sample; ``bound_ = capacity_ * empirical_risk_ + geometry_cost_ +
        deviation_``.
    scale_ : float or None
        Chosen inverse length, in inverse units of the metric.
    capacity_ : float
        Chosen capacity.
    ramp_width_ : float or None
        Width of the ramp, in units of the margin.
    radius_ : float or None
        Chosen covering radius, in units of the metric.
    n_exceptions_ : int
        Reference points without that radius.
    lipschitz_constant_ : float or None
        Lipschitz constant that was used, in the metric.
    certified_ : bool
        Whether the bound is a certificate.
    vacuous_ : bool
        Whether the bound is at least 1.
    assumptions_ : dict of str to Assumption
        Each with ``status`` ("holds", "assumed" or "violated"), ``reason`` and ``remedy``.
    refitted_ : bool
        Whether ``estimator_`` is a trained clone.
    estimator_ : estimator object
        The trained estimator.
    n_features_in_ : int
        Number of features, if the estimator counts them.
    classes_ : ndarray of shape (n_classes,)
        Class labels of a classifier.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sharpfit import GeneralisationBound, NetworkClassifier
    >>> X, y = make_moons(400, noise=0.05, random_state=0)
    >>> network = NetworkClassifier(max_epochs=20, random_state=0)
    >>> analysis = GeneralisationBound(network).fit(X, y)
    >>> analysis.certified_, analysis.refitted_
    (False, True)
    """

    def __init__(
        self,
        estimator: Any,
        *,
        method: str = "best",
        lipschitz: str | Callable[..., Any] = "empirical",
        metric: Any = None,
        confidence: float = 0.95,
        scales: Sequence[float] | None = None,
        capacities: Sequence[float] = DEFAULT_CAPACITIES,
        radii: Sequence[float] | None = None,
        n_splits: int = 1,
        chunk_size: int | str = "auto",
        loss_bound: float | None = None,
        memory: Any = "process",
        n_jobs: int | None = None,
        prefit: Any = "auto",
        random_state: int = 0,
        verbose: int = 0,
    ):
        self.estimator = estimator
        self.method = method
        self.lipschitz = lipschitz
        self.metric = metric
        self.confidence = confidence
        self.scales = scales
        self.capacities = capacities
        self.radii = radii
        self.n_splits = n_splits
        self.chunk_size = chunk_size
        self.loss_bound = loss_bound
        self.memory = memory
        self.n_jobs = n_jobs
        self.prefit = prefit
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any, **fit_params: Any) -> "GeneralisationBound":
        """Compute the bound from rows and targets, training a clone first where needed.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets.
        **fit_params
            Refused: neither ``groups`` nor ``sample_weight`` has a place in the bound.

        Returns
        -------
        GeneralisationBound
        """
        settings = self._settings()
        check_rows(self.estimator, X, y, fit_params, self.loss_bound)
        problem = as_problem(self.estimator, X, y, prefit=self.prefit)
        result = bound_of_problem(problem, y, settings)
        self.estimator_ = problem.estimator
        self.refitted_ = problem.refitted
        self._store(result)
        if not hasattr(self, "n_features_in_"):  # plain skorch nets do not count them
            self.n_features_in_ = int(np.prod(np.shape(X)[1:]))
        return self

    def score(self, X: Any, y: Any) -> float:
        """Return minus the bound of the trained estimator on other, or the same, rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets.

        Returns
        -------
        float
        """
        check_is_fitted(self, "estimator_")
        check_rows(self.estimator_, X, y, {}, self.loss_bound)
        problem = as_problem(self.estimator_, X, y, prefit=True)
        return -bound_of_problem(problem, y, self._settings()).bound.value

    def curve(self) -> dict[str, np.ndarray]:
        """Return the terms of every form at every point of its grid.

        Returns
        -------
        dict of str to ndarray of shape (n_points,)
            See :func:`~sharpfit.theory.curve_table`.
        """
        check_is_fitted(self, "bound_")
        return curve_table(self._result.bound.curves)

    def floor(
        self, metrics: dict[str, Any] | None = None, *, X: Any = None, y: Any = None
    ) -> dict[str, Any]:
        """Return what no network gets below on these rows, for every form of the bound.

        See :func:`~sharpfit.theory.bound_floor`. Other metrics can be compared; choosing among
        ``k`` of them by looking costs the bound ``log k``. Nothing is trained.

        Parameters
        ----------
        metrics : dict of str to array-like of shape (n_samples, d), optional
            The rows in other spaces, by name.
        X : array-like of shape (n_samples, n_features), optional
            Rows, before any training. Distances are taken where ``metric`` says; a space behind a
            step that is not fitted yet is refused. Not needed after a fit, when the rows and the
            metric of the fit are the default.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), optional
            Their targets.

        Returns
        -------
        dict
            Floor by form, or by name of the metric and form if ``metrics`` are given, those of
            the bound being ``"current"``.
        """
        settings = self._settings()
        if X is None:
            check_is_fitted(self, "bound_")
            if y is not None:
                raise ValueError("y is given without X; give the rows to which it belongs, too.")
            n_samples, own = self._result.geometry.n_samples, self._result.floor(settings)
        else:
            check_rows(self.estimator, X, y, {}, self.loss_bound)
            kind = "classification" if is_classifier(self) else "regression"
            rows = untrained_rows(unwrap(self.estimator).preprocessing, X, self.metric)
            n_samples, own = len(rows), floor_of_rows(rows, y, kind, settings)
        if metrics is None:
            return own
        check_metrics(metrics, n_samples)
        others = {
            name: (
                self._result.floor_in(rows, settings)
                if X is None
                else floor_of_rows(rows, y, kind, settings)
            )
            for name, rows in metrics.items()
        }
        return {"current": own} | others

    def floor_statement(
        self, metrics: dict[str, Any] | None = None, *, X: Any = None, y: Any = None
    ) -> str:
        """Say what no network gets below on these rows, and which metric would help.

        Parameters
        ----------
        metrics, X, y
            See :meth:`floor`.

        Returns
        -------
        str
        """
        return floor_statement(self.floor({} if metrics is None else metrics, X=X, y=y))

    def plot(self, ax: Any = None, *, form: str | None = None) -> Any:
        """Draw the terms of the bound against its scale.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; new ones by default.
        form : str, optional
            Form to draw; the one that gave the bound by default.

        Returns
        -------
        BoundDisplay
        """
        from sharpfit.displays import BoundDisplay

        return BoundDisplay.from_estimator(self).plot(ax, form=form)

    def intrinsic_dimension(self) -> IntrinsicDimension:
        """Estimate the intrinsic dimension of the rows in the metric of the bound.

        Distances to neighbours shrink like ``n ** (-1 / dimension)``: a high dimension explains a
        large geometry term.

        Returns
        -------
        IntrinsicDimension
        """
        check_is_fitted(self, "bound_")
        return intrinsic_dimension(self._result.features, random_state=self.random_state)

    def _settings(self) -> BoundSettings:
        names = BoundSettings.__dataclass_fields__
        return BoundSettings(**{name: getattr(self, name) for name in names})

    def _store(self, result: ProblemBound) -> None:
        bound = result.bound
        self._result = result
        self.bound_ = bound.value
        self.method_ = bound.form
        self.empirical_risk_ = bound.empirical_risk
        self.geometry_cost_ = bound.geometry_cost
        self.deviation_ = bound.deviation
        self.scale_ = bound.scale
        self.capacity_ = bound.capacity
        self.ramp_width_ = bound.ramp_width
        self.radius_ = bound.radius
        self.n_exceptions_ = bound.n_exceptions
        self.lipschitz_constant_ = bound.lipschitz_constant
        self.certified_ = result.certified
        self.vacuous_ = bound.vacuous
        self.assumptions_ = result.assumptions
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))

    def statement(self) -> str:
        """Say in one line what the bound says, and of which kind it is.

        Returns
        -------
        str
        """
        check_is_fitted(self, "bound_")
        return statement(
            self.bound_,
            certified=self.certified_,
            confidence=self.confidence,
            loss_bound=self.loss_bound,
        )

    def _statement(self) -> str | None:
        if not hasattr(self, "bound_"):
            return None
        return (
            f"{self.statement()} ({'trained a clone' if self.refitted_ else 'analysed as given'})"
        )
