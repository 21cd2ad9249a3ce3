"""Certified Lipschitz constants of networks."""

from dataclasses import dataclass

from torch import nn

from sharpfit.jacobian.lipschitz.errors import CertificateError
from sharpfit.jacobian.lipschitz.graph import LayerRule, LipschitzInterpreter, trace
from sharpfit.jacobian.lipschitz.head import margin_constant


@dataclass(frozen=True)
class Certificate:
    """An upper bound on the Lipschitz constant of a network, with its reasons.

    Both constants are in the Euclidean norm, for the network in evaluation mode and real
    arithmetic, rounded upwards; the rounding of the network's own output is not part of it.

    Attributes
    ----------
    constant : float
        Bounds ``|f(x) - f(x')| / |x - x'|`` for the outputs (logits) ``f`` and all inputs.
        ``float(certificate)`` returns it.
    margin_constant : float
        Bounds the same quotient for the margins ``f_y - max_{k != y} f_k`` of every label y (for
        a single output, of ``f`` and ``-f``).
    method : str
        How the constants were found.
    rules : tuple of LayerRule
        The rule and the constant used for every layer, in the order of execution.
    input_shape : tuple of int
        Shape of one input, without the batch dimension.
    """

    constant: float
    margin_constant: float
    method: str
    rules: tuple[LayerRule, ...]
    input_shape: tuple[int, ...]

    def __float__(self) -> float:
        return self.constant

    def tightness(self, largest_slope: float) -> float:
        """Ratio of the certified constant to the largest slope found, at least 1.

        Parameters
        ----------
        largest_slope : float
            Largest ``|f(x) - f(x')| / |x - x'|`` or Jacobian norm observed.

        Returns
        -------
        float
            1 is a certificate that cannot be improved.

        Raises
        ------
        ValueError
            If the slope is not positive.
        """
        if not largest_slope > 0:
            raise ValueError(f"largest_slope={largest_slope} must be a positive number.")
        return self.constant / largest_slope


def _sample_shape(input_shape: tuple[int, ...] | int) -> tuple[int, ...]:
    sizes = (input_shape,) if isinstance(input_shape, int) else tuple(input_shape)
    if any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in sizes):
        raise ValueError(
            f"input_shape={input_shape!r} must hold positive integers: the shape of one sample, "
            "without the batch dimension, such as (20,) or (1, 28, 28)."
        )
    return sizes


def lipschitz_certificate(
    module: nn.Module, input_shape: tuple[int, ...] | int, *, method: str = "product"
) -> Certificate:
    """Bound the Lipschitz constant of a network over the whole input space.

    Parameters
    ----------
    module : torch.nn.Module
        Network returning logits or predictions of shape (n_samples, n_outputs). It is not
        modified: a copy in evaluation mode is traced.
    input_shape : tuple of int, or int
        Shape of one input, without the batch dimension.
    method : {"product"}, default="product"
        ``"product"`` multiplies the constants of the layers along every chain, adds those of
        branches that are added and takes the root of the sum of squares of those that are
        concatenated.

    Returns
    -------
    Certificate

    Raises
    ------
    CertificateError
        If a layer or a function has no rule or is not Lipschitz continuous; the message names it
        and the remedy.
    TypeError
        If `module` is not a `torch.nn.Module`.
    ValueError
        If `input_shape` or `method` is not valid.

    Notes
    -----
    Constants compose: a chain multiplies them, the sum of two branches adds them, and
    ``|(f(x), g(x)) - (f(x'), g(x'))|^2 <= (Lip(f)^2 + Lip(g)^2) |x - x'|^2``. A layer used twice
    counts twice.

    Examples
    --------
    >>> import torch
    >>> from sharpfit.jacobian import lipschitz_certificate
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
    >>> with torch.no_grad():
    ...     _ = network[0].weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
    >>> certificate = lipschitz_certificate(network, (2,))
    >>> round(float(certificate), 9)
    4.0
    >>> [rule.kind for rule in certificate.rules]
    ['Linear', 'ReLU']
    """
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"module must be a torch.nn.Module, not {type(module).__name__}; of a fitted skorch "
            "network pass its module_."
        )
    sizes = _sample_shape(input_shape)
    if method != "product":
        raise ValueError(f"method={method!r} is unknown; choose 'product'.")
    interpreter = LipschitzInterpreter(trace(module), sizes)
    constant = interpreter.bound()
    return Certificate(
        constant=constant,
        margin_constant=margin_constant(interpreter),
        method=method,
        rules=tuple(interpreter.rules),
        input_shape=sizes,
    )


__all__ = ["Certificate", "CertificateError", "lipschitz_certificate"]
