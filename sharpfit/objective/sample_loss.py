"""The per-sample loss on logits or predictions, and its derivatives."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor

Task = Literal["classification", "regression"]
Reduction = Literal["mean", "sum"]


class SampleLoss(ABC):
    r"""A loss that is a weighted sum over samples, :math:`L = \sum_i a_i\, l(z_i, y_i)`.

    Here :math:`z_i` are the network's logits (classification) or predictions
    (regression), class weights are part of :math:`l`, and the row weights :math:`a_i`
    carry the reduction: ``1/n`` for a mean, ``1`` for a sum, and one over the summed
    class weights for PyTorch's class-weighted mean.

    Subclasses implement `values`; the derivatives below follow by automatic
    differentiation and are overridden where a closed form exists.

    Attributes
    ----------
    task : {"classification", "regression"}
        Kind of targets.
    reduction : {"mean", "sum"}
        How the criterion combines the samples of one batch.
    """

    task: Task
    reduction: Reduction

    @abstractmethod
    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Loss of every sample, class weights included.

        Parameters
        ----------
        outputs : Tensor of shape (n, C)
            Logits or predictions.
        targets : Tensor of shape (n,) or (n, C)
            Class numbers, class probabilities or real targets.

        Returns
        -------
        Tensor of shape (n,)
        """

    def row_weights(self, targets: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        r"""Weights `a_i` of the samples when `targets` is the whole data set.

        With sample weights :math:`s_i` a sum has :math:`a_i = s_i` and a mean
        :math:`a_i = s_i / \sum_j s_j w_j`, where :math:`w_j` is the class weight of
        sample `j` (1 without class weights).

        Parameters
        ----------
        targets : Tensor of shape (n, ...)
            Targets of all samples over which the loss is taken.
        sample_weight : Tensor of shape (n,), optional
            Non-negative weights.

        Returns
        -------
        Tensor of shape (n,), float64

        Raises
        ------
        ValueError
            If all weights are zero.
        """
        count = targets.shape[0]
        weights = torch.ones(count, dtype=torch.float64, device=targets.device)
        if sample_weight is not None:
            weights = sample_weight.to(weights).reshape(count)
        if self.reduction == "sum":
            return weights.clone()
        total = (weights * self._counts(targets)).sum()
        if not bool(total > 0):
            raise ValueError(
                "the weights of all samples are zero, so their mean loss does not exist; "
                "give at least one sample (of a class that counts) a positive weight"
            )
        return weights / total

    def _counts(self, targets: Tensor) -> Tensor:
        """How much each sample counts in the denominator of a mean."""
        return torch.ones(targets.shape[0], dtype=torch.float64, device=targets.device)

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Gradient of the per-sample loss in the outputs.

        Parameters
        ----------
        outputs : Tensor of shape (n, C)
        targets : Tensor of shape (n, ...)

        Returns
        -------
        Tensor of shape (n, C)
        """
        return torch.func.vmap(torch.func.grad(self._one_value))(outputs, targets)

    def curvature(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Hessian `A_i` of the per-sample loss in the outputs.

        Parameters
        ----------
        outputs : Tensor of shape (n, C)
        targets : Tensor of shape (n, ...)

        Returns
        -------
        Tensor of shape (n, C, C)
        """
        return torch.func.vmap(torch.func.jacrev(torch.func.grad(self._one_value)))(
            outputs, targets
        )

    def curvature_product(self, outputs: Tensor, targets: Tensor, vectors: Tensor) -> Tensor:
        """Products `A_i v_i` of the per-sample curvature with one vector a sample.

        Parameters
        ----------
        outputs : Tensor of shape (n, C)
        targets : Tensor of shape (n, ...)
        vectors : Tensor of shape (n, C)

        Returns
        -------
        Tensor of shape (n, C)
        """
        return torch.einsum("nij,nj->ni", self.curvature(outputs, targets), vectors)

    def curvature_map(self, outputs: Tensor, targets: Tensor) -> Callable[[Tensor], Tensor]:
        """Return `curvature_product` as a function of the vectors, for many of them.

        Parameters
        ----------
        outputs : Tensor of shape (n, C)
        targets : Tensor of shape (n, ...)

        Returns
        -------
        callable
            From vectors of shape (n, C) to a new tensor of that shape.
        """
        return partial(self.curvature_product, outputs, targets)

    def curvature_root(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Matrices `B_i` with ``A_i = B_i @ B_i.T``.

        Parameters
        ----------
        outputs : Tensor of shape (n, C)
        targets : Tensor of shape (n, ...)

        Returns
        -------
        Tensor of shape (n, C, C)

        Raises
        ------
        ValueError
            If the loss is not convex in the outputs of some sample.
        """
        eigenvalues, vectors = torch.linalg.eigh(self.curvature(outputs, targets).double())
        tolerance = 1e-6 * eigenvalues.abs().amax(dim=1).clamp_min(1e-30)
        if bool((eigenvalues[:, 0] < -tolerance).any()):
            raise ValueError(
                f"{self} is not convex in the network's outputs, so its curvature has no "
                "square root; use the Hessian instead of the Gauss-Newton matrix's conjugate form"
            )
        root = vectors * eigenvalues.clamp_min(0.0).sqrt().unsqueeze(1)
        return root.to(outputs.dtype)

    def _one_value(self, output: Tensor, target: Tensor) -> Tensor:
        return self.values(output.unsqueeze(0), target.unsqueeze(0)).squeeze(0)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(reduction={self.reduction!r})"
