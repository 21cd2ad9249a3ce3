"""Input-output Jacobians: per-sample norms, slopes, Lipschitz certificates."""

from sharpfit.jacobian.margins import margin_gradients
from sharpfit.jacobian.norms import JacobianNorms, jacobian_norms

__all__ = ["JacobianNorms", "jacobian_norms", "margin_gradients"]
