"""Scorers and splitters for model selection from training rows."""

from sharpfit.model_selection.selection import SelectionScorer, selection_scorer
from sharpfit.model_selection.splitters import ResubstitutionSplit
from sharpfit.model_selection.stopping import TrainingRowsStopping

__all__ = ["ResubstitutionSplit", "SelectionScorer", "TrainingRowsStopping", "selection_scorer"]
