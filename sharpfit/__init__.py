"""Loss curvature, input-output Jacobians and generalisation bounds, the scikit-learn way.

Public names are imported on first use, so that ``import sharpfit.theory`` does not load torch.
"""

import importlib

_PUBLIC_NAMES: dict[str, str] = {
    "AttributionDisplay": "sharpfit.displays",
    "BoundDisplay": "sharpfit.displays",
    "ComparisonDisplay": "sharpfit.displays",
    "GeneralisationBound": "sharpfit.analysers",
    "HalfFeatures": "sharpfit.analysers",
    "HessianSpectrum": "sharpfit.analysers",
    "JacobianDisplay": "sharpfit.displays",
    "JacobianPenalty": "sharpfit.networks.interventions",
    "JacobianProfiler": "sharpfit.analysers",
    "Mixup": "sharpfit.networks.interventions",
    "NetworkClassifier": "sharpfit.networks",
    "NetworkRegressor": "sharpfit.networks",
    "ResubstitutionSplit": "sharpfit.model_selection",
    "SharpnessAwareMinimisation": "sharpfit.networks.interventions",
    "SharpnessMonitor": "sharpfit.monitoring",
    "SharpeningDisplay": "sharpfit.displays",
    "SpectrumDisplay": "sharpfit.displays",
    "TrainingRowsStopping": "sharpfit.model_selection",
    "compare_models": "sharpfit.comparison",
    "diagnose": "sharpfit.monitoring",
    "bound_scorer": "sharpfit.model_selection",
    "jacobian_scorer": "sharpfit.model_selection",
    "make_bound_scorer": "sharpfit.model_selection",
    "selection_scorer": "sharpfit.model_selection",
    "sharpness_scorer": "sharpfit.model_selection",
}

__version__ = "0.1.0"
__all__ = sorted(_PUBLIC_NAMES)


def __getattr__(name: str) -> object:
    if name in _PUBLIC_NAMES:
        return getattr(importlib.import_module(_PUBLIC_NAMES[name]), name)
    raise AttributeError(f"module 'sharpfit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
