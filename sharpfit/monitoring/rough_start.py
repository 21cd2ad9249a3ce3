"""An eigenvector on few rows, from which a measurement on all rows starts."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sharpfit.monitoring.tracker import EigenvalueTracker
from sharpfit.monitoring.watched_network import WatchedNetwork
from sharpfit.objective import SampleLoss

_PART = 8  # one row in so many
_LEAST_ROWS = 128
_PRODUCTS = 8


class RoughStart:
    """Approximate the top eigenvector of a Hessian by that on an eighth of the rows.

    It is no result, only a place to start from: three products with all rows then bring the
    largest eigenvalue about as close as eight that start from noise.

    Parameters
    ----------
    inputs : Tensor of shape (n, ...)
        All rows.
    targets : Tensor of shape (n, ...)
        Their targets.
    sample_weight : Tensor of shape (n,) or None
        Weights in the loss.
    memory_budget : int
        Bytes of what their Hessian keeps between products, and of the basis.
    random_state : int
        Seed of the part.

    Attributes
    ----------
    n_products : int
        What the last vector took, in products with all rows, rounded up.
    """

    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        sample_weight: Tensor | None,
        *,
        memory_budget: int,
        random_state: int,
    ) -> None:
        self._data = (inputs, targets, sample_weight)
        self._memory_budget = memory_budget
        self._random_state = random_state
        self.n_products = 0

    def vector(
        self,
        module: nn.Module,
        criterion: nn.Module | SampleLoss,
        parameters: Sequence[str],
        row_weights: Tensor,
        hint: Tensor,
        *,
        criterion_takes_log: bool = False,
    ) -> Tensor | None:
        """Return an approximate eigenvector at the module's present values.

        Parameters
        ----------
        module : torch.nn.Module
            In any mode; a copy in evaluation mode is differentiated.
        criterion : torch.nn.Module or SampleLoss
            Criterion, or the loss of the logits; a copy is evaluated.
        parameters : sequence of str
            Names of the trained parameters.
        row_weights : Tensor of shape (n,), float64
            Weights of all rows in the loss; those of zero are left out.
        hint : Tensor of shape (P,)
            The gradient of the loss.
        criterion_takes_log : bool, default=False
            See `sharpfit.objective.split_head`.

        Returns
        -------
        Tensor of shape (P,), or None
            None where there are too few rows for a part to be like them, or none of a part counts
            in the loss.
        """
        self.n_products = 0
        counted = row_weights.nonzero().squeeze(1).cpu()
        size = max(len(counted) // _PART, _LEAST_ROWS)
        if size * _PART > 2 * len(counted):
            return None
        generator = torch.Generator().manual_seed(self._random_state)
        chosen = counted[torch.randperm(len(counted), generator=generator)[:size]]
        rows = chosen.sort().values.to(row_weights.device)
        inputs, targets, sample_weight = (None if t is None else t[rows] for t in self._data)
        assert inputs is not None
        assert targets is not None
        network = WatchedNetwork(
            inputs, targets, sample_weight, batch_size="auto", memory_budget=self._memory_budget
        )
        tracker = EigenvalueTracker(
            max_products=_PRODUCTS,
            memory_budget=self._memory_budget,
            random_state=self._random_state,
        )
        try:
            operator = network.load(
                module, criterion, parameters, criterion_takes_log=criterion_takes_log
            )
            pairs = tracker.measure(operator, hint)
        except ValueError:  # all rows, of which the loss is known, say what there is to say
            return None
        self.n_products = math.ceil(pairs.n_products * size / len(row_weights))
        return pairs.vectors[:, 0]
