"""Sharpness-aware minimisation."""

import torch
from torch import Tensor, nn

from sharpfit.networks._randomness import get_states, module_devices, set_states
from sharpfit.networks.interventions.intervention import (
    Backward,
    Intervention,
    check_not_negative,
)


class SharpnessAwareMinimisation(Intervention):
    """Step along the gradient at the worst nearby weights, with any optimiser.

    The gradient ``g`` at the weights ``w`` gives the perturbed weights ``w + e``, along ``g`` and
    of length `radius`; the optimiser steps from ``w`` along the gradient taken at ``w + e``. Every
    update costs two gradients.

    Parameters
    ----------
    radius : float, default=0.05
        Length of the perturbation; 0 trains as usual.
    adaptive : bool, default=False
        Whether to scale the perturbation by the weights, which makes it invariant to their
        scale: ``e = radius * w^2 g / |w g|`` instead of ``radius * g / |g|``.

    Notes
    -----
    Foret, Kleiner, Mobahi and Neyshabur (2021), "Sharpness-Aware Minimization for Efficiently
    Improving Generalization"; for ``adaptive=True``, Kwon, Kim, Park and Choi (2021), "ASAM". Both
    gradients see the same dropout masks and mixed rows. Buffers, such as the running statistics of
    batch normalisation, are updated at ``w`` only, once per update.

    It acts on the gradient within the optimiser's closure, so that momentum, Adam or L-BFGS step
    as usual. Optimisers that perturb weights in their ``step`` need the first gradient to be there
    before that call; skorch computes it within.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sharpfit.networks import NetworkClassifier
    >>> from sharpfit.networks.interventions import SharpnessAwareMinimisation
    >>> X, y = load_iris(return_X_y=True)
    >>> network = NetworkClassifier(intervention=SharpnessAwareMinimisation(), random_state=0)
    >>> network.fit(X, y).trained_on_data_loss_
    True
    """

    changes_loss = False

    def __init__(self, radius: float = 0.05, *, adaptive: bool = False) -> None:
        self.radius = radius
        self.adaptive = adaptive

    def check(self) -> None:
        """Refuse a radius out of range."""
        check_not_negative(self, "radius")

    def gradient(self, module: nn.Module, backward: Backward) -> dict[str, Tensor]:
        """Leave the gradient at the perturbed weights; see `Intervention.gradient`."""
        if self.radius == 0:
            return backward()
        devices = module_devices(module)
        random_states = get_states(devices)
        step = backward()
        moved = [p for p in module.parameters() if p.grad is not None]
        weights = [p.detach().clone() for p in moved]
        buffers = [buffer.clone() for buffer in module.buffers()]
        try:
            self._perturb(moved)
            set_states(random_states, devices)
            backward()
        finally:
            with torch.no_grad():
                for parameter, weight in zip(moved, weights, strict=True):
                    parameter.copy_(weight)
                for buffer, value in zip(module.buffers(), buffers, strict=True):
                    buffer.copy_(value)
        return step

    @torch.no_grad()
    def _perturb(self, parameters: list[nn.Parameter]) -> None:
        """Move to the worst nearby weights and drop the gradients that led there."""
        scales = [p.abs() if self.adaptive else torch.ones_like(p) for p in parameters]
        scaled = [scale * p.grad for scale, p in zip(scales, parameters, strict=True)]
        length = torch.stack([gradient.norm() for gradient in scaled]).norm()
        # At a stationary point there is no direction to move along.
        factor = self.radius / length if length > 0 else torch.zeros_like(length)
        for scale, gradient, parameter in zip(scales, scaled, parameters, strict=True):
            parameter.add_(scale * gradient * factor)
            parameter.grad = None
