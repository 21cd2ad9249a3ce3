"""A lower bound on the Lipschitz constant that follows from the losses alone."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from sharpfit.jacobian.arguments import check_count, check_tensor, checked_loss
from sharpfit.jacobian.pairs import Floats, pair_blocks
from sharpfit.jacobian.row_pairs import RowPairs
from sharpfit.jacobian.sample_slopes import as_points, check_neighbours
from sharpfit.objective import BinaryCrossEntropy, CrossEntropy, SampleLoss, SquaredError


class UnboundedLossError(ValueError):
    """The value of the loss does not confine the network's outputs in a known way."""


@dataclass(frozen=True)
class SlopeBound:
    """Lower bound on a Lipschitz constant, and the pair of samples that forces it.

    Attributes
    ----------
    value : float
        No function with these losses has a smaller Lipschitz constant; 0 if nothing follows.
    pair : tuple of int or None
        Rows that force it.
    function : {"predictions", "probabilities"}
        Whose Lipschitz constant is bounded.
    """

    value: float
    pair: tuple[int, int] | None
    function: str

    def __float__(self) -> float:
        return self.value


def slope_bound(
    loss: SampleLoss | nn.Module,
    losses: Tensor,
    targets: Tensor,
    inputs: ArrayLike | RowPairs,
    *,
    n_outputs: int,
    n_neighbours: int | None = None,
    verbose: int = 0,
) -> SlopeBound:
    r"""Bound the Lipschitz constant from below by the losses of the samples.

    A loss :math:`e_i` confines :math:`g(x_i)` to a ball of radius :math:`\rho_i` around its
    target :math:`t_i`, hence on the segment between two samples the Jacobian of :math:`g`
    somewhere has norm at least
    :math:`(|t_i - t_j| - \rho_i - \rho_j)_+ / |x_i - x_j|`. The bound is the largest over
    pairs: as the losses fall, it rises to the largest slope of the targets.

    The radii: squared error :math:`|z - t|^2`: :math:`\sqrt{e}`, PyTorch's mean over `C`
    outputs: :math:`\sqrt{C e}`, both for `g` the predictions. Cross-entropy with one class
    as target: :math:`\sqrt 2\,(1 - \exp(-e))`; with a distribution `q` as target (label
    smoothing among them): :math:`\sqrt{e - H(q)}` by Pinsker's inequality; logistic loss of
    one logit: :math:`1 - \exp(-e)`; all for `g` the probabilities. Class weights are divided
    out first. Equal rows are left out.

    Parameters
    ----------
    loss : torch.nn.Module or sharpfit.objective.SampleLoss
        Criterion on the outputs.
    losses : Tensor of shape (n,)
        ``loss.values(outputs, targets)``.
    targets : Tensor of shape (n, ...)
        As the loss takes them.
    inputs : array-like of shape (n, ...) or RowPairs
        Samples; distances are Euclidean. Pairs that keep them serve measurement after measurement.
    n_outputs : int
        Number `C` of the network's outputs.
    n_neighbours : int, optional
        Look at each row's nearest neighbours only; all pairs by default.
    verbose : int, default=0
        Print one line per this many blocks of rows.

    Returns
    -------
    SlopeBound

    Raises
    ------
    UnboundedLossError
        If no such radius is known for the loss and its weights.
    ValueError
        If an argument does not fit.

    Examples
    --------
    >>> import torch
    >>> from sharpfit.objective import SquaredError
    >>> targets = torch.tensor([[0.0], [4.0]])
    >>> float(slope_bound(SquaredError(), torch.ones(2), targets, [[0.0], [1.0]], n_outputs=1))
    2.0
    """
    points = inputs.points if isinstance(inputs, RowPairs) else as_points(inputs, "inputs")
    check_count("n_outputs", n_outputs)
    check_tensor("losses", losses)
    check_tensor("targets", targets)
    loss = checked_loss(loss, targets.to(losses.device), n_outputs, losses)
    vectors, radii, function = _targets_and_radii(loss, losses, targets, n_outputs)
    if len(points) != len(radii) or len(points) != len(vectors):
        raise ValueError(
            f"losses has {len(radii)}, targets {len(vectors)} and inputs {len(points)} rows"
        )
    check_neighbours(n_neighbours, len(points))
    largest, pair = 0.0, None
    if isinstance(inputs, RowPairs) and n_neighbours is None:
        blocks = inputs.blocks()
    else:
        blocks = pair_blocks(points, n_neighbours, name="slope_bound", verbose=verbose)
    for block in blocks:
        gaps = np.sqrt(np.maximum(block.squared_differences(vectors), 0.0))
        gaps -= radii[block.rows]
        gaps -= radii[block.columns]
        gaps /= np.sqrt(block.squared_distances)
        row, column = np.unravel_index(gaps.argmax(), gaps.shape)
        if gaps[row, column] > largest:
            largest = float(gaps[row, column])
            columns = block.columns[0 if len(block.columns) == 1 else row]
            pair = (int(block.rows[row, 0]), int(columns[column]))
    return SlopeBound(largest, pair, function)


def _targets_and_radii(
    loss: SampleLoss, losses: Tensor, targets: Tensor, n_outputs: int
) -> tuple[Floats, Floats, str]:
    # Losses may round to slightly below zero.
    values = losses.detach().double().cpu().numpy().reshape(-1).clip(0.0)
    if isinstance(loss, SquaredError):
        scale = 1 if loss.reduction == "sum" else n_outputs
        vectors = targets.detach().double().cpu().numpy().reshape(len(targets), -1)
        return vectors, np.sqrt(scale * values), "predictions"
    if isinstance(loss, CrossEntropy):
        return *_cross_entropy(loss, values, targets, n_outputs), "probabilities"
    if isinstance(loss, BinaryCrossEntropy):
        return *_binary_cross_entropy(loss, values, targets, n_outputs), "probabilities"
    raise UnboundedLossError(
        f"no bound is known from the values of {loss}; it is for cross-entropy, squared error "
        "and the logistic loss of one logit"
    )


def _cross_entropy(
    loss: CrossEntropy, values: Floats, targets: Tensor, n_outputs: int
) -> tuple[Floats, Floats]:
    soft = targets.is_floating_point() or loss.label_smoothing > 0
    if soft and loss.weight is not None:
        raise UnboundedLossError(
            "class weights with soft targets or label smoothing leave no bound from the losses; "
            "drop the one or the other"
        )
    if targets.is_floating_point():
        distribution = targets.detach().double().cpu()
    else:
        if bool((targets == loss.ignore_index).any()):
            raise UnboundedLossError("targets contain ignore_index; leave these rows out")
        distribution = torch.nn.functional.one_hot(targets.cpu().long(), n_outputs).double()
    if not soft:
        if loss.weight is not None:
            values = values / loss.weight.detach().double().cpu().numpy()[targets.cpu().numpy()]
        return distribution.numpy(), np.sqrt(2.0) * -np.expm1(-values)
    smoothing = loss.label_smoothing
    distribution = (1 - smoothing) * distribution + smoothing / n_outputs
    entropy = torch.special.entr(distribution).sum(dim=1).numpy()
    return distribution.numpy(), np.sqrt(np.maximum(values - entropy, 0.0))


def _binary_cross_entropy(
    loss: BinaryCrossEntropy, values: Floats, targets: Tensor, n_outputs: int
) -> tuple[Floats, Floats]:
    if n_outputs != 1:
        raise UnboundedLossError(
            f"the bound for BinaryCrossEntropy is for one logit, the network has {n_outputs}"
        )
    labels = targets.detach().double().cpu().numpy().reshape(-1, 1)
    if not np.isin(labels, (0.0, 1.0)).all():
        raise UnboundedLossError("targets of BinaryCrossEntropy must be 0 or 1 for this bound")
    weight = np.ones(len(labels))
    if loss.positive_weight is not None:
        weight[labels[:, 0] == 1] *= float(loss.positive_weight)
    if loss.output_weight is not None:
        weight *= float(loss.output_weight)
    return labels, -np.expm1(-values / weight)
