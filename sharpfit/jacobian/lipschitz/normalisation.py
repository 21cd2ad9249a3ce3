"""Lipschitz constants of normalisation layers in evaluation mode."""

import math

import torch
from torch import Tensor, nn

from sharpfit.jacobian.lipschitz.errors import CertificateError
from sharpfit.jacobian.lipschitz.registry import LipschitzRule, register_lipschitz
from sharpfit.jacobian.lipschitz.rounding import product_up, quotient_up


def _largest_scale(weight: Tensor | None) -> float:
    return 1.0 if weight is None else float(weight.detach().double().abs().max())


def batch_norm_scales(module: nn.modules.batchnorm._NormBase) -> Tensor:
    """Factor per channel with which normalisation by running statistics multiplies its input.

    Parameters
    ----------
    module : torch.nn.BatchNorm1d or another layer with running statistics

    Returns
    -------
    Tensor of shape (n_channels,), float64
        ``weight / sqrt(running_var + eps)``, correct to a few roundings.
    """
    if module.running_var is None:
        raise CertificateError(
            "it normalises by the statistics of the batch, also in evaluation mode, so that "
            "samples depend on each other; build it with track_running_stats=True"
        )
    scales = (module.running_var.detach().double() + module.eps).rsqrt()
    if module.weight is not None:
        scales = scales * module.weight.detach().double()
    if not bool(torch.isfinite(scales).all()):
        raise CertificateError("running variance + eps is not positive in every channel")
    return scales.cpu()


def batch_norm_constant(
    module: nn.modules.batchnorm._NormBase, input_shape: tuple[int, ...]
) -> float:
    """Largest |weight| / sqrt(running variance + eps)."""
    largest = float(batch_norm_scales(module).abs().max())
    return product_up(largest, 1.0 + 2.0**-48)


def _scale_over_root_eps(weight: Tensor | None, eps: float | None) -> float:
    if eps is None or not eps > 0:
        raise CertificateError(
            f"eps={eps} leaves the slope at a constant input unbounded; give a positive eps"
        )
    return product_up(quotient_up(_largest_scale(weight), math.sqrt(eps)), 1.0 + 2.0**-50)


def layer_norm_constant(
    module: nn.LayerNorm | nn.GroupNorm | nn.RMSNorm, input_shape: tuple[int, ...]
) -> float:
    """Largest |weight| / sqrt(eps), which is attained at a constant input.

    With ``s^2 = var + eps`` and ``z = (x - mean) / s`` the derivative is ``(P - z z^T / n) / s``,
    ``P`` the projection off the constants. As ``|z|^2 / n = var / s^2 < 1``, its eigenvalues lie
    in ``[0, 1 / s]``. Without the mean, the same holds with ``P`` the identity.
    """
    return _scale_over_root_eps(module.weight, module.eps)


def instance_norm_constant(
    module: nn.modules.batchnorm._NormBase, input_shape: tuple[int, ...]
) -> float:
    """Largest |weight| / sqrt(variance + eps), the variance at least 0 or the running one."""
    if module.track_running_stats:
        return batch_norm_constant(module, input_shape)
    return _scale_over_root_eps(module.weight, module.eps)


_LAYERS: list[tuple[tuple[type[nn.Module], ...], LipschitzRule]] = [
    ((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm), batch_norm_constant),
    ((nn.LayerNorm, nn.GroupNorm, nn.RMSNorm), layer_norm_constant),
    ((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), instance_norm_constant),
]
for _types, _rule in _LAYERS:
    for _type in _types:
        register_lipschitz(_type, _rule)
