"""Whole Jacobians of a chunk of rows, by the cheapest exact route."""

import torch
from torch import Tensor

from sharpfit.jacobian.dense_chain import dense_chain_jacobians
from sharpfit.jacobian.linearisation import FrozenModule, Linearisation


def chunk_jacobians(module: FrozenModule, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Compute outputs and Jacobians of a chunk of rows.

    A chain of dense layers and elementwise activations is propagated layer by layer for
    all outputs at once. Otherwise rows of the Jacobian come from `C` backward passes, or its
    columns from `d` forward products, whichever are fewer.

    Parameters
    ----------
    module : FrozenModule
    inputs : Tensor of shape (n, ...)

    Returns
    -------
    outputs : Tensor of shape (n, C)
    jacobians : Tensor of shape (n, C, d)
    """
    if module.n_outputs <= module.n_features:
        chain = dense_chain_jacobians(module, inputs)
        if chain is not None:
            return chain
    linearisation = Linearisation(module, inputs)
    outputs = linearisation.outputs
    rows = len(inputs)
    jacobians = outputs.new_empty(rows, module.n_outputs, module.n_features)
    if module.n_outputs <= module.n_features:
        cotangent = torch.zeros_like(outputs)
        for output in range(module.n_outputs):
            cotangent[:, output] = 1.0
            gradient = linearisation.transposed_product(cotangent)
            jacobians[:, output] = gradient.reshape(rows, -1)
            cotangent[:, output] = 0.0
    else:
        tangent = inputs.new_zeros(rows, module.n_features)
        for feature in range(module.n_features):
            tangent[:, feature] = 1.0
            pushed = linearisation.product(tangent.view_as(inputs))
            jacobians[:, :, feature] = pushed
            tangent[:, feature] = 0.0
    return outputs, jacobians


def spectral_norms(jacobians: Tensor) -> Tensor:
    """Largest singular values, from Gram matrices of the smaller side in float64.

    Parameters
    ----------
    jacobians : Tensor of shape (n, C, d)

    Returns
    -------
    Tensor of shape (n,), float64
    """
    matrices = jacobians.double()
    if matrices.shape[1] > matrices.shape[2]:
        matrices = matrices.mT
    gram = matrices @ matrices.mT
    if gram.shape[1] == 1:
        return gram[:, 0, 0].sqrt()
    return torch.linalg.eigvalsh(gram)[:, -1].clamp_min(0.0).sqrt()
