"""All measures by name, and their values for a fitted estimator."""

import difflib
import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from sharpfit.bridge import as_problem
from sharpfit.measures import (
    distances,
    guarantee,
    jacobians,
    k_variance,
    loss_rise,
    margins,
    pac_bayes,
    path_norms,
    relative_flatness,
    sensitivity,
    sharpness,
    weight_norms,
)
from sharpfit.measures.initialisation import initial_module as rebuild_initial_module
from sharpfit.measures.trained_network import TrainedNetwork


@dataclass(frozen=True)
class Measure:
    """A measure of a trained network; larger is meant to go with a larger gap.

    Attributes
    ----------
    name : str
        Name in tables.
    function : callable
        Takes a `TrainedNetwork` and returns a float; its docstring holds formula, source,
        invariances and cost.
    verified_against : str or None
        Second source that the tests check the measure against; None means unverified.
    """

    name: str
    function: Callable[[TrainedNetwork], float]
    verified_against: str | None

    @property
    def summary(self) -> str:
        """First line of the measure's description."""
        return (inspect.getdoc(self.function) or "").splitlines()[0]

    def evaluate(self, network: TrainedNetwork) -> "MeasuredValue":
        """Take the measure of a network, or find out why it has none.

        Parameters
        ----------
        network : TrainedNetwork

        Returns
        -------
        MeasuredValue
        """
        try:
            value = self.function(network)
        except (ArithmeticError, TypeError, ValueError) as error:
            return MeasuredValue(math.nan, str(error))
        if not math.isfinite(value):
            return MeasuredValue(math.nan, f"its value is {value}, as in a diverged network")
        return MeasuredValue(value)


@dataclass(frozen=True)
class MeasuredValue:
    """The value of a measure, or why there is none.

    Attributes
    ----------
    value : float
        NaN when the measure is not defined for the network.
    reason : str or None
        Why it is not defined.
    """

    value: float
    reason: str | None = None


_CLOSED_FORM = "closed form of a linear network"
_DENSE = "dense float64 derivatives"
_BY_HAND = "computed by hand"
_BISECTION = "bisection with the same noise, as in the code of Dziugaite et al. 2020"
_MATCHING = "the earth mover's distance of the package POT"
_ESTIMATOR = "the scorers, whose parts the tests of sharpfit.theory check"

MEASURES: dict[str, Measure] = {
    function.__name__: Measure(function.__name__, function, second_source)
    for second_source, functions in (
        (
            _BY_HAND,
            (
                weight_norms.squared_norm,
                weight_norms.log_frobenius_product,
                weight_norms.log_frobenius_product_over_margin,
                weight_norms.log_spectral_product,
                weight_norms.log_spectral_product_over_margin,
                weight_norms.stable_rank_sum,
                distances.squared_distance_from_initialisation,
                distances.squared_spectral_distance_from_initialisation,
                distances.log_distance_over_margin,
                distances.log_spectral_distance_over_margin,
                distances.log_spectral_complexity_over_margin,
                path_norms.path_norm,
                path_norms.log_path_norm_over_margin,
            ),
        ),
        (
            _CLOSED_FORM,
            (
                margins.negative_margin,
                margins.negative_gradient_normalised_margin,
                margins.negative_jacobian_normalised_margin,
                margins.log_geometric_complexity_over_margin,
            ),
        ),
        (_MATCHING, (k_variance.negative_variance_normalised_margin,)),
        (
            _CLOSED_FORM,
            (
                jacobians.largest_jacobian,
                jacobians.mean_jacobian,
                jacobians.geometric_complexity,
            ),
        ),
        (
            _DENSE,
            (
                jacobians.largest_probability_jacobian,
                jacobians.mean_probability_jacobian,
                jacobians.probability_geometric_complexity,
                sensitivity.input_scaled_sensitivity,
                jacobians.largest_slope,
                jacobians.mean_slope,
                jacobians.mean_local_variation,
                jacobians.excess_jacobian,
                sharpness.sharpness,
                sharpness.adaptive_sharpness,
                sharpness.filter_normalised_sharpness,
                loss_rise.ascent_sharpness,
                loss_rise.average_direction_sharpness,
                sharpness.hessian_trace,
                sharpness.gauss_newton_sharpness,
                sharpness.gauss_newton_trace,
                sharpness.fisher_rao_norm,
                relative_flatness.relative_flatness,
            ),
        ),
        (None, (sensitivity.network_sensitivity,)),
        (_BISECTION, (pac_bayes.pac_bayes_flatness,)),
        (
            _ESTIMATOR,
            (
                guarantee.bound,
                guarantee.bound_empirical_risk,
                guarantee.bound_geometry_cost,
                guarantee.bound_deviation,
                guarantee.bound_lipschitz_constant,
                guarantee.selection_criterion,
            ),
        ),
    )
    for function in functions
}


def compute_measures(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    measures: Iterable[str] | None = None,
    initial_module: nn.Module | None = None,
    random_state: int = 0,
) -> dict[str, MeasuredValue]:
    """Compute measures of a fitted network from its training rows.

    All are estimates of how the network generalises, none is a bound.

    Parameters
    ----------
    estimator : estimator object
        A fitted network, or a pipeline or search around one.
    X : array-like of shape (n, ...)
        Its training rows.
    y : array-like of shape (n,) or (n, k)
        Their targets.
    measures : iterable of str, optional
        Names from `MEASURES`; all by default.
    initial_module : torch.nn.Module, optional
        The module before training; by default it is drawn again for this library's networks
        with an integer `random_state`.
    random_state : int, default=0
        Seed of the measures that draw perturbations.

    Returns
    -------
    dict of str to MeasuredValue
        In the order asked for. A measure that does not exist for the network, such as a
        margin of a regressor, is NaN and carries the reason.

    Raises
    ------
    TypeError, ValueError
        If `measures` is no list of known names.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sharpfit import NetworkClassifier
    >>> from sharpfit.measures import compute_measures
    >>> X, y = load_iris(return_X_y=True)
    >>> network = NetworkClassifier(random_state=0).fit(X, y)
    >>> list(compute_measures(network, X, y, measures=["sharpness", "path_norm"]))
    ['sharpness', 'path_norm']
    """
    names = measure_names(measures)
    if initial_module is None:
        initial_module = rebuild_initial_module(estimator, X, y)
    network = TrainedNetwork(as_problem(estimator, X, y, prefit=True), initial_module, random_state)
    return {name: MEASURES[name].evaluate(network) for name in names}


def measure_names(measures: Iterable[str] | None) -> list[str]:
    """Check names of measures.

    Parameters
    ----------
    measures : iterable of str or None
        All for None.

    Returns
    -------
    list of str

    Raises
    ------
    TypeError, ValueError
        If `measures` is no list of known names.
    """
    if measures is None:
        return list(MEASURES)
    if isinstance(measures, str):
        raise TypeError(f"measures must be a list of names, got a string; write [{measures!r}]")
    names = list(measures)
    if not names:
        raise ValueError(
            "measures is empty; name some of sharpfit.measures.MEASURES, or None for all"
        )
    for name in names:
        if name not in MEASURES:
            near = difflib.get_close_matches(str(name), MEASURES, n=3)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "none is like it."
            raise ValueError(
                f"measures holds the unknown name {name!r}; {hint} They are in "
                "sharpfit.measures.MEASURES"
            )
    return names
