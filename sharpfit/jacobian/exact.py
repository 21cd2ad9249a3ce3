"""Whole Jacobians of chunks of rows, by the cheapest exact route."""

import torch
from torch import Tensor

from sharpfit.jacobian.dense_chain import DenseChain
from sharpfit.jacobian.linearisation import FrozenModule, Linearisation

# Every layer of a chain reads and writes all of its buffers: they belong in a nearer cache.
_NEAR = 5


class ExactJacobians:
    """Outputs and whole Jacobians of a module, chunk by chunk.

    A chain of dense layers and elementwise activations is propagated layer by layer for
    all outputs at once. Otherwise rows of the Jacobian come from `C` backward passes, or its
    columns from `d` forward products, whichever are fewer.

    Parameters
    ----------
    module : FrozenModule
    inputs : Tensor of shape (n, ...)
        All rows; two of them show which route is open.

    Attributes
    ----------
    row_bytes : int
        Bytes that the work on one row takes.
    """

    def __init__(self, module: FrozenModule, inputs: Tensor):
        self._module = module
        self._by_rows = module.n_outputs <= module.n_features
        self._chain: DenseChain | None = None
        jacobian_bytes = inputs.element_size() * module.n_outputs * module.n_features
        if self._by_rows:
            chain = DenseChain(module)
            chain_bytes = chain.row_bytes(inputs[:2])
            if chain_bytes is not None:
                self._chain = chain
                self.row_bytes = _NEAR * (chain_bytes + 3 * jacobian_bytes)
                return
        self.row_bytes = 2 * module.graph_bytes(inputs) + 4 * jacobian_bytes

    def __call__(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Compute outputs and Jacobians of a chunk.

        Parameters
        ----------
        inputs : Tensor of shape (n, ...)

        Returns
        -------
        outputs : Tensor of shape (n, C)
        jacobians : Tensor of shape (n, C, d)
            Valid until the next call, which may reuse the memory.
        """
        if self._chain is not None:
            found = self._chain(inputs)
            if found is not None:
                return found
        linearisation = Linearisation(self._module, inputs)
        return linearisation.outputs, self._by_products(linearisation)

    def _by_products(self, linearisation: Linearisation) -> Tensor:
        outputs, inputs = linearisation.outputs, linearisation.inputs
        rows = len(inputs)
        jacobians = outputs.new_empty(rows, self._module.n_outputs, self._module.n_features)
        if self._by_rows:
            cotangent = torch.zeros_like(outputs)
            for output in range(self._module.n_outputs):
                cotangent[:, output] = 1.0
                gradient = linearisation.transposed_product(cotangent)
                jacobians[:, output] = gradient.reshape(rows, -1)
                cotangent[:, output] = 0.0
        else:
            tangent = outputs.new_zeros(rows, self._module.n_features)
            for feature in range(self._module.n_features):
                tangent[:, feature] = 1.0
                jacobians[:, :, feature] = linearisation.product(tangent.view_as(inputs))
                tangent[:, feature] = 0.0
        return jacobians
