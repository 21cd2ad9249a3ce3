"""Certified Lipschitz constants of the Jacobians of smooth networks."""

from collections.abc import Callable
from typing import Any

from torch import fx, nn

from sharpfit.jacobian.certificate import sample_shape
from sharpfit.jacobian.lipschitz.chain import AffineMap, dense_chain
from sharpfit.jacobian.lipschitz.errors import CertificateError
from sharpfit.jacobian.lipschitz.graph import LipschitzInterpreter, trace
from sharpfit.jacobian.lipschitz.registry import find_rule
from sharpfit.jacobian.lipschitz.reshaping import (
    dropout_constant,
    flatten_constant,
    unit_constant,
)
from sharpfit.jacobian.lipschitz.rounding import (
    UNIT_ROUNDOFF,
    product_up,
    quotient_up,
    root_up,
    round_up,
    spectral_norm_up,
    sum_up,
)


def _elu(module: nn.ELU) -> float:
    if module.alpha != 1.0:
        raise CertificateError(f"alpha={module.alpha} other than 1 leaves ELU a kink at zero")
    return 1.0


# Largest absolute second derivatives, rounded upwards.
_CURVATURES: dict[type[nn.Module], Callable[..., float]] = {
    nn.Tanh: lambda module: 0.7698003589195011,
    nn.Tanhshrink: lambda module: 0.7698003589195011,
    nn.Sigmoid: lambda module: 0.0962250448649377,
    nn.LogSigmoid: lambda module: 0.25,
    nn.Softplus: lambda module: product_up(0.25, module.beta),
    nn.Softsign: lambda module: 2.0,
    nn.GELU: lambda module: 0.7978845608028655,
    nn.SiLU: lambda module: 0.5,
    nn.Mish: lambda module: 0.6442046372300000,
    nn.ELU: _elu,
    nn.CELU: lambda module: quotient_up(1.0, module.alpha),
}


def smoothness_certificate(module: nn.Module, input_shape: tuple[int, ...] | int) -> float:
    r"""Bound the Lipschitz constant of a network's Jacobian over the whole input space.

    For networks of dense layers and smooth elementwise activations. With :math:`u = W h + b`,
    :math:`L` the Lipschitz constant and :math:`M` that of the Jacobian of :math:`h`,
    :math:`|\varphi'| \le s`, :math:`|\varphi''| \le c` and :math:`r` the largest norm of a row of
    :math:`W`,

    .. math:: \mathrm{Lip}\bigl(D\,\varphi(u)\bigr) \le s\,|W|\,M + c\,(r L)\,(|W| L),

    because the diagonal matrices :math:`\varphi'(u)` at two points differ by at most
    :math:`c \max_k |u_k(x) - u_k(x')|`. All numbers are rounded upwards.

    Parameters
    ----------
    module : torch.nn.Module
        Returns logits or predictions; a copy in evaluation mode is traced.
    input_shape : tuple of int, or int
        Shape of one input, without the batch dimension.

    Returns
    -------
    float
        :math:`M` with :math:`|Df(x) - Df(x')|_2 \le M |x - x'|` for all inputs, what
        `Coverage.jacobian_bound` takes as ``smoothness``.

    Raises
    ------
    CertificateError
        If the network is no such chain or an activation has a kink; the message names it.
    TypeError, ValueError
        As for `lipschitz_certificate`.

    Examples
    --------
    >>> import torch
    >>> from sharpfit.jacobian import smoothness_certificate
    >>> network = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.SiLU())
    >>> _ = torch.nn.init.constant_(network[0].weight, 2.0)
    >>> round(smoothness_certificate(network, 1), 9)  # attained at zero
    2.0
    """
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"module must be a torch.nn.Module, not {type(module).__name__}; of a fitted skorch "
            "network pass its module_."
        )
    interpreter = LipschitzInterpreter(trace(module), sample_shape(input_shape))
    interpreter.bound()
    chain = dense_chain(interpreter)
    obstacle = _obstacle(interpreter, chain.start)
    if obstacle is not None:
        raise CertificateError(
            f"{obstacle.name!r} is neither a dense layer of vectors nor a known activation: the "
            "Lipschitz constant of the Jacobian is known for chains of these only"
        )
    lipschitz, smoothness = 1.0, 0.0
    for stage in chain.stages:
        norm, row_norm = _norms(stage.affine)
        curvature = _curvature(stage.activation)
        slope = max(abs(stage.low), abs(stage.high))
        bent = product_up(curvature, row_norm, lipschitz, norm, lipschitz)
        smoothness = sum_up([product_up(slope, norm, smoothness), bent])
        lipschitz = product_up(slope, norm, lipschitz)
    return product_up(_norms(chain.head)[0], smoothness)


def _curvature(activation: nn.Module) -> float:
    for base in type(activation).__mro__:
        if base in _CURVATURES:
            return _CURVATURES[base](activation)
    raise CertificateError(
        f"{type(activation).__name__} has a kink, so that the network's Jacobian jumps; a smooth "
        "activation, such as Softplus, SiLU or Tanh, has a Lipschitz continuous one"
    )


def _norms(affine: AffineMap) -> tuple[float, float]:
    """Spectral norm and largest norm of a row, rounded upwards."""
    matrix = affine.matrix
    error = 0.0
    if affine.relative_error > 0.0:
        sizes = float(affine.envelope.square().sum().sqrt())
        error = product_up(affine.relative_error, sizes, 1.0 + 2.0**-20)
    largest = root_up(float(matrix.square().sum(dim=1).max()))
    rows = product_up(largest, 1.0 + (matrix.shape[1] + 4) * UNIT_ROUNDOFF)
    return spectral_norm_up(matrix, entry_error=error), round_up(rows + error)


def _obstacle(interpreter: LipschitzInterpreter, start: fx.Node) -> fx.Node | None:
    """Return the last value before the chain that is more than a rearrangement of the input."""
    node: Any = start
    while node in interpreter.layers:
        if find_rule(interpreter.layers[node]) not in (
            unit_constant,
            dropout_constant,
            flatten_constant,
        ):
            return node
        (node,) = interpreter.varying_inputs(node)
    return None if node.op == "placeholder" else node
