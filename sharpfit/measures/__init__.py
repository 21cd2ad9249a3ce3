"""Measures of trained networks from the literature, one interface for all."""

from sharpfit.measures.registry import MEASURES, Measure, MeasuredValue, compute_measures
from sharpfit.measures.trained_network import TrainedNetwork

__all__ = ["MEASURES", "Measure", "MeasuredValue", "TrainedNetwork", "compute_measures"]
