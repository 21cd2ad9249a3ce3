"""Meta-estimators that analyse a fitted network."""

from sharpfit.analysers.bound import Assumption, BoundSettings, ProblemBound, bound_of_problem
from sharpfit.analysers.generalisation_bound import GeneralisationBound
from sharpfit.analysers.half_features import HalfFeatures
from sharpfit.analysers.hessian_spectrum import HessianSpectrum
from sharpfit.analysers.jacobian_profiler import JacobianProfiler

__all__ = [
    "Assumption",
    "BoundSettings",
    "GeneralisationBound",
    "HalfFeatures",
    "HessianSpectrum",
    "JacobianProfiler",
    "ProblemBound",
    "bound_of_problem",
]
