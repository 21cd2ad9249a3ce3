"""Meta-estimators that analyse a fitted network."""

from sharpfit.analysers.bound import Assumption, BoundSettings, ProblemBound, bound_of_problem
from sharpfit.analysers.generalisation_bound import GeneralisationBound
from sharpfit.analysers.half_features import HalfFeatures

__all__ = [
    "Assumption",
    "BoundSettings",
    "GeneralisationBound",
    "HalfFeatures",
    "ProblemBound",
    "bound_of_problem",
]
