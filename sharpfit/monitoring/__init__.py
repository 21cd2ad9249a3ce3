"""Curvature and Jacobians of a network while it trains."""

from sharpfit.monitoring.diagnosis import Diagnosis, diagnose
from sharpfit.monitoring.sharpness_monitor import SharpnessMonitor
from sharpfit.monitoring.stability import (
    StabilityCondition,
    adam_limit,
    heavy_ball_limit,
    nesterov_limit,
    stability_condition,
)
from sharpfit.monitoring.tracker import EigenvalueTracker, TrackedEigenpairs

__all__ = [
    "Diagnosis",
    "EigenvalueTracker",
    "SharpnessMonitor",
    "StabilityCondition",
    "TrackedEigenpairs",
    "adam_limit",
    "diagnose",
    "heavy_ball_limit",
    "nesterov_limit",
    "stability_condition",
]
