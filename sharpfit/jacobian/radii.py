"""Certified radii: how far every sample can move before its class may change."""

import torch
from torch import Tensor, nn

from sharpfit.jacobian.arguments import check_tensor
from sharpfit.jacobian.lipschitz.chain import DenseChain, dense_chain
from sharpfit.jacobian.lipschitz.graph import LipschitzInterpreter, trace
from sharpfit.jacobian.lipschitz.head import margin_constant
from sharpfit.jacobian.lipschitz.linear_bounds import Ball, lowest_margins
from sharpfit.jacobian.lipschitz.rounding import accumulated_error

# Radii are searched from the global one by factors of two, then by bisection.
_N_DOUBLINGS = 20
_N_BISECTIONS = 8
# Relative error granted to the float64 values a chain starts from.
_START_ERROR = 1e-11
# Coefficients held at a time: 16 MiB of float64, twice as fast as chunks that leave the cache.
_CHUNK_ENTRIES = 2**21


def _check_labels(labels: Tensor, n_samples: int, n_outputs: int) -> Tensor:
    try:
        labels = torch.as_tensor(labels).detach().cpu()
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"labels must be integers, one a row of inputs; encode the classes first ({error})."
        ) from None
    if labels.shape == (n_samples, 1):
        labels = labels[:, 0]
    # Targets of a loss on single logits are floating-point numbers 0 and 1.
    if labels.shape != (n_samples,) or bool((labels != labels.round()).any()):
        raise ValueError(
            f"labels must be {n_samples} integers, one a row of inputs, not of shape "
            f"{tuple(labels.shape)} and dtype {labels.dtype}."
        )
    n_classes = max(2, n_outputs)
    if bool(((labels < 0) | (labels >= n_classes)).any()):
        raise ValueError(
            f"labels must lie in 0 .. {n_classes - 1} for a network with {n_outputs} outputs; "
            "encode the classes first."
        )
    return labels.to(torch.int64)


def _rounding(starts: Tensor) -> Tensor:
    """Distance that covers the rounding of what precedes the chain, computed in float64."""
    return _START_ERROR * starts.norm(dim=1)


def _search(chain: DenseChain, starts: Tensor, labels: Tensor, first: Tensor) -> Tensor:
    """Largest proved radii around values of the start of a chain, none below `first`."""

    def proved(radii: Tensor) -> Tensor:
        return lowest_margins(chain, labels, Ball(starts, radii + _rounding(starts))) > 0.0

    radii = first.clone()
    reach = torch.where(torch.isfinite(first), first, 0.0)
    growing = torch.isfinite(first) & (first > 0.0)
    for _ in range(_N_DOUBLINGS):
        if not bool(growing.any()):
            break
        reach = torch.where(growing, 2 * reach, reach)
        growing = growing & proved(reach)
        radii = torch.where(growing, reach, radii)
    low, high = radii, torch.maximum(reach, radii)
    for _ in range(_N_BISECTIONS):
        middle = (low + high) / 2
        holds = proved(torch.where(torch.isfinite(middle), middle, 0.0)) & (middle > low)
        low = torch.where(holds, middle, low)
        high = torch.where(holds, high, middle)
    return low


def certified_radii(module: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Radii of balls around samples in which the network provably keeps the right class.

    Parameters
    ----------
    module : torch.nn.Module
        Network returning logits of shape (n_samples, n_outputs). It is not modified: a copy in
        evaluation mode is traced.
    inputs : Tensor of shape (n_samples, ...)
        Samples, in the dtype the network takes.
    labels : Tensor of shape (n_samples,) or (n_samples, 1)
        Index of the correct output: integers, of any dtype. For a single output, 1 where it
        should be positive and 0 where it should be negative.

    Returns
    -------
    Tensor of shape (n_samples,), float64
        No input within this Euclidean distance of the sample is misclassified, for the network
        in real arithmetic. 0 for a misclassified sample.

    Raises
    ------
    CertificateError
        If the network has no Lipschitz certificate (see `lipschitz_certificate`).
    TypeError
        If `module` is not a `torch.nn.Module`, or `inputs` no tensor.
    ValueError
        If shapes or labels do not fit, or an input is not finite.

    Notes
    -----
    Every radius is at least the margin over the Lipschitz constant of the margin. Where the
    network ends with dense layers and activations, larger ones are proved by linear bounds on
    the ball: neurons that cannot change sign there are linear, others lie between two lines. What
    precedes these layers enters by its own Lipschitz constant. The search stops within half a per
    cent of the largest radius that these bounds prove.

    Examples
    --------
    >>> import torch
    >>> from sharpfit.jacobian import certified_radii
    >>> network = torch.nn.Linear(2, 1, bias=False)
    >>> with torch.no_grad():
    ...     _ = network.weight.copy_(torch.tensor([[3.0, 4.0]]))
    >>> radii = certified_radii(network, torch.tensor([[1.0, 0.5]]), torch.tensor([1]))
    >>> round(float(radii[0]), 6)
    1.0
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, not {type(module).__name__}.")
    check_tensor("inputs", inputs)
    if inputs.ndim < 1 or len(inputs) == 0:
        raise ValueError(f"inputs must hold one row or more, not shape {tuple(inputs.shape)}.")
    if not bool(torch.isfinite(inputs).all()):
        raise ValueError("inputs contain NaN or infinity; remove or impute these rows first.")
    interpreter = LipschitzInterpreter(trace(module), tuple(inputs.shape[1:]))
    constant = interpreter.bound()
    shape = interpreter.shapes[interpreter.output_node]
    if len(shape) != 1:
        raise ValueError(
            f"the network must return logits of shape (n_samples, n_outputs), not samples of shape "
            f"{shape}."
        )
    labels = _check_labels(labels, len(inputs), *shape)
    chain = dense_chain(interpreter)
    widest = max([*shape, *(len(stage.affine.matrix) for stage in chain.stages)])
    rows = max(1, _CHUNK_ENTRIES // (2 * widest**2))
    radii = []
    for part, part_labels in zip(inputs.split(rows), labels.split(rows), strict=True):
        starts = interpreter.values_at(chain.start, part)
        margins = lowest_margins(chain, part_labels, Ball(starts, _rounding(starts)))
        right = margins > 0.0
        if constant == 0.0:
            radii.append(torch.where(right, torch.inf, 0.0).to(torch.float64))
            continue
        before = interpreter.constants[chain.start]
        by_constant = torch.where(right, margins / margin_constant(interpreter), 0.0)
        found = _search(chain, starts, part_labels, by_constant * before) / before
        radii.append(torch.maximum(by_constant, found))
    # Rounded down: a few quotients and products of positive numbers.
    return torch.cat(radii) * (1.0 - accumulated_error(8))
