"""Curvature of a network's loss in its parameters: matrices as operators, and what they say."""

from sharpfit.curvature.attribution import Attribution, attribution
from sharpfit.curvature.batch_objective import BatchObjective, ObjectiveHessianOperator
from sharpfit.curvature.conjugate import ConjugateOperator
from sharpfit.curvature.fisher import EmpiricalFisherOperator
from sharpfit.curvature.gauss_newton import GaussNewtonOperator
from sharpfit.curvature.hessian import HessianOperator
from sharpfit.curvature.layer_terms import LayerTerms, layer_terms
from sharpfit.curvature.parameters import ParameterSelection, select_parameters
from sharpfit.curvature.progress import Progress
from sharpfit.curvature.residual import ResidualOperator
from sharpfit.curvature.spectrum import hessian_spectrum
from sharpfit.curvature.spectrum_result import HessianSpectrumResult
from sharpfit.curvature.trace import exact_trace
from sharpfit.curvature.trace_by_parts import curvature_trace

__all__ = [
    "Attribution",
    "BatchObjective",
    "ConjugateOperator",
    "EmpiricalFisherOperator",
    "GaussNewtonOperator",
    "HessianOperator",
    "HessianSpectrumResult",
    "LayerTerms",
    "ObjectiveHessianOperator",
    "ParameterSelection",
    "Progress",
    "ResidualOperator",
    "attribution",
    "curvature_trace",
    "exact_trace",
    "hessian_spectrum",
    "layer_terms",
    "select_parameters",
]
