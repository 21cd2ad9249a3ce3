"""Tables that say where an eigenvalue of the curvature comes from."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sharpfit.bridge import Problem
from sharpfit.curvature import Attribution, LayerTerms, attribution, layer_terms
from sharpfit.jacobian import LayerNorms, layer_norms

SPLITS = ("tensor", "layer", "sample", "output")
RELATIONS = ("factor", "inequality", "alignment")
Table = dict[str, np.ndarray]


def as_positions(index: int | Sequence[int], n_eigenvalues: int) -> np.ndarray:
    """Return positions of eigenvalues as an array.

    Parameters
    ----------
    index : int or sequence of int
        One or several positions.
    n_eigenvalues : int
        How many there are.

    Returns
    -------
    ndarray of shape (k,), int

    Raises
    ------
    ValueError
        If one is no position.
    """
    positions, last = np.atleast_1d(index), n_eigenvalues - 1
    whole = positions.ndim == 1 and positions.dtype.kind in "iu" and len(positions) > 0
    if not whole or positions.min() < 0 or positions.max() > last:
        raise ValueError(
            f"index={index!r} must lie between 0 and {last}, or be a list of such positions."
        )
    return positions


def tensor_table(
    names: list[str],
    boundaries: np.ndarray,
    vectors: np.ndarray,
    eigenvalues: np.ndarray,
    residual_norms: np.ndarray,
    *,
    by_layer: bool = False,
) -> Table:
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
        owners = [_label(name.rpartition(".")[0]) for name in names]
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
) -> Table:
    """Split eigenvalues over samples or outputs, or relate layers to the Jacobian.

    Parameters
    ----------
    problem : Problem
        Module, loss and rows.
    by : {"sample", "output", "factor", "inequality", "alignment"}
        What to split over, or which relation to evaluate.
    vectors : ndarray of shape (n_parameters, k)
        Unit eigenvectors; used for samples and outputs.
    matrix : {"hessian", "gauss_newton"}
        The matrix that is split; relations are about the Gauss-Newton matrix.
    **settings : dict
        Settings of the operator.

    Returns
    -------
    dict of ndarray
        Columns of the table.
    """
    if by == "alignment":
        return alignment_table(layer_norms(problem.module, problem.inputs))
    settings |= {"sample_weight": problem.sample_weight}
    rows = (problem.module, problem.sample_loss(), problem.inputs, problem.targets)
    if by == "factor":
        return factor_table(layer_terms(*rows, **settings))
    if by == "inequality":
        return inequality_table(layer_terms(*rows, **settings))
    directions = torch.as_tensor(vectors, device=problem.inputs.device)
    split = attribution(*rows, vectors=directions, matrix=matrix, **settings)
    if by == "sample":
        names = {"sample": np.arange(len(split.samples))}
        return names | _parts(split, split.samples, split.samples_gauss_newton)
    classes = problem.classes
    named = classes is not None and len(classes) == len(split.outputs)
    outputs = np.asarray(classes) if named else np.arange(len(split.outputs))
    return {"output": outputs} | _parts(split, split.outputs, split.outputs_gauss_newton)


def _parts(split: Attribution, whole: np.ndarray, gauss_newton: np.ndarray) -> Table:
    total = split.eigenvalue
    return {
        "share": whole / total if total else np.full_like(whole, np.nan),
        "contribution": whole,
        "gauss_newton": gauss_newton,
        "residual": whole - gauss_newton,
    }


def factor_table(terms: list[LayerTerms]) -> Table:
    """Tabulate what makes the Gauss-Newton trace of each dense layer.

    Parameters
    ----------
    terms : list of LayerTerms

    Returns
    -------
    dict of ndarray
        One row a layer.
    """
    columns = (
        *("trace", "largest_eigenvalue"),
        *("feature_energy", "backward_energy", "loss_curvature", "alignment"),
        *("applies", "mean_jacobian", "mean_bound"),
    )
    table = {"layer": np.array([_label(term.name) for term in terms])}
    table |= {name: np.array([getattr(term, name) for term in terms]) for name in columns}
    table["largest_ratio"] = np.array([_largest(term.ratio) for term in terms])
    return table


def inequality_table(terms: list[LayerTerms]) -> Table:
    """Tabulate both sides of the inequality between curvature and Jacobian.

    Parameters
    ----------
    terms : list of LayerTerms

    Returns
    -------
    dict of ndarray
        One row for every layer and sample: ``jacobian`` is the left side, ``bound`` the right,
        ``ratio`` their quotient, and ``applies`` whether the layer was found to meet the
        assumptions.
    """
    n_rows = len(terms[0].jacobian)
    return {
        "layer": np.repeat([_label(term.name) for term in terms], n_rows),
        "sample": np.tile(np.arange(n_rows), len(terms)),
        "jacobian": np.concatenate([term.jacobian for term in terms]),
        "bound": np.concatenate([term.bound for term in terms]),
        "ratio": np.concatenate([term.ratio for term in terms]),
        "applies": np.repeat([term.applies for term in terms], n_rows),
    }


def alignment_table(norms: LayerNorms) -> Table:
    """Tabulate the norm of the product of the layers' Jacobians and the product of their norms.

    Parameters
    ----------
    norms : LayerNorms

    Returns
    -------
    dict of ndarray
        One row a sample, with a column of norms for every layer whose norm is not always one.

    Raises
    ------
    ValueError
        If the network is no chain of layers.
    """
    if norms.alignment is None:
        raise ValueError(
            'by="alignment" needs a network that applies one module after the other, and this one '
            "has branches or operations outside modules; the norms of its layers alone are in "
            "layer_norms_ of JacobianProfiler."
        )
    return {
        "sample": np.arange(len(norms.total)),
        "jacobian_norm": norms.total,
        "product_of_norms": norms.norms.prod(axis=0),
        "alignment": norms.alignment,
    } | {
        name: values
        for name, values in zip(_call_names(norms), norms.norms, strict=True)
        if not np.all(values == 1.0)
    }


def _call_names(norms: LayerNorms) -> list[str]:
    """Name every call of a layer, a repeated one by its number."""
    calls: list[str] = []
    for name, kind in zip(norms.names, norms.kinds, strict=True):
        label = f"norm of {name or kind}"
        count = 1 + sum(call == label or call.startswith(f"{label}, call ") for call in calls)
        calls.append(label if count == 1 else f"{label}, call {count}")
    return calls


def _label(layer: str) -> str:
    """Name a layer; the module itself has no name."""
    return layer or "module"


def _largest(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.max()) if len(finite) else float("nan")
