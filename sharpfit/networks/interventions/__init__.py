"""Ways to train that act on the curvature or the Jacobian of a network."""

from sharpfit.networks.interventions.intervention import Intervention
from sharpfit.networks.interventions.jacobian_penalty import JacobianPenalty
from sharpfit.networks.interventions.mixup import Mixup
from sharpfit.networks.interventions.sharpness_aware import SharpnessAwareMinimisation

__all__ = ["Intervention", "JacobianPenalty", "Mixup", "SharpnessAwareMinimisation"]
