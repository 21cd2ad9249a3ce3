"""The generalisation bound of one network on one geometry: all forms, and the best of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sharpfit.theory.confidence import check_delta
from sharpfit.theory.covering_bound import covering_form, exceptions_form
from sharpfit.theory.form import FormCurve
from sharpfit.theory.geometry import Geometry
from sharpfit.theory.ramp import ramp_loss
from sharpfit.theory.transport_bound import one_sided_form, transport_form
from sharpfit.theory.variance_bound import variance_form

__all__ = ["FORM_WEIGHTS", "METHODS", "Bound", "available_forms", "generalisation_bound"]

# Shares of delta of the forms when the best is taken; renormalised over the forms available. The
# covering form with exceptions gets most: it pays the logarithm of its share only in a binomial
# limit, and it is the one that is small on separable data.
FORM_WEIGHTS = {
    "transport": 0.2,
    "one_sided": 0.2,
    "variance": 0.2,
    "covering": 0.1,
    "exceptions": 0.5,
}
METHODS = ("best", *FORM_WEIGHTS)
_COVERING_FORMS = ("covering", "exceptions")


@dataclass(frozen=True, eq=False)
class Bound:
    """A bound on the error of one network, with its terms.

    ``value = capacity * empirical_risk + geometry_cost + deviation``.

    Attributes
    ----------
    value : float
        Bound on the probability of an error (classification) or on the expectation of
        ``min(1, |f(x) - y| / loss_bound)`` (regression). Not clipped: 1 or more says nothing.
    form : str
        The form that gave it.
    empirical_risk : float
        Mean ramp loss (or clipped loss) on the rows the form uses; in a covering form, the
        frequency of test points that the exceptions may spoil.
    geometry_cost : float
        Transport cost, or frequency of uncovered test points.
    deviation : float
        Price of the finite sample, of the confidence and of the grid.
    scale : float or None
        Inverse length ``s``; None for covering forms.
    capacity : float
        Capacity of the transport; 1 for covering forms.
    ramp_width : float or None
        ``lipschitz_constant / scale``, in units of the margin; None for covering forms and for
        regression.
    radius : float or None
        Covering radius, in units of the distances; None for transport forms.
    n_exceptions : int
        Reference points whose certified radius is below ``radius``.
    lipschitz_constant : float or None
        The constant that was used; None when certified radii were given instead.
    confidence : float
        Probability with which the bound holds.
    curves : tuple of FormCurve
        Every form that shared the confidence, along its grid.
    """

    value: float
    form: str
    empirical_risk: float
    geometry_cost: float
    deviation: float
    scale: float | None
    capacity: float
    ramp_width: float | None
    radius: float | None
    n_exceptions: int
    lipschitz_constant: float | None
    confidence: float
    curves: tuple[FormCurve, ...]

    @property
    def vacuous(self) -> bool:
        """Whether the bound says nothing."""
        return self.value >= 1.0


def available_forms(geometry: Geometry, *, radii_only: bool = False) -> tuple[str, ...]:
    """Names of the forms that a geometry allows.

    Parameters
    ----------
    geometry : Geometry
        Of the data set.
    radii_only : bool, default=False
        Whether there are certified radii, but no Lipschitz constant.

    Returns
    -------
    tuple of str

    Examples
    --------
    >>> from sharpfit.theory import fit_geometry
    >>> available_forms(fit_geometry([[0.0], [1.0]], [0, 1]))
    ('transport', 'variance', 'covering', 'exceptions')
    """
    transport = ("one_sided" if geometry.reference_given else "transport", "variance")
    covering = _COVERING_FORMS if geometry.task == "classification" else ()
    return covering if radii_only else transport + covering


def generalisation_bound(
    geometry: Geometry,
    lipschitz_constant: float | None,
    *,
    margins: ArrayLike | None = None,
    losses: ArrayLike | None = None,
    radii: ArrayLike | None = None,
    method: str = "best",
    confidence: float = 0.95,
) -> Bound:
    """Bound the error of a network from the rows it was trained on.

    Holds with probability ``confidence``, for all networks at once, however they were trained or
    selected on these rows, as long as the geometry (rows, metric, splits, grids), the method and
    the confidence are the same for all of them and were fixed in advance. It is a certificate
    when ``lipschitz_constant`` (or ``radii``) truly bounds the network, else an estimate. With
    ``method="best"`` the forms share the probability of failure by fixed weights and the smallest
    bound is returned; see :func:`~sharpfit.theory.transport_form`,
    :func:`~sharpfit.theory.one_sided_form`, :func:`~sharpfit.theory.variance_form`,
    :func:`~sharpfit.theory.covering_form` and :func:`~sharpfit.theory.exceptions_form`.

    Parameters
    ----------
    geometry : Geometry
        From :func:`~sharpfit.theory.fit_geometry`.
    lipschitz_constant : float or None
        Lipschitz constant of the margin (classification) or of the prediction (regression) with
        respect to the features of the geometry; None when ``radii`` are given instead.
    margins : array-like of shape (n_samples,), optional
        Margins, for classification.
    losses : array-like of shape (n_samples,), optional
        Losses ``min(1, |f(x) - y| / loss_bound)``, for regression.
    radii : array-like of shape (n_samples,), optional
        Certified radii of the rows, for the covering forms. The default is the positive part of
        the margin over the Lipschitz constant.
    method : {"best", "transport", "one_sided", "variance", "covering", "exceptions"}
        Form of the bound.
    confidence : float, default=0.95
        Probability with which the bound holds.

    Returns
    -------
    Bound

    Raises
    ------
    ValueError
        If an argument is out of range, not finite, or the method does not fit the geometry.

    Examples
    --------
    >>> import numpy as np
    >>> from sharpfit.theory import fit_geometry
    >>> geometry = fit_geometry(np.zeros((100, 1)), np.zeros(100), scales=[1.0], capacities=[1.0])
    >>> bound = generalisation_bound(geometry, 1.0, margins=np.ones(100), method="transport")
    >>> round(bound.value, 7)
    0.1730818
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence={confidence!r} must lie strictly between 0 and 1.")
    delta = check_delta(1.0 - confidence)
    values = _check_outcomes(geometry, margins, losses)
    constant = _check_constant(lipschitz_constant, radii)
    forms = available_forms(geometry, radii_only=constant is None)
    if method != "best" and method not in forms:
        raise ValueError(
            f"method={method!r} is not available here: {_reason(method, geometry)}. Choose 'best' "
            f"or one of {list(forms)}."
        )
    chosen = forms if method == "best" else (method,)
    weights = {form: FORM_WEIGHTS[form] for form in chosen}
    total = sum(weights.values())
    curves = tuple(
        _evaluate(form, geometry, values, constant, radii, delta * weight / total)
        for form, weight in weights.items()
    )
    curve = _best(curves)
    point = curve.best
    covering = curve.form in _COVERING_FORMS
    scale = None if covering else float(curve.scales[point])
    width = constant / scale if scale and constant is not None and losses is None else None
    return Bound(
        value=float(curve.values[point]),
        form=curve.form,
        empirical_risk=float(curve.risks[point]),
        geometry_cost=float(curve.geometry[point]),
        deviation=float(curve.deviations[point]),
        scale=scale,
        capacity=float(curve.capacities[point]),
        ramp_width=width,
        radius=float(curve.radii[point]) if covering else None,
        n_exceptions=int(curve.exceptions[point]),
        lipschitz_constant=constant,
        confidence=confidence,
        curves=curves,
    )


def _reason(method: str, geometry: Geometry) -> str:
    """Why a form is not available."""
    if method not in FORM_WEIGHTS:
        return "it is no form of the bound"
    if geometry.task == "regression" and method in _COVERING_FORMS:
        return "it is stated for classifiers, which are right on whole balls"
    if method == "transport" and geometry.reference_given:
        return "the metric was fitted on one half of the rows, which leaves the one-sided forms"
    if method == "one_sided":
        return "it is for metrics fitted on one half of the rows; the two-sided form is at hand"
    return "certified radii bound no loss but errors, through the covering forms"


def _best(curves: tuple[FormCurve, ...]) -> FormCurve:
    """Curve with the smallest bound; where nothing is below 1, one that still ranks networks."""
    telling = [curve for curve in curves if curve.best_value < 1.0]
    candidates = telling or [curve for curve in curves if not curve.saturates] or list(curves)
    return min(candidates, key=lambda curve: curve.best_value)


def _evaluate(
    form: str,
    geometry: Geometry,
    values: np.ndarray,
    constant: float | None,
    radii: ArrayLike | None,
    delta: float,
) -> FormCurve:
    half = geometry.reference
    if constant is None or form in _COVERING_FORMS:
        cover = covering_form if form == "covering" else exceptions_form
        return cover(geometry, _certified_radii(values, constant, radii)[half], delta)
    if form == "transport":
        return transport_form(geometry, _risks(geometry, values, constant), delta)
    carry = one_sided_form if form == "one_sided" else variance_form
    return carry(geometry, _risks(geometry, values[half], constant), delta)


def _risks(geometry: Geometry, values: np.ndarray, constant: float) -> np.ndarray:
    """Mean at every scale of a majorant of the errors that is 1-Lipschitz at that scale."""
    if geometry.loss_bound is None:
        return np.array([ramp_loss(values, constant / scale).mean() for scale in geometry.scales])
    # A loss too steep for the scale is flattened towards 1 until it is 1-Lipschitz.
    kept = np.ones(len(geometry.scales))
    if constant > 0:
        kept = np.minimum(geometry.scales * (geometry.loss_bound / constant), 1.0)
    return 1.0 - kept * (1.0 - values.mean())


def _certified_radii(
    margins: np.ndarray, constant: float | None, radii: ArrayLike | None
) -> np.ndarray:
    """Radii within which the prediction is certified; 0 where it is wrong."""
    if radii is None:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return np.where(margins > 0, margins / constant, 0.0)
    array = np.asarray(radii, dtype=np.float64)
    if array.shape != margins.shape or np.isnan(array).any():
        raise ValueError(
            f"radii must be {len(margins)} numbers, one per row, without NaN; got shape "
            f"{array.shape}."
        )
    return np.where(margins > 0, np.maximum(array, 0.0), 0.0)


def _check_outcomes(
    geometry: Geometry, margins: ArrayLike | None, losses: ArrayLike | None
) -> np.ndarray:
    name = "margins" if geometry.task == "classification" else "losses"
    given, other = (margins, losses) if name == "margins" else (losses, margins)
    if given is None or other is not None:
        raise ValueError(f"A {geometry.task} geometry needs {name}, and only these.")
    values = np.asarray(given, dtype=np.float64)
    if values.shape != (geometry.n_samples,):
        raise ValueError(
            f"{name} of shape {values.shape} must have shape ({geometry.n_samples},): one value "
            "for each row of the geometry."
        )
    bad = np.count_nonzero(~np.isfinite(values))
    if bad:
        raise ValueError(
            f"{name} are not finite in {bad} of {len(values)} rows; the network's outputs have "
            "diverged. Train it with a smaller learning rate."
        )
    if name == "losses" and not ((values >= 0) & (values <= 1)).all():
        raise ValueError("losses must lie in [0, 1]; clip residuals with clipped_residuals.")
    return values


def _check_constant(constant: float | None, radii: ArrayLike | None) -> float | None:
    if constant is None:
        if radii is None:
            raise ValueError("Give lipschitz_constant or certified radii.")
        return None
    if not 0 <= constant < np.inf:
        raise ValueError(f"lipschitz_constant={constant!r} must be finite and not negative.")
    return float(constant)
