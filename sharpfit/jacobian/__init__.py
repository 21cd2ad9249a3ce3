"""Input-output Jacobians: per-sample norms, slopes, Lipschitz certificates."""

from sharpfit.jacobian.certificate import Certificate, lipschitz_certificate
from sharpfit.jacobian.layer_factors import LayerJacobians, layer_jacobians
from sharpfit.jacobian.layers import LayerNorms, layer_norms
from sharpfit.jacobian.lipschitz import CertificateError, register_lipschitz
from sharpfit.jacobian.loss_slopes import SlopeBound, UnboundedLossError, slope_bound
from sharpfit.jacobian.margin_constant import MarginConstant, empirical_margin_constant
from sharpfit.jacobian.margins import margin_gradients
from sharpfit.jacobian.norms import JacobianNorms, jacobian_norms
from sharpfit.jacobian.radii import certified_radii
from sharpfit.jacobian.row_pairs import RowPairs
from sharpfit.jacobian.sample_slopes import Slopes, slopes
from sharpfit.jacobian.smoothness import smoothness_certificate
from sharpfit.jacobian.variation import LocalVariation, local_variation
from sharpfit.theory.coverage import (
    Coverage,
    coverage,
    held_out_exceedance,
    held_out_maximum,
)

__all__ = [
    "Certificate",
    "CertificateError",
    "Coverage",
    "JacobianNorms",
    "LayerJacobians",
    "LayerNorms",
    "LocalVariation",
    "MarginConstant",
    "RowPairs",
    "SlopeBound",
    "Slopes",
    "UnboundedLossError",
    "certified_radii",
    "coverage",
    "empirical_margin_constant",
    "held_out_exceedance",
    "held_out_maximum",
    "jacobian_norms",
    "layer_jacobians",
    "layer_norms",
    "lipschitz_certificate",
    "local_variation",
    "margin_gradients",
    "register_lipschitz",
    "slope_bound",
    "slopes",
    "smoothness_certificate",
]
