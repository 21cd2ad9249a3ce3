"""The generalisation bound of a network behind an estimator, step by step."""

from sharpfit.analysers.bound.assumptions import Assumption
from sharpfit.analysers.bound.compute import ProblemBound, bound_of_problem, floor_of_rows
from sharpfit.analysers.bound.settings import BoundSettings

__all__ = ["Assumption", "BoundSettings", "ProblemBound", "bound_of_problem", "floor_of_rows"]
