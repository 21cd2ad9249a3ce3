"""The curvature of dense layers in factors, and the input Jacobian it bounds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sharpfit.curvature.data import Source
from sharpfit.curvature.gauss_newton import GaussNewtonOperator
from sharpfit.curvature.linearisation import Chunk
from sharpfit.curvature.network import differentiable_kernels
from sharpfit.curvature.operator import NetworkOperator
from sharpfit.linalg import top_eigenpairs
from sharpfit.objective import SampleLoss

# A chunk's Jacobians hold its activations once for every unit of a layer.
_SHRINK = 8
_SAME = 1e-3  # relative distance below which two Jacobians count as equal


@dataclass(frozen=True)
class LayerTerms:
    """Gauss-Newton block of one dense layer, its factors, and the inequality it obeys.

    Attributes
    ----------
    name : str
        Dotted name of the layer.
    trace : float
        Trace of the layer's block of the Gauss-Newton matrix.
    largest_eigenvalue : float
        Largest eigenvalue of that block.
    feature_energy : float
        Weighted mean of ``|h_i|^2 + beta``, with `beta` 1 for a trainable bias.
    backward_energy : float
        Weighted mean of ``|Q_i|_F^2``, with ``Q_i`` the derivative of the outputs in the
        layer's outputs.
    loss_curvature : float
        Weighted mean of ``tr(A_i) / C``.
    alignment : float
        `trace` over the product of the three factors and the total row weight.
    applies : bool
        Whether the inequality was checked to apply: the whole input reaches the outputs
        through this layer alone.
    jacobian : ndarray of shape (n,)
        Left sides ``|A_i^(1/2) D_i|_2^2``, with ``D_i`` the derivative of the outputs in the
        input.
    bound : ndarray of shape (n,)
        Right sides ``|W H_i|_2^2 lambda_max / (a_i (|h_i|^2 + beta))``, with ``H_i`` the
        derivative of the layer's input in the network's; NaN where they do not exist.
    mean_jacobian, mean_bound : float
        Both sides in the mean, ``sum_i a_i (|h_i|^2 + beta) |A_i^(1/2) D_i|_F^2`` against
        ``max_i |W H_i|_2^2 tr``.
    """

    name: str
    trace: float
    largest_eigenvalue: float
    feature_energy: float
    backward_energy: float
    loss_curvature: float
    alignment: float
    applies: bool
    jacobian: np.ndarray
    bound: np.ndarray
    mean_jacobian: float
    mean_bound: float

    @property
    def ratio(self) -> np.ndarray:
        """Left over right side of every row, at most one where the inequality applies.

        NaN where both sides vanish.
        """
        undefined = np.full_like(self.bound, np.nan)
        return np.divide(self.jacobian, self.bound, out=undefined, where=self.bound > 0)


def layer_terms(
    module: nn.Module,
    criterion: nn.Module | SampleLoss,
    inputs: Source,
    targets: Tensor | None = None,
    **settings: Any,
) -> list[LayerTerms]:
    r"""Split the Gauss-Newton blocks of dense layers into factors and bound the Jacobian.

    The derivative of the outputs of row `i` along ``(V, c)`` in a dense layer is
    :math:`Q_i (V h_i + c)`. Hence the trace of its block is
    :math:`\sum_i a_i (|h_i|^2 + \beta)\, |A_i^{1/2} Q_i|_F^2`, and since one row's term is a
    part of the block :math:`G_l`, and :math:`D_i = Q_i W H_i`,

    .. math:: |A_i^{1/2} D_i|_2^2 \le |W H_i|_2^2\,
              \frac{\lambda_{\max}(G_l)}{a_i\,(|h_i|^2 + \beta)}.

    It holds if the input reaches the outputs only through the layer, which is checked by
    comparing :math:`Q_i W H_i` with the Jacobian, and the layer is used once with all of its
    weight trainable. It bounds :math:`A^{1/2} D`, not `D`: where the loss curvature vanishes
    the Jacobian of the logits is free. The inequality is ours, after Ma and Ying (2021).

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
    **settings : dict
        Settings of the operator, as for `hessian_spectrum`.

    Returns
    -------
    list of LayerTerms
        One for every dense layer with a selected weight that is used once, on rows.

    Raises
    ------
    ValueError
        If no such layer exists.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from sharpfit.curvature import layer_terms
    >>> network, inputs = nn.Linear(1, 1).double(), torch.tensor([[3.0]]).double()
    >>> (terms,) = layer_terms(network, nn.MSELoss(), inputs, torch.ones(1, 1))
    >>> round(terms.largest_eigenvalue, 6), terms.ratio.round(6)  # 2 (x^2 + 1); tight
    (20.0, array([1.]))
    """
    operator = GaussNewtonOperator(module, criterion, inputs, targets, **settings)
    if operator.preconditioned or operator.process_group is not None:
        raise ValueError("layer terms are not defined with a preconditioner or sharded rows")
    selected = {id(parameter) for parameter in operator.network.parameters}
    layers = {
        name: layer
        for name, layer in operator.network.module.named_modules()
        if type(layer) is nn.Linear and id(layer.weight) in selected
    }
    rows: dict[str, list[_RowTerms]] = {name: [] for name in layers}
    for chunk in operator.chunks(max(operator.batch_size // _SHRINK, 1)):
        for name, terms in _chunk_terms(operator, layers, chunk):
            rows[name].append(terms)
    rows = {name: found for name, found in rows.items() if found}
    if not rows:
        raise ValueError(
            f"module {type(module).__name__} has no dense layer with a selected weight that is "
            "used once, on rows"
        )
    settings = {**settings, "weight_decay": 0.0}
    summaries = []
    for name, found in rows.items():
        tensors = [f"{name}.{kind}".lstrip(".") for kind in ("weight", "bias")]
        settings["parameters"] = [key for key in tensors if key in operator.selection.names]
        block = GaussNewtonOperator(module, criterion, inputs, targets, **settings)
        top = top_eigenpairs(block, 1, tol=1e-6, random_state=0)
        joined = _RowTerms(*(torch.cat(parts) for parts in zip(*found, strict=True)))
        summaries.append(_summary(name, joined, float(top.values[0])))
    return summaries


class _RowTerms(NamedTuple):
    """Quantities of every row, each of shape (n,), float64."""

    weight: Tensor  # a_i
    features: Tensor  # |h_i|^2 + beta
    backward: Tensor  # |Q_i|_F^2
    curvature: Tensor  # tr(A_i) / C
    block: Tensor  # |A_i^(1/2) Q_i|_F^2
    jacobian: Tensor  # |A_i^(1/2) D_i|_2^2
    jacobian_energy: Tensor  # |A_i^(1/2) D_i|_F^2
    upstream: Tensor  # |W H_i|_2^2
    defect: Tensor  # |D_i - Q_i W H_i|_F / |D_i|_F


def _chunk_terms(
    operator: NetworkOperator, layers: dict[str, nn.Linear], chunk: Chunk
) -> Iterator[tuple[str, _RowTerms]]:
    calls: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in layers}

    def record(name: str) -> Callable[..., Tensor]:
        def hook(_: nn.Module, entering: tuple[Tensor, ...], leaving: Tensor) -> Tensor:
            calls[name].append((entering[0], leaving))
            return leaving.clone()  # what an activation may overwrite

        return hook

    hooks = [layer.register_forward_hook(record(name)) for name, layer in layers.items()]
    inputs = chunk.inputs.detach()
    if inputs.is_floating_point():
        inputs.requires_grad_()
    try:
        with torch.enable_grad(), differentiable_kernels():
            outputs = operator.network.module(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    values = outputs.detach()
    root = operator.loss.curvature_root(values, chunk.targets).double()
    trace = operator.loss.curvature(values, chunk.targets).double().diagonal(dim1=1, dim2=2).sum(1)
    selected = {id(parameter) for parameter in operator.network.parameters}
    jacobian = _jacobian(outputs, inputs)
    for name, layer in layers.items():
        if len(calls[name]) != 1 or calls[name][0][0].ndim != 2:
            continue
        features, leaving = calls[name][0]
        beta = float(layer.bias is not None and id(layer.bias) in selected)
        backward = _jacobian(outputs, leaving)
        upstream = _jacobian(leaving, inputs)
        weighted = root.mT @ jacobian
        defect = (jacobian - backward @ upstream).norm(dim=(1, 2)) / jacobian.norm(dim=(1, 2))
        yield (
            name,
            _RowTerms(
                chunk.weights.squeeze(1).double(),
                features.detach().double().square().sum(dim=1) + beta,
                backward.square().sum(dim=(1, 2)),
                trace / values.shape[1],
                (root.mT @ backward).square().sum(dim=(1, 2)),
                _largest_square(weighted),
                weighted.square().sum(dim=(1, 2)),
                _largest_square(upstream),
                defect,
            ),
        )


def _jacobian(outputs: Tensor, of: Tensor) -> Tensor:
    """Return the derivative of every row of `outputs` in its row of `of`, (n, C, d), float64."""
    shape = (outputs.shape[0], outputs.shape[1], of[0].numel())
    if not of.requires_grad:
        return torch.full(shape, torch.nan, dtype=torch.float64, device=outputs.device)
    rows = [
        torch.autograd.grad(column.sum(), of, retain_graph=True, materialize_grads=True,
                            allow_unused=True)[0].flatten(1)
        for column in outputs.unbind(1)
    ]  # fmt: skip
    return torch.stack(rows, dim=1).double()


def _largest_square(matrices: Tensor) -> Tensor:
    """Return the squared spectral norms of matrices, through the smaller Gram matrix."""
    if matrices.shape[1] > matrices.shape[2]:
        matrices = matrices.mT
    if bool(matrices.isnan().any()):
        return matrices.new_full((matrices.shape[0],), torch.nan)
    return torch.linalg.eigvalsh(matrices @ matrices.mT)[:, -1].clamp_min(0.0)


def _summary(name: str, rows: _RowTerms, largest: float) -> LayerTerms:
    total = rows.weight.sum()

    def mean(values: Tensor) -> float:
        return float((rows.weight * values).sum() / total)

    trace = float((rows.weight * rows.features * rows.block).sum())
    factors = mean(rows.features), mean(rows.backward), mean(rows.curvature)
    product = float(np.prod(factors)) * float(total)
    bound = rows.upstream * largest / (rows.weight * rows.features)
    weighted = rows.weight * rows.features * rows.jacobian_energy
    return LayerTerms(
        name=name,
        trace=trace,
        largest_eigenvalue=largest,
        feature_energy=factors[0],
        backward_energy=factors[1],
        loss_curvature=factors[2],
        alignment=trace / product if product else float("nan"),
        # A zero Jacobian is bounded by anything: its relative defect, NaN, is no objection.
        applies=bool((rows.jacobian.isfinite() & ~(rows.defect > _SAME)).all()),
        jacobian=rows.jacobian.cpu().numpy(),
        bound=bound.cpu().numpy(),
        mean_jacobian=float(weighted.sum()),
        mean_bound=float(rows.upstream.max()) * trace,
    )
