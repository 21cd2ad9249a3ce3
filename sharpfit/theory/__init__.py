"""Pure functions of arrays behind the bounds: no torch here; a docstring is a theorem."""

from sharpfit.theory.bound import METHODS, Bound, available_forms, generalisation_bound
from sharpfit.theory.confidence import (
    binary_kl,
    clopper_pearson_lower,
    clopper_pearson_upper,
    dkw_deviation,
    hoeffding_deviation,
    kl_inverse,
)
from sharpfit.theory.covering_bound import covering_form, exceptions_form
from sharpfit.theory.floor import bound_floor
from sharpfit.theory.form import FormCurve, curve_table
from sharpfit.theory.geometry import (
    DEFAULT_CAPACITIES,
    DEFAULT_SCALES,
    Geometry,
    fit_geometry,
)
from sharpfit.theory.literature import held_out_bound, pac_bayes_bound, spectral_margin_bound
from sharpfit.theory.neighbours import exception_counts, same_class_neighbours, typical_spacing
from sharpfit.theory.ramp import clipped_residuals, logit_margins, ramp_loss
from sharpfit.theory.splits import random_halves
from sharpfit.theory.transport import Plan, optimal_plan, transport_cost
from sharpfit.theory.transport_bound import one_sided_form, transport_form
from sharpfit.theory.variance_bound import risk_levels, variance_form

__all__ = [
    "DEFAULT_CAPACITIES",
    "DEFAULT_SCALES",
    "METHODS",
    "Bound",
    "FormCurve",
    "Geometry",
    "Plan",
    "available_forms",
    "binary_kl",
    "bound_floor",
    "clipped_residuals",
    "clopper_pearson_lower",
    "clopper_pearson_upper",
    "covering_form",
    "curve_table",
    "dkw_deviation",
    "exception_counts",
    "exceptions_form",
    "fit_geometry",
    "generalisation_bound",
    "held_out_bound",
    "hoeffding_deviation",
    "kl_inverse",
    "logit_margins",
    "one_sided_form",
    "optimal_plan",
    "pac_bayes_bound",
    "ramp_loss",
    "random_halves",
    "risk_levels",
    "same_class_neighbours",
    "spectral_margin_bound",
    "transport_cost",
    "transport_form",
    "typical_spacing",
    "variance_form",
]
