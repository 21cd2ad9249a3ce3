"""A fingerprint of rows, to tell whether they are those a network was fitted on."""

import joblib
import numpy as np

from sharpfit.networks.validation import input_array


def rows_hash(X, y=None) -> str:
    """Return a fingerprint of the rows `X` and their targets `y`.

    Networks store the fingerprint of the rows they were fitted on as ``training_rows_hash_``.
    Containers and memory layout do not matter (a DataFrame and the array of its values agree);
    nor does the dtype of numbers in `y`; the order of the rows and the dtype of `X` do.

    Parameters
    ----------
    X : array-like of shape (n, ...)
        Rows as handed to the network: after the preprocessing of a pipeline.
    y : array-like of shape (n,) or (n, k), default=None
        Targets or labels.

    Returns
    -------
    str
        Hexadecimal digest.

    Examples
    --------
    >>> import numpy as np
    >>> from sharpfit.networks import rows_hash
    >>> X = np.eye(3)
    >>> rows_hash(X, ["a", "b", "a"]) == rows_hash(X.tolist(), np.array(["a", "b", "a"]))
    True
    >>> rows_hash(X, ["a", "b", "a"]) == rows_hash(X, ["a", "b", "b"])
    False
    """
    return joblib.hash((np.ascontiguousarray(input_array(X)), _canonical_targets(y)))


def _canonical_targets(y) -> np.ndarray | None:
    if y is None:
        return None
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dtype.kind not in "biuf":
        # Strings come as objects or in any fixed width; both would enter the hash.
        y = np.array([str(label) for label in y])
    else:
        y = y.astype(np.float64)  # which validation makes of pandas' nullable integers
    return np.ascontiguousarray(y)
