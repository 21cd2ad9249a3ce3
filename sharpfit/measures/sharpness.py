r"""Measures of how the loss bends in the weights.

:math:`H` is the Hessian of the training loss in evaluation mode and :math:`G` its
Gauss-Newton part; weight decay is not part of either.
"""

import torch
from torch import Tensor, nn

from sharpfit.curvature import GaussNewtonOperator, HessianOperator
from sharpfit.linalg import top_eigenpairs
from sharpfit.measures.perturbation import gradient_of, loss_at, parameter_vector
from sharpfit.measures.trained_network import TrainedNetwork

_TOLERANCE = 1e-3
_ADAPTIVE_OFFSET = 0.01
_ASCENT_RADIUS = 0.05
_ASCENT_ROWS = 128
_NOISE_SCALE = 0.01
_NOISE_DRAWS = 20


def sharpness(network: TrainedNetwork) -> float:
    r"""Largest eigenvalue of the Hessian.

    :math:`\lambda_{\max}(H)`, to a relative residual of 1e-3. Source: Keskar et al. 2017;
    Cohen et al. 2021. Invariances: none. Cost: some ten Hessian products.
    """
    return _largest_eigenvalue(_operator(HessianOperator, network), network.random_state)


def gauss_newton_sharpness(network: TrainedNetwork) -> float:
    r"""Largest eigenvalue of the Gauss-Newton matrix.

    :math:`\lambda_{\max}(G)`, to a relative residual of 1e-3. Source: Schraudolph 2002;
    Cohen et al. 2021. Invariances: none. Cost: some ten Gauss-Newton products.
    """
    return _largest_eigenvalue(_operator(GaussNewtonOperator, network), network.random_state)


def adaptive_sharpness(network: TrainedNetwork) -> float:
    r"""Largest eigenvalue of the Hessian in units of the weights.

    :math:`\lambda_{\max}(T H T)` with :math:`T = \mathrm{diag}(|\theta| + 0.01)`. Source:
    Kwon et al. 2021. Invariances: rescaling one layer up and another down, up to the
    offset. Cost: some ten Hessian products.
    """
    scale = parameter_vector(network.module).abs() + _ADAPTIVE_OFFSET
    operator = _operator(HessianOperator, network, preconditioner=scale**-2)
    return _largest_eigenvalue(operator, network.random_state)


def fisher_rao_norm(network: TrainedNetwork) -> float:
    r"""Fisher-Rao norm of the weights.

    :math:`\theta^\top G\,\theta`; for cross-entropy `G` is the Fisher information of the
    network's own predictive distribution. Source: Liang et al. 2019. Invariances: any
    reparametrisation that leaves the function and is linear in the weights along
    :math:`\theta`, rescaling of layers of ReLU networks among them. Cost: one product.
    """
    operator = _operator(GaussNewtonOperator, network)
    weights = parameter_vector(network.module)
    return float(weights.double() @ operator.matvec(weights).double())


def ascent_sharpness(network: TrainedNetwork) -> float:
    r"""Rise of the loss one step uphill, averaged over batches (m-sharpness).

    The mean over batches `B` of 128 rows of :math:`L_B(\theta + \rho\, g_B/|g_B|) -
    L_B(\theta)`, :math:`g_B` the gradient on the batch and :math:`\rho = 0.05`. Source:
    Foret et al. 2021. Invariances: none. Cost: one gradient and two losses a row.
    """
    problem = network.problem
    loss = problem.sample_loss()
    generator = torch.Generator().manual_seed(network.random_state)
    order = torch.randperm(len(problem.inputs), generator=generator).to(problem.inputs.device)
    weights = parameter_vector(network.module)
    rises = []
    for rows in order.split(_ASCENT_ROWS):
        inputs, targets = problem.inputs[rows], problem.targets[rows]
        gradient = gradient_of(network.module, loss, inputs, targets)
        step = _ASCENT_RADIUS * gradient / gradient.norm().clamp_min(1e-30)
        rise = loss_at(network.module, loss, inputs, targets, weights + step) - loss_at(
            network.module, loss, inputs, targets, weights
        )
        rises.append(rise * len(rows))
    return sum(rises) / len(problem.inputs)


def average_direction_sharpness(network: TrainedNetwork) -> float:
    r"""Rise of the loss in random directions.

    The mean over 20 draws of :math:`L(\theta + \epsilon) - L(\theta)` with
    :math:`\epsilon \sim N(0, 0.01^2 I)`, which is :math:`0.01^2\,\mathrm{tr} H / 2` to
    second order. Source: Andriushchenko and Flammarion 2022. Invariances: none. Cost: 21
    passes over the rows.
    """
    problem = network.problem
    loss = problem.sample_loss()
    weights = parameter_vector(network.module)
    generator = torch.Generator(device=weights.device).manual_seed(network.random_state)
    base = loss_at(network.module, loss, problem.inputs, problem.targets, weights)
    rises = []
    for _ in range(_NOISE_DRAWS):
        noise = torch.randn(
            weights.shape, generator=generator, dtype=weights.dtype, device=weights.device
        )
        moved = weights + _NOISE_SCALE * noise
        rises.append(loss_at(network.module, loss, problem.inputs, problem.targets, moved) - base)
    return sum(rises) / len(rises)


def relative_flatness(network: TrainedNetwork) -> float:
    r"""Relative flatness of the last dense layer.

    :math:`\sum_{s,s'} \langle w_s, w_{s'} \rangle\, \mathrm{tr}\, H_{s,s'}`, with
    :math:`w_s` the rows of the layer's weight and :math:`H_{s,s'}` the blocks of the Hessian
    in them; for the last layer :math:`H_{s,s'} = \frac1n \sum_i A_{i,ss'} h_i h_i^\top`
    exactly, with :math:`h_i` its inputs. Source: Petzka et al. 2021. Invariances: rescaling
    the last layer and its inputs against each other. Cost: one pass over the rows.
    """
    layers = [layer for layer in network.module.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise ValueError("relative flatness is taken at the last dense layer, and there is none")
    features: list[Tensor] = []
    outputs: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        features.append(inputs[0])
        outputs.append(output)

    hook = layers[-1].register_forward_hook(keep)
    try:
        with torch.no_grad():
            returned = network.module(network.problem.inputs)
    finally:
        hook.remove()
    if len(outputs) != 1 or not torch.equal(outputs[0], returned):
        raise ValueError(
            "relative flatness needs a dense layer whose outputs are the network's, used once a row"
        )
    problem = network.problem
    loss = problem.sample_loss()
    row_weights = loss.row_weights(problem.targets, problem.sample_weight)
    curvature = loss.curvature(returned.double(), problem.targets)
    weight = layers[-1].weight.detach().double()
    energy = features[0].double().square().sum(dim=1)
    blocks = torch.einsum("n,n,nst->st", row_weights, energy, curvature)
    return float((blocks * (weight @ weight.mT)).sum())


def _operator(
    kind: type[HessianOperator] | type[GaussNewtonOperator],
    network: TrainedNetwork,
    preconditioner: Tensor | None = None,
) -> HessianOperator | GaussNewtonOperator:
    problem = network.problem
    return kind(
        network.module,
        problem.sample_loss(),
        problem.inputs,
        problem.targets,
        sample_weight=problem.sample_weight,
        preconditioner=preconditioner,
    )


def _largest_eigenvalue(
    operator: HessianOperator | GaussNewtonOperator, random_state: int
) -> float:
    pairs = top_eigenpairs(operator, 1, tol=_TOLERANCE, random_state=random_state)
    return float(pairs.values[0])
