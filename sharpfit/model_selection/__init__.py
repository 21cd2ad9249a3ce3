"""Scorers and splitters for model selection from training rows."""

from sharpfit.model_selection.scorers import (
    BoundScorer,
    JacobianScorer,
    SharpnessScorer,
    bound_scorer,
    jacobian_scorer,
    make_bound_scorer,
    sharpness_scorer,
)
from sharpfit.model_selection.selection import SelectionScorer, selection_scorer
from sharpfit.model_selection.splitters import ResubstitutionSplit
from sharpfit.model_selection.stopping import TrainingRowsStopping
from sharpfit.model_selection.training_rows import TrainingRowsScorer

__all__ = [
    "BoundScorer",
    "JacobianScorer",
    "ResubstitutionSplit",
    "SelectionScorer",
    "SharpnessScorer",
    "TrainingRowsScorer",
    "TrainingRowsStopping",
    "bound_scorer",
    "jacobian_scorer",
    "make_bound_scorer",
    "selection_scorer",
    "sharpness_scorer",
]
