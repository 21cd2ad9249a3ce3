"""Quantities of single rows that tie the Jacobian to sharpness, and the floors they imply."""

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sharpfit.jacobian import SlopeBound
from sharpfit.monitoring.row_derivatives import FirstLayer, RowDerivatives, row_derivatives
from sharpfit.objective import BinaryCrossEntropy, CrossEntropy, SampleLoss

_SAME = 1e-3  # relative distance below which two derivatives count as equal
_POWER_STEPS = 8
_CANDIDATES = 8  # rows whose spectral norm is taken first, to rule out the others


@dataclass(frozen=True)
class LayerFactors:
    """The Gauss-Newton trace of a dense layer or convolution in factors, as means over rows.

    A convolution is a dense layer at `T` places. Its energies are sums over them, but their
    derivatives in the weight add up before they are squared: its `alignment` also says how far
    places agree, and can exceed one.

    Attributes
    ----------
    feature_energy : float
        Mean of ``|h_i|^2``, the square of what enters the layer, plus one for a trainable bias; of
        a convolution, of the sum over places.
    backward_energy : float
        Mean of ``|Q_i|_F^2``, the derivative of the outputs in what leaves the layer.
    alignment : float
        The trace, of a dense layer the mean of ``(|h_i|^2 + 1) |A_i^(1/2) Q_i|_F^2``, over the
        product of both energies and the mean loss curvature.
    """

    feature_energy: float
    backward_energy: float
    alignment: float


@dataclass(frozen=True)
class RowTerms:
    """What a measurement keeps of the derivatives at its rows.

    Attributes
    ----------
    jacobian : Tensor of shape (n,), float64
        Spectral norms of the Jacobian of logits or predictions.
    response_jacobian_max : float
        Largest spectral norm of the Jacobian of probabilities or predictions.
    loss_curvature : float
        Mean of ``tr(A_i) / C``.
    layers : dict of str to LayerFactors
        Factors of the dense layers and convolutions that are used once.
    jacobian_floor : float
        Lower bound on the largest eigenvalue of the Gauss-Newton matrix that the Jacobian
        implies; NaN where none is known.
    jacobian_floor_error : float
        Standard error of an estimate from some of the rows; 0 for a bound from all of them.
    floor_weights : Tensor of shape (n,), float64, or None
        What turns the squared Jacobian norm of probabilities or predictions at a row into
        such a bound.
    """

    jacobian: Tensor
    response_jacobian_max: float
    loss_curvature: float
    layers: dict[str, LayerFactors]
    jacobian_floor: float
    jacobian_floor_error: float
    floor_weights: Tensor | None

    def loss_floor(self, slope: SlopeBound, distance: float, jacobian_rate: float) -> float:
        """Return the floor on sharpness if the loss's slope bound held at a row of its pair.

        Parameters
        ----------
        slope : SlopeBound
            Slope that the losses imply somewhere between two rows.
        distance : float
            Distance of the two.
        jacobian_rate : float
            Lipschitz constant of the Jacobian on the segment between them. The Jacobian at
            one of its ends is then at least the slope less a fourth of rate times distance.

        Returns
        -------
        float
        """
        if self.floor_weights is None or slope.pair is None:
            return math.nan if self.floor_weights is None else 0.0
        implied = max(slope.value - jacobian_rate * distance / 4, 0.0)
        return float(self.floor_weights[list(slope.pair)].min()) * implied**2


def row_terms(
    module: nn.Module,
    loss: SampleLoss,
    inputs: Tensor,
    targets: Tensor,
    weights: Tensor,
    *,
    n_rows: int,
    total_weight: float,
    moved: Collection[str],
    batch_size: int,
) -> RowTerms:
    r"""Differentiate at some rows, and bound the sharpness from below.

    Let a layer :math:`x \mapsto W x + b` take the input, be used once, and be trained. Its block
    of the Gauss-Newton matrix holds, for a dense layer, the term
    :math:`a_i (|x_i|^2 + \beta)\, |A_i^{1/2} Q_i|_2^2` of every row (:math:`\beta = 1` if `b` is
    trained), and along `W` itself, also for a convolution, the sum of
    :math:`a_i |A_i^{1/2} Q_i (W x_i)|^2` over all rows. Where the input reaches the outputs
    through this layer alone, the Jacobian is :math:`D_i = Q_i W`, so that

    .. math:: \lambda_{\max}(G) \ge a_i (|x_i|^2 + \beta) |A_i^{1/2} D_i|_2^2 / |W|_2^2, \qquad
              \lambda_{\max}(G) \ge \sum_i a_i |A_i^{1/2} D_i x_i|^2 / |W|_F^2,

    and, along :math:`W u\, w^\top` with any direction `u` of the input and unit direction `w` of
    the features :math:`h_i = (x_i, \beta)`,

    .. math:: \lambda_{\max}(G) \ge \sum_i a_i (w^\top h_i)^2\, |A_i^{1/2} D_i u|^2 / |W u|^2,

    which is large where many rows have a common direction: `w` is that of their mean, and `u` is
    found by power iteration. The largest of all is reported. The sums are over all rows; where
    only some are measured, these stand for the others.

    The identities :math:`D_i = Q_i W` and :math:`D_i x_i = Q_i (W x_i)` are checked at the rows.
    These are after Ma and Ying (2021). For softmax and logistic probabilities `p`,
    :math:`|dp/dx|^2 = |A D|^2 \le |A|\, |A^{1/2} D|^2`, with :math:`|A| \le 1/2` and
    :math:`1/4`: their Jacobian gives a floor too.

    Parameters
    ----------
    module : torch.nn.Module
        In evaluation mode; returns logits or predictions.
    loss : SampleLoss
        Convex in the outputs.
    inputs : Tensor of shape (n, ...)
        Rows.
    targets : Tensor of shape (n, ...)
        Their targets.
    weights : Tensor of shape (n,), float64
        Their weights in the loss over all rows.
    n_rows : int
        Number of all rows.
    total_weight : float
        Their weights together.
    moved : collection of str
        Names of the parameters that are trained.
    batch_size : int
        Rows of a chunk.

    Returns
    -------
    RowTerms
    """
    parts = [
        _chunk_terms(row_derivatives(module, x), loss, y, a, moved)
        for x, y, a in zip(
            inputs.split(batch_size), targets.split(batch_size), weights.split(batch_size),
            strict=True,
        )
    ]  # fmt: skip
    return _joined(parts, weights, n_rows, total_weight)


def _chunk_terms(
    found: RowDerivatives,
    loss: SampleLoss,
    targets: Tensor,
    weights: Tensor,
    moved: Collection[str],
) -> dict[str, Tensor]:
    """Return quantities of every row of a chunk, or of the chunk as a whole, by name."""
    jacobian = found.jacobian
    terms = {"jacobian": _spectral_squares(jacobian).sqrt()}
    response = _response_jacobian(loss, found.outputs, jacobian)
    ones = torch.ones_like(weights)
    terms["response"] = (
        terms["jacobian"].max() if response is None else _largest_square(response, ones).sqrt()
    )
    curvature = loss.curvature(found.outputs, targets).double()
    terms["curvature"] = curvature.diagonal(dim1=1, dim2=2).mean(dim=1)
    root = _curvature_root(loss, found.outputs, targets)
    if root is None:
        return terms
    for name, dense in found.layers.items():
        if _is_moved(name, moved):
            energy = _squares(dense.features) + _trained_bias(name, moved)
            terms[f"features {name}"] = energy
            terms[f"backward {name}"] = _squares(dense.backward)
            terms[f"trace {name}"] = energy * _squares(root.mT @ dense.backward)
    for name, layer in found.convolutions.items():
        if _is_moved(name, moved):
            bias = _trained_bias(name, moved)
            terms[f"features {name}"] = _squares(layer.patches) + bias * layer.patches.shape[2]
            terms[f"backward {name}"] = _squares(layer.backward)
            terms[f"trace {name}"] = layer.squared_derivatives(root, bias)
    if found.first is not None and _is_moved(found.first.name, moved):
        terms |= _floor_terms(found, found.first, loss, targets, root, weights, moved)
    return terms


def _floor_terms(
    found: RowDerivatives,
    first: FirstLayer,
    loss: SampleLoss,
    targets: Tensor,
    root: Tensor,
    weights: Tensor,
    moved: Collection[str],
) -> dict[str, Tensor]:
    """Return the floors of a chunk, where the input is seen to pass through the first layer."""
    inputs = found.layers[first.name].features if first.name in found.layers else None
    along_input = _along(found.jacobian, found.inputs)
    if _differ(along_input, first.along):
        return {}
    weight = first.layer.weight.detach().double()
    along = torch.einsum("ncr,nc->nr", root, along_input).double().square().sum(dim=1)
    terms = {"along": weights * along / weight.square().sum()}
    if inputs is None or _differ(
        found.jacobian, found.layers[first.name].backward @ first.layer.weight.detach()
    ):
        return terms
    trained_bias = _trained_bias(first.name, moved)
    energy = inputs.double().square().sum(dim=1) + trained_bias
    scale = weights * energy / _spectral_squares(weight.unsqueeze(0))
    weighted = root.mT @ found.jacobian
    terms["dense"] = _largest_square(weighted, scale)
    terms["scaled"] = weighted * weights.sqrt().to(weighted.dtype).view(-1, 1, 1)
    terms["entering"] = nn.functional.pad(inputs, (0, 1), value=trained_bias)
    terms["weight"] = first.layer.weight.detach()
    convexity = _response_convexity(loss, targets, root)
    if convexity is not None:
        terms["floor_weights"] = scale * convexity
    return terms


def _joined(
    parts: list[dict[str, Tensor]], weights: Tensor, n_rows: int, total_weight: float
) -> RowTerms:
    def rows(name: str) -> Tensor:
        return torch.cat([part[name] for part in parts])

    def mean(values: Tensor) -> float:
        return float((weights * values).sum() / weights.sum())

    shared = set.intersection(*(set(part) for part in parts))
    curvature = mean(rows("curvature"))
    layers = {}
    for name in [key.removeprefix("features ") for key in parts[0] if key.startswith("features ")]:
        features, backward, trace = (
            rows(f"{kind} {name}") for kind in ("features", "backward", "trace")
        )
        product = mean(features) * mean(backward) * curvature
        layers[name] = LayerFactors(
            feature_energy=mean(features),
            backward_energy=mean(backward),
            alignment=mean(trace) / product if product else math.nan,
        )
    floors = []
    if "along" in shared:
        sums = [rows("along")]
        if "dense" in shared:
            floors.append((max(float(part["dense"]) for part in parts), 0.0))
            sums.append(
                _common_floor(rows("scaled"), rows("entering"), weights, parts[0]["weight"])
            )
        scale = total_weight / float(weights.sum())
        floors += [_over_all_rows(values, scale, n_rows) for values in sums]
    floor, error = max(floors, default=(math.nan, 0.0))
    return RowTerms(
        jacobian=rows("jacobian"),
        response_jacobian_max=max(float(part["response"]) for part in parts),
        loss_curvature=curvature,
        layers=layers,
        jacobian_floor=floor,
        jacobian_floor_error=error,
        floor_weights=rows("floor_weights") if "floor_weights" in shared else None,
    )


def _common_floor(jacobian: Tensor, entering: Tensor, weights: Tensor, weight: Tensor) -> Tensor:
    """Return the rows' terms along ``W u w^T``, from ``a_i^(1/2) A_i^(1/2) D_i``."""
    mean = nn.functional.normalize(weights.to(entering.dtype) @ entering, dim=0)
    stacked = (jacobian * (entering @ mean).view(-1, 1, 1)).flatten(0, 1)
    direction = stacked[stacked.square().sum(dim=1).argmax()]
    for _ in range(_POWER_STEPS):
        direction = stacked.T @ (stacked @ nn.functional.normalize(direction, dim=0))
    moved = (weight @ direction).double().square().sum()
    squares = (stacked @ direction).double().square().view(len(jacobian), -1).sum(dim=1)
    return squares / moved if bool(moved > 0) else torch.zeros_like(squares)


def _over_all_rows(values: Tensor, scale: float, n_rows: int) -> tuple[float, float]:
    """Return the sum over all rows, and its standard error if some are not among these."""
    count = len(values)
    if count == n_rows:
        return float(values.sum()), 0.0
    unseen = 1 - count / n_rows
    spread = float(values.std()) if count > 1 else math.inf
    return scale * float(values.sum()), scale * spread * math.sqrt(unseen * count)


def _curvature_root(loss: SampleLoss, outputs: Tensor, targets: Tensor) -> Tensor | None:
    try:
        return loss.curvature_root(outputs, targets)
    except ValueError:
        return None  # not convex in the outputs


def _response_jacobian(loss: SampleLoss, outputs: Tensor, jacobian: Tensor) -> Tensor | None:
    """Return the Jacobian of the probabilities; None where the outputs are predictions."""
    if isinstance(loss, CrossEntropy):
        probabilities = outputs.softmax(dim=1).unsqueeze(2)
        return probabilities * (jacobian - (probabilities * jacobian).sum(dim=1, keepdim=True))
    if isinstance(loss, BinaryCrossEntropy):
        probabilities = outputs.sigmoid().unsqueeze(2)
        return probabilities * (1 - probabilities) * jacobian
    return None


def _response_convexity(loss: SampleLoss, targets: Tensor, root: Tensor) -> Tensor | float | None:
    """Return `c` with ``|A^(1/2) D|^2 >= c |Dg|^2``, `g` the probabilities or predictions."""
    if isinstance(loss, CrossEntropy):
        if loss.weight is None:
            return 2.0
        return None if targets.is_floating_point() else 2 * loss.weight.double()[targets]
    if isinstance(loss, BinaryCrossEntropy):
        plain = loss.positive_weight is None and loss.output_weight is None
        return 4.0 if plain and root.shape[1] == 1 else None
    return torch.linalg.matrix_norm(root.double(), -2).square()


def _is_moved(name: str, moved: Collection[str]) -> bool:
    return f"{name}.weight".lstrip(".") in moved


def _trained_bias(name: str, moved: Collection[str]) -> float:
    return float(f"{name}.bias".lstrip(".") in moved)


def _squares(rows: Tensor) -> Tensor:
    """Return the sum of squares of every row, in float64."""
    return torch.linalg.vector_norm(rows.flatten(1), dim=1).double().square()


def _along(jacobian: Tensor, inputs: Tensor) -> Tensor:
    return torch.einsum("ncd,nd->nc", jacobian, inputs.flatten(1))


def _differ(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).norm() > _SAME * one.norm())


def _spectral_squares(matrices: Tensor) -> Tensor:
    """Return squared spectral norms, through the smaller Gram matrix, in float64."""
    wide = matrices.double()
    if wide.shape[1] > wide.shape[2]:
        wide = wide.mT
    gram = wide @ wide.mT
    if gram.shape[1] == 1:
        return gram[:, 0, 0]
    return torch.linalg.eigvalsh(gram)[:, -1].clamp_min(0.0)


def _largest_square(matrices: Tensor, scale: Tensor) -> Tensor:
    """Return the largest scaled squared spectral norm; Frobenius norms rule most rows out."""
    above = scale * matrices.square().sum(dim=(1, 2)).double()
    likely = above.topk(min(_CANDIDATES, len(above))).indices
    largest = (scale[likely] * _spectral_squares(matrices[likely])).max()
    rest = above > largest
    rest[likely] = False
    if not bool(rest.any()):
        return largest
    return torch.maximum(largest, (scale[rest] * _spectral_squares(matrices[rest])).max())
