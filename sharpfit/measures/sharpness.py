r"""Measures made of the curvature of the loss in the weights.

:math:`H` is the Hessian of the training loss in evaluation mode and :math:`G` its
Gauss-Newton part; weight decay is not part of either. Eigenvalues are found by Lanczos to a
relative error of 1e-5.
"""

import torch

from sharpfit.curvature import GaussNewtonOperator, HessianOperator, curvature_trace
from sharpfit.curvature.piecewise import is_piecewise_linear
from sharpfit.linalg import top_eigenpairs
from sharpfit.measures.perturbation import parameter_vector
from sharpfit.measures.trained_network import TrainedNetwork

_TOLERANCE = 1e-5
_ADAPTIVE_OFFSET = 0.01
# Positive and negative curvature can nearly cancel, and no number of products is enough then.
_TRACE_PRODUCTS = 40

_Operator = HessianOperator | GaussNewtonOperator


def sharpness(network: TrainedNetwork) -> float:
    r"""Largest eigenvalue of the Hessian.

    :math:`\lambda_{\max}(H)`. Source: Keskar et al. 2017; Cohen et al. 2021. Invariances:
    none. Cost: some ten Hessian products.
    """
    return _largest_eigenvalue(network.hessian, network)


def gauss_newton_sharpness(network: TrainedNetwork) -> float:
    r"""Largest eigenvalue of the Gauss-Newton matrix.

    :math:`\lambda_{\max}(G)`. Source: Schraudolph 2002; Cohen et al. 2021. Invariances:
    none. Cost: some ten Gauss-Newton products.
    """
    return _largest_eigenvalue(network.gauss_newton, network)


def adaptive_sharpness(network: TrainedNetwork) -> float:
    r"""Largest eigenvalue of the Hessian in units of the weights.

    :math:`\lambda_{\max}(T H T)` with :math:`T = \mathrm{diag}(|\theta| + 0.01)`. Source:
    Kwon et al. 2021. Invariances: rescaling one layer up and another down, up to the
    offset. Cost: some ten Hessian products.
    """
    scale = parameter_vector(network.module).abs() + _ADAPTIVE_OFFSET
    return _largest_eigenvalue(
        network.curvature(HessianOperator, preconditioner=scale**-2), network
    )


def filter_normalised_sharpness(network: TrainedNetwork) -> float:
    r"""Largest eigenvalue of the Hessian in units of the filters.

    :math:`\lambda_{\max}(T H T)` over the weights without the biases, :math:`T` diagonal
    with the root mean square of the filter that an entry belongs to: of its row in a dense
    layer, of its output channel in a convolution. Random directions normalised filter by
    filter are spread by :math:`T`. Source: the normalisation of Li et al. 2018. Invariances:
    rescaling of any unit against the next layer, and of a filter in front of batch norm.
    Cost: some ten Hessian products.
    """
    weights = {
        name: parameter.detach()
        for name, parameter in network.module.named_parameters()
        if parameter.requires_grad and parameter.ndim > 1
    }
    if not weights:
        raise ValueError("filters are rows of weight matrices or kernels, and there are none")
    # A filter of zeros stays where it is; the preconditioner has to be finite all the same.
    tiny = 1e-12
    scale = torch.cat(
        [
            weight.square().flatten(1).mean(dim=1, keepdim=True).sqrt().clamp_min(tiny)
            .expand(-1, weight[0].numel()).flatten()
            for weight in weights.values()
        ]
    )  # fmt: skip
    operator = network.curvature(
        HessianOperator, parameters=list(weights), preconditioner=scale**-2
    )
    return _largest_eigenvalue(operator, network)


def hessian_trace(network: TrainedNetwork) -> float:
    r"""Trace of the Hessian.

    :math:`\mathrm{tr}\,H`: exact for chains of piecewise linear layers, otherwise the trace of
    `G` and an estimate of that of :math:`H - G`, to a standard error of 2 % of the whole or from
    40 products. Source: Keskar et al. 2017; Dinh et al. 2017. Invariances: none. Cost: one backward
    pass an output where exact, otherwise 10 to 40 products more.
    """
    if is_piecewise_linear(network.gauss_newton.network):
        # Affine in each layer, so what the Gauss-Newton matrix leaves has no diagonal.
        return gauss_newton_trace(network)
    return network.curvature(
        curvature_trace, max_products=_TRACE_PRODUCTS, random_state=network.random_state
    ).value


def gauss_newton_trace(network: TrainedNetwork) -> float:
    r"""Trace of the Gauss-Newton matrix.

    :math:`\mathrm{tr}\,G`: exact where the weights lie in dense and convolutional layers,
    otherwise estimated to a standard error of 2 %. For cross-entropy it is the trace of the
    Fisher information of the network's own predictive distribution. Source: Schraudolph
    2002; Jastrzebski et al. 2021. Invariances: none. Cost: one backward pass an output where
    exact, otherwise some hundred products.
    """
    return network.gauss_newton_trace


def fisher_rao_norm(network: TrainedNetwork) -> float:
    r"""Fisher-Rao norm of the weights.

    :math:`\theta^\top G\,\theta`; for cross-entropy `G` is the Fisher information of the
    network's own predictive distribution. Source: Liang et al. 2019. Invariances: any
    reparametrisation that leaves the function and is linear in the weights along
    :math:`\theta`, rescaling of layers of ReLU networks among them. Cost: two passes forward
    where layers have closed forms, otherwise one and two backward.
    """
    return network.gauss_newton.gauss_newton_form(parameter_vector(network.module))


def _largest_eigenvalue(operator: _Operator, network: TrainedNetwork) -> float:
    # A repeated largest eigenvalue is the same number, so repetitions need not be looked for.
    pairs = top_eigenpairs(
        operator,
        1,
        tol=_TOLERANCE,
        check_multiplicity=False,
        random_state=network.random_state,
    )
    return float(pairs.values[0])
