"""Flatness of the last layer in units of its own weights."""

import torch
from torch import Tensor, nn

from sharpfit.measures.trained_network import TrainedNetwork


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
