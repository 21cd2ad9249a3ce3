"""Input-output Jacobians: per-sample norms, slopes, Lipschitz certificates."""

from sharpfit.jacobian.certificate import Certificate, lipschitz_certificate
from sharpfit.jacobian.lipschitz import CertificateError, register_lipschitz
from sharpfit.jacobian.margins import margin_gradients
from sharpfit.jacobian.norms import JacobianNorms, jacobian_norms

__all__ = [
    "Certificate",
    "CertificateError",
    "JacobianNorms",
    "jacobian_norms",
    "lipschitz_certificate",
    "margin_gradients",
    "register_lipschitz",
]
