"""Measures of trained networks, of the literature and of this library, with one interface."""

from sharpfit.measures.registry import (
    MEASURES,
    Measure,
    MeasuredValue,
    compute_measures,
    measure_names,
)
from sharpfit.measures.trained_network import TrainedNetwork

__all__ = [
    "MEASURES",
    "Measure",
    "MeasuredValue",
    "TrainedNetwork",
    "compute_measures",
    "measure_names",
]
