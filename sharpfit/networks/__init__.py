"""Networks that are scikit-learn estimators."""

from sharpfit.networks.classifier import NetworkClassifier
from sharpfit.networks.equal_training import StopTrainingAt
from sharpfit.networks.fingerprint import rows_hash
from sharpfit.networks.modules import MultilayerPerceptron
from sharpfit.networks.regressor import NetworkRegressor

__all__ = [
    "MultilayerPerceptron",
    "NetworkClassifier",
    "NetworkRegressor",
    "StopTrainingAt",
    "rows_hash",
]
