"""Largest curvature at which an optimiser is stable on a quadratic."""

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sharpfit.linalg import (
    CongruentOperator,
    DiagonalOperator,
    LinearCombination,
    SymmetricOperator,
)

__all__ = [
    "StabilityCondition",
    "adam_limit",
    "heavy_ball_limit",
    "nesterov_limit",
    "stability_condition",
]


# Gradients below this part of their typical size are rounding.
_ROUNDING = 1e-5


def heavy_ball_limit(lr: float, momentum: float = 0.0, dampening: float = 0.0) -> float:
    r"""Stability limit of gradient descent with heavy-ball momentum.

    On a quadratic of curvature :math:`\lambda` the iteration
    :math:`b \leftarrow m b + (1-d) \lambda x,\ x \leftarrow x - \eta b` converges for
    :math:`0 < \lambda < 2(1+m) / ((1-d)\eta)` (Cohen et al., 2021, for :math:`d = 0`); without
    momentum this is :math:`2/\eta`.

    Parameters
    ----------
    lr : float
        Learning rate :math:`\eta`.
    momentum : float, default=0.0
        Momentum :math:`m`.
    dampening : float, default=0.0
        Dampening :math:`d`, below 1.

    Returns
    -------
    float
        In units of the curvature; infinite for a learning rate of zero.

    Examples
    --------
    >>> from sharpfit.monitoring import heavy_ball_limit
    >>> heavy_ball_limit(0.1), heavy_ball_limit(0.1, momentum=0.9)
    (20.0, 38.0)
    """
    return _ratio(2 * (1 + momentum), (1 - dampening) * lr)


def nesterov_limit(lr: float, momentum: float) -> float:
    r"""Stability limit of gradient descent with Nesterov momentum, as torch computes it.

    On a quadratic, :math:`b \leftarrow m b + \lambda x,\ x \leftarrow x - \eta(\lambda x + m b)`
    converges for :math:`0 < \lambda < (2 + 2m) / ((1 + 2m)\eta)` (Cohen et al., 2021).

    Parameters
    ----------
    lr : float
        Learning rate :math:`\eta`.
    momentum : float
        Momentum :math:`m`.

    Returns
    -------
    float

    Examples
    --------
    >>> from sharpfit.monitoring import nesterov_limit
    >>> round(nesterov_limit(0.1, momentum=0.9), 3)
    13.571
    """
    return _ratio(2 + 2 * momentum, (1 + 2 * momentum) * lr)


def adam_limit(lr: float, beta1: float, weight_decay: float = 0.0) -> float:
    r"""Stability limit of Adam with a frozen preconditioner, on the preconditioned curvature.

    With gradients averaged as :math:`b \leftarrow \beta b + (1-\beta) \lambda x` and decoupled
    weight decay `w`, :math:`x \leftarrow (1 - \eta w) x - \eta b` converges on a quadratic of
    preconditioned curvature :math:`0 \le \lambda < (1+\beta)(2 - \eta w) / ((1-\beta)\eta)`. For
    :math:`w = 0` this is the limit of Cohen et al. (2022), 38 / lr at :math:`\beta = 0.9`. Bias
    correction is past.

    Parameters
    ----------
    lr : float
        Learning rate :math:`\eta`.
    beta1 : float
        Decay :math:`\beta` of the averaged gradient.
    weight_decay : float, default=0.0
        Decoupled weight decay `w`, as of AdamW.

    Returns
    -------
    float

    Examples
    --------
    >>> from sharpfit.monitoring import adam_limit
    >>> round(adam_limit(0.01, 0.9))
    3800
    """
    return _ratio((1 + beta1) * (2 - lr * weight_decay), (1 - beta1) * lr)


@dataclass(frozen=True)
class StabilityCondition:
    """When an optimiser in its present state is stable on a full-batch quadratic.

    Stable means that the largest eigenvalue of ``P^(-1/2) (H + W) P^(-1/2)`` is below `limit`,
    with ``H`` the Hessian of the loss, ``P`` the diagonal `preconditioner` and ``W`` the diagonal
    `weight_decay`. The noise of mini-batches is not covered: it makes training unstable earlier.

    Attributes
    ----------
    limit : float
        The limit; NaN where none is known.
    statement : str
        The formula in words, or why there is none.
    preconditioner : Tensor of shape (size,) or None
        Diagonal ``P`` over the parameters, positive; None is the identity.
    weight_decay : Tensor of shape (size,) or None
        Diagonal ``W`` that decay coupled to the gradient adds to the Hessian; None is zero.
    resting : Tensor of bool of shape (size,) or None
        Parameters whose gradients an adaptive optimiser has seen as next to nothing; None where it
        does not look at them.
    """

    limit: float
    statement: str
    preconditioner: Tensor | None = None
    weight_decay: Tensor | None = None
    resting: Tensor | None = None

    def without_resting(self) -> "StabilityCondition":
        """Leave out the resting parameters, as they hardly move.

        The bias in front of a batch normalisation is one: in training it changes nothing and has no
        gradient, so that its preconditioner is tiny, but in evaluation mode it has curvature.

        Returns
        -------
        StabilityCondition
        """
        if self.preconditioner is None or self.resting is None or not bool(self.resting.any()):
            return self
        return replace(
            self,
            preconditioner=self.preconditioner.masked_fill(self.resting, math.inf),
            statement=f"{self.statement}; without {int(self.resting.sum())} parameters with next "
            "to no gradient, as those in front of batch normalisation have",
        )

    def trained_matrix(self, hessian: SymmetricOperator) -> SymmetricOperator:
        """Return the matrix whose largest eigenvalue the limit concerns.

        Parameters
        ----------
        hessian : SymmetricOperator
            Hessian of the loss.

        Returns
        -------
        SymmetricOperator
            ``P^(-1/2) (H + W) P^(-1/2)``.
        """
        trained = hessian
        if self.weight_decay is not None:
            decay = self.weight_decay.to(hessian.device, hessian.dtype)
            trained = LinearCombination([trained, DiagonalOperator(decay)])
        if self.preconditioner is not None:
            scaling = self.preconditioner.to(hessian.device, torch.float64).rsqrt()
            trained = CongruentOperator(trained, scaling)
        return trained

    @property
    def shift(self) -> float | None:
        """What the optimiser adds to every eigenvalue; None where it does more than that."""
        if self.preconditioner is not None:
            return None
        if self.weight_decay is None:
            return 0.0
        first = self.weight_decay[0]
        return float(first) if bool((self.weight_decay == first).all()) else None


def stability_condition(
    optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]
) -> StabilityCondition:
    """Return the stability condition of a torch optimiser in its present state.

    Known are SGD (momentum, dampening, Nesterov, weight decay), Adam and AdamW (also AMSGrad) and
    RMSprop, subclasses with their `step`, and what Accelerate and Lightning wrap around them, with
    the present learning rate of a schedule. Groups of different learning rate join
    into one condition by a preconditioner; groups that differ in momentum have none.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Read only.
    parameters : sequence of Parameter
        The parameters in the order of the Hessian. Those the optimiser does not move are refused.

    Returns
    -------
    StabilityCondition

    Raises
    ------
    ValueError
        If the optimiser does not hold one of the parameters.

    Examples
    --------
    >>> import torch
    >>> from sharpfit.monitoring import stability_condition
    >>> weight = torch.nn.Parameter(torch.ones(2))
    >>> stability_condition(torch.optim.SGD([weight], lr=0.1), [weight]).limit
    20.0
    """
    optimizer = _innermost(optimizer)
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    missing = [p for p in parameters if id(p) not in groups]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(parameters)} parameters are not moved by "
            f"{type(optimizer).__name__}; leave them out of the Hessian."
        )
    used = [groups[id(p)] for p in parameters]
    rule = _RULES.get(_kind(optimizer))
    name = type(optimizer).__name__
    if rule is None:
        return StabilityCondition(math.nan, f"there is no rule for {name}")
    if any(group.get("maximize", False) for group in used):
        return StabilityCondition(math.nan, f"{name} maximises the loss")
    resting = [float(group["lr"]) <= 0 for group in used]
    if all(resting):
        return StabilityCondition(math.inf, f"the learning rate of {name} is zero")
    if any(resting):
        return StabilityCondition(
            math.nan,
            f"a group of {name} has learning rate zero; freeze its parameters by requires_grad to "
            "see the limit of the others",
        )
    return rule(optimizer, parameters, used)


def _innermost(optimizer: Any) -> Any:
    """Return the optimiser that others, which have it as `optimizer`, are wrapped around."""
    while isinstance(getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = optimizer.optimizer
    return optimizer


def _kind(optimizer: torch.optim.Optimizer) -> type:
    """Return the known kind of optimiser that makes the steps, if there is one."""
    for kind in type(optimizer).__mro__:
        if kind in _RULES:
            own = inspect.unwrap(type(optimizer).step)
            return kind if own is inspect.unwrap(kind.step) else type(optimizer)
    return type(optimizer)


def _sgd(optimizer: Any, parameters: Any, groups: list[dict[str, Any]]) -> StabilityCondition:
    first = groups[0]
    if differing := _differing(groups, "momentum", "dampening", "nesterov"):
        return StabilityCondition(math.nan, f"the groups of SGD differ in {differing}")
    lr, momentum = float(first["lr"]), float(first["momentum"])
    if first["nesterov"]:
        limit, formula = nesterov_limit(lr, momentum), "(2 + 2 momentum) / ((1 + 2 momentum) lr)"
    elif momentum:
        limit = heavy_ball_limit(lr, momentum, float(first["dampening"]))
        formula = "2 (1 + momentum) / ((1 - dampening) lr)"
    else:
        limit, formula = heavy_ball_limit(lr), "2 / lr"
    return StabilityCondition(
        limit,
        f"full-batch gradient descent: {formula}",
        _relative_rates(parameters, groups),
        _decay(parameters, groups),
    )


def _adam(optimizer: Any, parameters: Any, groups: list[dict[str, Any]]) -> StabilityCondition:
    first, name = groups[0], type(optimizer).__name__
    # Newer versions of torch give Adam a switch for decoupled decay, which AdamW always has.
    decoupled = isinstance(optimizer, torch.optim.AdamW) or first.get(
        "decoupled_weight_decay", False
    )
    names = ("betas", "eps", "amsgrad") + (("lr", "weight_decay") if decoupled else ())
    if differing := _differing(groups, *names):
        return StabilityCondition(math.nan, f"the groups of {name} differ in {differing}")
    roots = []
    for parameter, group in zip(parameters, groups, strict=True):
        state = optimizer.state.get(parameter, {})
        if "exp_avg_sq" not in state:
            return StabilityCondition(math.nan, f"{name} has made no step yet")
        square = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"]
        corrected = square / (1 - group["betas"][1] ** float(state["step"]))
        roots.append(corrected.sqrt().flatten())
    decay = float(first["weight_decay"]) if decoupled else 0.0
    return StabilityCondition(
        adam_limit(float(first["lr"]), float(first["betas"][0]), decay),
        f"full-batch {name}, preconditioned: (1 + beta1) (2 - lr decay) / ((1 - beta1) lr)",
        _preconditioner(roots, parameters, groups),
        None if decoupled else _decay(parameters, groups),
        _resting(roots, groups),
    )


def _rmsprop(optimizer: Any, parameters: Any, groups: list[dict[str, Any]]) -> StabilityCondition:
    first = groups[0]
    if differing := _differing(groups, "alpha", "eps", "momentum", "centered"):
        return StabilityCondition(math.nan, f"the groups of RMSprop differ in {differing}")
    roots = []
    for parameter, group in zip(parameters, groups, strict=True):
        state = optimizer.state.get(parameter, {})
        if "square_avg" not in state:
            return StabilityCondition(math.nan, "RMSprop has made no step yet")
        square = state["square_avg"]
        if group["centered"]:
            square = (square - state["grad_avg"] ** 2).clamp_min(0)
        roots.append(square.sqrt().flatten())
    return StabilityCondition(
        heavy_ball_limit(float(first["lr"]), float(first["momentum"])),
        "full-batch RMSprop, preconditioned: 2 (1 + momentum) / lr",
        _preconditioner(roots, parameters, groups),
        _decay(parameters, groups),
        _resting(roots, groups),
    )


_RULES = {
    torch.optim.SGD: _sgd,
    torch.optim.Adam: _adam,
    torch.optim.AdamW: _adam,
    torch.optim.RMSprop: _rmsprop,
}


def _differing(groups: list[dict[str, Any]], *names: str) -> str:
    return ", ".join(
        name for name in names if any(group[name] != groups[0][name] for group in groups)
    )


def _relative_rates(parameters: Any, groups: list[dict[str, Any]]) -> Tensor | None:
    """Return the first group's learning rate over each parameter's, None where all agree."""
    rates = [float(group["lr"]) for group in groups]
    if all(rate == rates[0] for rate in rates):
        return None
    return _spread(parameters, [rates[0] / rate for rate in rates])


def _decay(parameters: Any, groups: list[dict[str, Any]]) -> Tensor | None:
    decays = [float(group["weight_decay"]) for group in groups]
    return _spread(parameters, decays) if any(decays) else None


def _spread(parameters: Any, values: list[float]) -> Tensor:
    return torch.cat(
        [torch.full_like(p, v).flatten() for p, v in zip(parameters, values, strict=True)]
    ).detach()


def _preconditioner(roots: list[Tensor], parameters: Any, groups: list[dict[str, Any]]) -> Tensor:
    scale = torch.cat(roots) + groups[0]["eps"]
    rates = _relative_rates(parameters, groups)
    return scale if rates is None else scale * rates


def _resting(roots: list[Tensor], groups: list[dict[str, Any]]) -> Tensor:
    root = torch.cat(roots)
    typical = root.square().mean().sqrt()
    return root <= groups[0]["eps"] + _ROUNDING * typical


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0 else math.inf
