"""Checks of rows and targets before any training: what is wrong, where, and the remedy."""

from collections.abc import Mapping

import numpy as np
import torch
from scipy import sparse
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length


def input_array(X) -> np.ndarray:
    """Return `X` as a numeric array of shape ``(n, ...)``, dtype and values unchanged.

    Arrays, DataFrames, lists and CPU tensors are taken; sparse input and anything without rows
    is refused.
    """
    if not sparse.issparse(X) and isinstance(X, Mapping | torch.utils.data.Dataset):
        raise TypeError(
            f"X is a {type(X).__name__}, but networks take one array of rows. For several inputs "
            "or a Dataset, use skorch.NeuralNetClassifier or skorch.NeuralNetRegressor."
        )
    if isinstance(X, torch.Tensor):
        X = X.detach().cpu().numpy()
    try:
        array = np.asarray(
            check_array(X, dtype="numeric", allow_nd=True, ensure_all_finite=False, input_name="X")
        )
    except (ValueError, TypeError) as error:
        _name_columns(X, error)
        raise
    if array.dtype.kind not in "biufc":
        _name_columns(X, None)
        raise ValueError(f"X has dtype {array.dtype}; networks take numbers.")
    return array


def _name_columns(X, error: Exception | None) -> None:
    """Name the columns of a frame that hold no numbers, if there are any."""
    if not hasattr(X, "columns") or not hasattr(X, "dtypes"):
        return
    kinds = zip(X.columns, X.dtypes, strict=True)
    others = {name: str(dtype) for name, dtype in kinds if getattr(dtype, "kind", "O") in "OMmSUV"}
    if others:
        raise ValueError(
            f"X has columns without numbers, {others}; encode them in front of the network, for "
            "example with sklearn.preprocessing.OneHotEncoder in a ColumnTransformer."
        ) from error


def check_finite_columns(array: np.ndarray, names=None, *, name: str = "X") -> None:
    """Refuse NaN and infinite values, naming the first column that holds one."""
    if array.dtype.kind not in "fc" or np.isfinite(array).all():
        return
    bad = ~np.isfinite(array)
    position = np.argwhere(bad)[0]
    value = "NaN" if np.isnan(array[tuple(position)]) else "infinity (inf)"
    where = f"row {position[0]}"
    if array.ndim == 2:
        column = position[1]
        label = f"{column}" if names is None else f"{column} ({names[column]!r})"
        n_rows = int(bad[:, column].sum())
        where = f"column {label}, in {n_rows} of {len(array)} rows (first: {where})"
    elif array.ndim > 2:
        where = f"position {tuple(int(i) for i in position)}"
    raise ValueError(
        f"Input {name} contains {value} in {where}. Impute or drop these values before training, "
        "for example with sklearn.impute.SimpleImputer in a pipeline."
    )


def cast_rows(array: np.ndarray, dtype: torch.dtype, *, name: str = "X") -> torch.Tensor:
    """Return rows as a tensor of the floating `dtype`, refusing values that overflow it."""
    limit = torch.finfo(dtype).max
    if array.dtype.kind == "f" and array.size and float(np.abs(array).max()) > limit:
        raise ValueError(
            f"{name} contains infinity or a value too large for {dtype} (over {limit:.3g}), the "
            f"dtype of the module's parameters. Scale {name} first."
        )
    # A copy of its own: torch refuses the negative strides of reversed rows.
    return torch.as_tensor(array.copy(), dtype=dtype)


def check_labels(y, X: np.ndarray) -> np.ndarray:
    """Return class labels as an array of shape ``(n,)``."""
    if y is None:
        raise ValueError(
            "NetworkClassifier requires y to be passed, but the target y is None. Pass one label "
            "per row."
        )
    if isinstance(y, torch.Tensor):
        y = y.detach().cpu().numpy()
    y = column_or_1d(y, warn=True)
    check_finite_columns(y, name="y")
    missing = [row for row, label in enumerate(y) if label is None or label != label]
    if missing:
        raise ValueError(
            f"Input y contains missing labels (None or NaN) in {len(missing)} rows (first: row "
            f"{missing[0]}). Drop these rows."
        )
    check_classification_targets(y)
    if X is not None:
        check_consistent_length(X, y)
    return y


def check_regression_targets(y, X: np.ndarray) -> np.ndarray:
    """Return real targets as an array of shape ``(n,)`` or ``(n, k)``."""
    if y is None:
        raise ValueError(
            "NetworkRegressor requires y to be passed, but the target y is None. Pass one target "
            "or one row of targets per row."
        )
    if isinstance(y, torch.Tensor):
        y = y.detach().cpu().numpy()
    y = check_array(y, dtype="numeric", ensure_2d=False, ensure_all_finite=False, input_name="y")
    if y.ndim > 2:
        raise ValueError(f"y has shape {y.shape}; use (n,) or (n, k).")
    check_finite_columns(y, name="y")
    if X is not None:
        check_consistent_length(X, y)
    return y


def encode_labels(y: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the position of every label of `y` in the sorted `classes`, int64."""
    unknown = np.setdiff1d(y, classes)
    if unknown.size:
        raise ValueError(
            f"y contains the label(s) {unknown.tolist()}, which are not among the classes "
            f"{classes.tolist()}. Name all labels with classes= from the start."
        )
    return np.searchsorted(classes, y).astype(np.int64)
