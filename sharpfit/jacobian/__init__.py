"""Input-output Jacobians: per-sample norms, slopes, Lipschitz certificates."""

from sharpfit.jacobian.certificate import Certificate, lipschitz_certificate
from sharpfit.jacobian.lipschitz import CertificateError, register_lipschitz
from sharpfit.jacobian.margin_constant import MarginConstant, empirical_margin_constant
from sharpfit.jacobian.margins import margin_gradients
from sharpfit.jacobian.norms import JacobianNorms, jacobian_norms
from sharpfit.jacobian.slope_bound import SlopeBound, slope_bound
from sharpfit.jacobian.slopes import Slopes, slopes

__all__ = [
    "Certificate",
    "CertificateError",
    "JacobianNorms",
    "MarginConstant",
    "SlopeBound",
    "Slopes",
    "empirical_margin_constant",
    "jacobian_norms",
    "lipschitz_certificate",
    "margin_gradients",
    "register_lipschitz",
    "slope_bound",
    "slopes",
]
