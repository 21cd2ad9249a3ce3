"""Where an eigenvalue sits: its exact split over tensors, layers, samples and outputs."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sharpfit.curvature.data import Source
from sharpfit.curvature.frame import as_frame
from sharpfit.curvature.hessian import HessianOperator
from sharpfit.curvature.linearisation import Chunk, Parts
from sharpfit.curvature.matrices import MATRICES, Matrix
from sharpfit.curvature.network import Network, differentiable_kernels
from sharpfit.curvature.operator import NetworkOperator
from sharpfit.objective import SampleLoss


@dataclass(frozen=True)
class Attribution:
    """Exact split of the curvature ``v^T M v`` along a unit vector.

    Tensors, layers, samples and outputs each sum, together with `weight_decay`, to
    `eigenvalue` up to rounding.

    Attributes
    ----------
    matrix : {"hessian", "gauss_newton"}
        The matrix.
    eigenvalue : float
        ``v^T M v``, weight decay included; the mean over the vectors when there are several.
    gauss_newton : float
        ``v^T G v``.
    residual : float
        ``v^T (H - G) v``, of either sign; zero for the Gauss-Newton matrix.
    weight_decay : float
        What the weight decay adds.
    tensor_names : tuple of str
        Names of the selected parameters.
    tensors : ndarray of shape (number of tensors,)
        Shares ``v_l . (M v)_l`` of the data loss.
    tensor_errors : ndarray of shape (number of tensors,)
        Bounds ``|v_l| |r_l|``, with the residual ``r = M v - t v``, on the distance of the
        shares from ``t |v_l|^2``, their value at an exact eigenvector.
    samples : ndarray of shape (n,)
        Shares of the rows.
    samples_gauss_newton : ndarray of shape (n,)
        Shares of the rows in `gauss_newton`; not negative.
    outputs : ndarray of shape (C,)
        Shares of the outputs: `outputs_gauss_newton`, and for the Hessian the residuals
        ``sum_i a_i l'(z_i)_c v^T (d^2 f_c(x_i)) v`` besides.
    outputs_gauss_newton : ndarray of shape (C,)
        Shares ``sum_i a_i (B_i^T J_i v)_c^2`` of the outputs in `gauss_newton`, with the root
        ``A_i = B_i B_i^T``; for cross-entropy ``p_c ((J v)_c - p . J v)^2``. Not negative.
    """

    matrix: str
    eigenvalue: float
    gauss_newton: float
    residual: float
    weight_decay: float
    tensor_names: tuple[str, ...]
    tensors: np.ndarray
    tensor_errors: np.ndarray
    samples: np.ndarray
    samples_gauss_newton: np.ndarray
    outputs: np.ndarray
    outputs_gauss_newton: np.ndarray

    @property
    def layers(self) -> dict[str, float]:
        """Shares of the layers: the sums over the tensors that each of them holds."""
        shares: dict[str, float] = {}
        for name, share in zip(self.tensor_names, self.tensors, strict=True):
            layer = name.rpartition(".")[0]
            shares[layer] = shares.get(layer, 0.0) + float(share)
        return shares

    def frame(self) -> Any:
        """Shares of the tensors as a table.

        Returns
        -------
        pandas.DataFrame or dict of ndarray
            Columns ``tensor``, ``layer``, ``share``, ``fraction`` of the data loss's
            curvature, and ``error``; a dictionary of columns where pandas is not installed.
        """
        total = self.tensors.sum()
        return as_frame(
            {
                "tensor": np.array(self.tensor_names),
                "layer": np.array([name.rpartition(".")[0] for name in self.tensor_names]),
                "share": self.tensors,
                "fraction": self.tensors / total if total else np.full_like(self.tensors, np.nan),
                "error": self.tensor_errors,
            }
        )


def attribution(
    module: nn.Module,
    criterion: nn.Module | SampleLoss,
    inputs: Source,
    targets: Tensor | None = None,
    *,
    vectors: Tensor,
    matrix: Matrix = "hessian",
    **settings: Any,
) -> Attribution:
    r"""Split the curvature along eigenvectors exactly over tensors, samples and outputs.

    With ``u = J v`` the Gauss-Newton part is :math:`\sum_i a_i\, u_i^\top A_i u_i`, a sum of
    non-negative shares of the samples and, through a root of :math:`A_i`, of the outputs.
    The residual :math:`\sum_i \sum_c a_i\, \partial_c \ell_i\, v^\top \nabla^2 f_c(x_i)\, v` is
    a sum over both as it stands, of parts of either sign.

    Parameters
    ----------
    module : torch.nn.Module
        Returns logits or predictions of shape (n, C).
    criterion : torch.nn.Module or SampleLoss
        Loss of the outputs.
    inputs : Tensor of shape (n, ...), Dataset or DataLoader
        The rows.
    targets : Tensor of shape (n, ...), optional
        Targets of a tensor of inputs.
    vectors : Tensor of shape (size,) or (size, k)
        An eigenvector; of a repeated eigenvalue all of its eigenvectors, over which the shares
        are averaged because no single one is distinguished.
    matrix : {"hessian", "gauss_newton"}, default="hessian"
        The matrix.
    **settings : dict
        Settings of the operator, as for `hessian_spectrum`. A preconditioner and sharded rows
        are refused.

    Returns
    -------
    Attribution

    Raises
    ------
    ValueError
        If `vectors` has the wrong shape or no unit columns, or the loss is not convex in the
        outputs.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from sharpfit.curvature import attribution
    >>> network, inputs = nn.Linear(1, 1), torch.tensor([[3.0]])
    >>> v = torch.tensor([3.0, 1.0]) / 10**0.5
    >>> split = attribution(network, nn.MSELoss(), inputs, torch.ones(1, 1), vectors=v)
    >>> split.tensors.round(3), round(split.eigenvalue, 3)
    (array([18.,  2.]), 20.0)
    """
    if matrix not in MATRICES:
        raise ValueError(f"matrix must be one of {tuple(MATRICES)}, got {matrix!r}")
    operator = MATRICES[matrix](module, criterion, inputs, targets, **settings)
    columns = _unit_columns(vectors, operator)
    parts = [_one_vector(operator, column) for column in columns]
    means: dict[str, Any] = {
        name: np.mean([part[name] for part in parts], axis=0) for name in parts[0]
    }
    gauss_newton = float(means["outputs_gauss_newton"].sum())
    data = float(means["tensors"].sum())
    return Attribution(
        matrix=matrix,
        eigenvalue=data + operator.weight_decay,
        gauss_newton=gauss_newton,
        residual=data - gauss_newton if matrix == "hessian" else 0.0,
        weight_decay=operator.weight_decay,
        tensor_names=operator.selection.names,
        **means,
    )


def _unit_columns(vectors: Tensor, operator: NetworkOperator) -> list[Tensor]:
    if operator.preconditioned or operator.process_group is not None:
        reason = "a preconditioner" if operator.preconditioned else "sharded rows"
        raise ValueError(f"attribution is not defined with {reason}; leave it out")
    columns = vectors.unsqueeze(1) if vectors.ndim == 1 else vectors
    if columns.ndim != 2 or columns.shape[0] != operator.size or columns.shape[1] == 0:
        raise ValueError(
            f"vectors has shape {tuple(vectors.shape)}, expected ({operator.size},) or "
            f"({operator.size}, k)"
        )
    norms = torch.linalg.vector_norm(columns.double(), dim=0)
    if not bool(((norms - 1).abs() < 1e-3).all()):
        raise ValueError(f"vectors has columns of norm {norms.tolist()}, expected unit vectors")
    return list(columns.to(operator.device, operator.dtype).unbind(1))


def _one_vector(operator: NetworkOperator, vector: Tensor) -> dict[str, np.ndarray]:
    product = operator.data_product(vector).double()
    vector_parts = operator.selection.split(vector.double())
    shares = [
        float((v * m).sum())
        for v, m in zip(vector_parts, operator.selection.split(product), strict=True)
    ]
    residuals = operator.selection.split(product - sum(shares) * vector.double())
    errors = [float(v.norm() * r.norm()) for v, r in zip(vector_parts, residuals, strict=True)]
    direction = operator.selection.split(vector)
    rows = [_row_parts(operator, chunk, direction) for chunk in operator.chunks()]
    first_order, residual = (torch.cat(parts).cpu().numpy() for parts in zip(*rows, strict=True))
    whole = first_order + residual
    return {
        "tensors": np.array(shares),
        "tensor_errors": np.array(errors),
        "samples": whole.sum(axis=1),
        "samples_gauss_newton": first_order.sum(axis=1),
        "outputs": whole.sum(axis=0),
        "outputs_gauss_newton": first_order.sum(axis=0),
    }


def _row_parts(operator: NetworkOperator, chunk: Chunk, direction: Parts) -> tuple[Tensor, Tensor]:
    """Return Gauss-Newton and residual parts of every row and output, each (n, C), float64."""
    values, slopes = _output_slopes(operator.network, chunk, direction)
    root = operator.loss.curvature_root(values, chunk.targets)
    squares = torch.einsum("nij,ni->nj", root, slopes).double().square()
    residual = torch.zeros_like(squares)
    if isinstance(operator, HessianOperator):
        pull = operator.loss.gradient(values, chunk.targets)
        residual = (pull * _output_curvatures(operator.network, chunk, direction)).double()
    weights = chunk.weights.double()
    return squares * weights, residual * weights


def _output_slopes(network: Network, chunk: Chunk, direction: Parts) -> tuple[Tensor, Tensor]:
    """Return outputs and their derivatives along a direction, both of shape (n, C)."""
    with torch.enable_grad(), differentiable_kernels():
        outputs = network.module(chunk.inputs)
        if not outputs.requires_grad:
            return outputs, torch.zeros_like(outputs)
        # Backwards through u -> J^T u, which is linear in u.
        u = torch.zeros_like(outputs, requires_grad=True)
        pulled = torch.autograd.grad(
            outputs, network.parameters, u, create_graph=True, materialize_grads=True
        )
        slopes = _gradient(_inner(pulled, direction), (u,))[0]
    return outputs.detach(), slopes.detach()


def _output_curvatures(network: Network, chunk: Chunk, direction: Parts) -> Tensor:
    """Return second derivatives of the outputs along a direction, of shape (n, C).

    The curvature ``v^T (d^2 sum_ic w_ic f_c(x_i)) v`` is linear in `w`, so these are its
    derivatives in `w`. Unlike a third derivative in the parameters this needs nothing that
    PyTorch does not get right: third derivatives of its layer normalisation are wrong.
    """
    with torch.enable_grad(), differentiable_kernels():
        outputs = network.module(chunk.inputs)
        w = torch.ones_like(outputs, requires_grad=True)
        gradient = _gradient((w * outputs).sum(), network.parameters)
        product = _gradient(_inner(gradient, direction), network.parameters)
        curvatures = _gradient(_inner(product, direction), (w,))[0]
    return curvatures.detach()


def _inner(parts: Parts, direction: Parts) -> Tensor:
    return torch.stack([(part * v).sum() for part, v in zip(parts, direction, strict=True)]).sum()


def _gradient(value: Tensor, of: Parts) -> Parts:
    if not value.requires_grad:
        return tuple(torch.zeros_like(tensor) for tensor in of)
    return torch.autograd.grad(value, of, create_graph=True, materialize_grads=True)
