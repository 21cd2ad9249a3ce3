"""The error that says why no certificate can be given."""


class CertificateError(ValueError):
    """No certificate can be given; the message names the layer, the reason and the remedy."""
