"""What is differentiated: per-sample losses on logits, and modules that return logits."""

from sharpfit.objective.binary_cross_entropy import BinaryCrossEntropy
from sharpfit.objective.criteria import as_sample_loss
from sharpfit.objective.cross_entropy import CrossEntropy
from sharpfit.objective.head import split_head
from sharpfit.objective.rowwise import RowwiseLoss
from sharpfit.objective.sample_loss import SampleLoss
from sharpfit.objective.squared_error import SquaredError

__all__ = [
    "BinaryCrossEntropy",
    "CrossEntropy",
    "RowwiseLoss",
    "SampleLoss",
    "SquaredError",
    "as_sample_loss",
    "split_head",
]
