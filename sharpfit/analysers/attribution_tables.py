"""Tables that say where an eigenvalue of the curvature comes from."""

from typing import Any

import numpy as np
import torch

from sharpfit.bridge import Problem
from sharpfit.curvature import attribution, layer_terms

KINDS = ("tensor", "layer", "sample", "output", "factor")


def tensor_table(
    names: list[str],
    boundaries: np.ndarray,
    vectors: np.ndarray,
    eigenvalues: np.ndarray,
    residual_norms: np.ndarray,
    *,
    by_layer: bool = False,
) -> dict[str, np.ndarray]:
    """Split eigenvalues over parameter tensors or layers, averaged over the eigenvectors.

    Parameters
    ----------
    names : list of str
        Names of the tensors.
    boundaries : ndarray of int
        Where the parts of all tensors but the first begin in the eigenvectors.
    vectors : ndarray of shape (n_parameters, k)
        Unit eigenvectors.
    eigenvalues, residual_norms : ndarray of shape (k,)
        Their eigenvalues and residual norms.
    by_layer : bool, default=False
        Whether to add up the tensors of a layer.

    Returns
    -------
    dict of ndarray
        Columns ``parameter`` or ``layer``, ``share``, ``contribution`` and ``error``.
    """
    squares = vectors.astype(np.float64) ** 2
    parts = np.stack([part.sum(axis=0) for part in np.split(squares, boundaries)])
    label = "parameter"
    if by_layer:
        owners = [name.rpartition(".")[0] for name in names]
        names, label = list(dict.fromkeys(owners)), "layer"
        parts = np.stack([parts[np.array(owners) == name].sum(axis=0) for name in names])
    return {
        label: np.array(names),
        "share": parts.mean(axis=1),
        "contribution": (parts * eigenvalues).mean(axis=1),
        "error": (np.sqrt(parts) * residual_norms).mean(axis=1),
    }


def data_table(
    problem: Problem, by: str, vectors: np.ndarray, matrix: Any, **settings: Any
) -> dict[str, np.ndarray]:
    """Split eigenvalues over samples or outputs, or the curvature of layers into factors.

    Parameters
    ----------
    problem : Problem
        Module, loss and rows.
    by : {"sample", "output", "factor"}
        What to split over.
    vectors : ndarray of shape (n_parameters, k)
        Unit eigenvectors; not used for factors.
    matrix : {"hessian", "gauss_newton"}
        The matrix; factors are always those of the Gauss-Newton matrix.
    **settings : dict
        Settings of the operator.

    Returns
    -------
    dict of ndarray
        Columns of the table.
    """
    settings |= {"sample_weight": problem.sample_weight}
    rows = (problem.module, problem.sample_loss(), problem.inputs, problem.targets)
    if by == "factor":
        terms = layer_terms(*rows, **settings)
        columns = (
            "trace",
            "largest_eigenvalue",
            "feature_energy",
            "backward_energy",
            "loss_curvature",
            "alignment",
            "applies",
            "mean_jacobian",
            "mean_bound",
        )
        table = {"layer": np.array([term.name for term in terms])}
        table |= {name: np.array([getattr(term, name) for term in terms]) for name in columns}
        table["largest_ratio"] = np.array([_largest(term.ratio) for term in terms])
        return table
    split = attribution(
        *rows,
        vectors=torch.as_tensor(vectors, device=problem.inputs.device),
        matrix=matrix,
        **settings,
    )
    if by == "sample":
        return {
            "sample": np.arange(len(split.samples)),
            "contribution": split.samples,
            "gauss_newton": split.samples_gauss_newton,
            "residual": split.samples - split.samples_gauss_newton,
        }
    n_outputs = len(split.outputs)
    named = problem.classes is not None and len(problem.classes) == n_outputs
    return {
        "output": np.asarray(problem.classes) if named else np.arange(n_outputs),
        "gauss_newton": split.outputs,
    }


def _largest(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.max()) if len(finite) else float("nan")
