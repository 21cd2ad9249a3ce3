"""From anything shaped like a scikit-learn estimator to a module, a loss and data."""

from sharpfit.bridge.affine import AffineMap, affine_map
from sharpfit.bridge.build import as_problem
from sharpfit.bridge.data import encode_labels, input_tensor, preprocess, target_tensor
from sharpfit.bridge.problem import Problem
from sharpfit.bridge.unwrap import Parts, is_trained, unwrap

__all__ = [
    "AffineMap",
    "Parts",
    "Problem",
    "affine_map",
    "as_problem",
    "encode_labels",
    "input_tensor",
    "is_trained",
    "preprocess",
    "target_tensor",
    "unwrap",
]
