"""The rows of one training run as skorch's loaders and callbacks see them."""

from collections.abc import Iterator

import torch
from skorch.dataset import Dataset
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
)

# Loader options under which whole batches can be sliced out of the arrays at once.
SLICING_OPTIONS = frozenset({"batch_size", "shuffle", "drop_last"})


class TrainingRows(Dataset):
    """Rows of a network's training set, with encoded targets and sample weights.

    Batches hold encoded targets, as the loss needs them. The attribute ``y`` keeps the labels as
    they were given, so that a scoring callback which predicts the rows anew compares like with
    like.

    Parameters
    ----------
    rows : torch.utils.data.Dataset
        Yields ``(input, encoded target)``.
    X : tensor of shape (n, ...)
        The inputs in `rows`.
    y : ndarray of shape (n, ...)
        Targets as given.
    sample_weight : tensor of shape (n,), default=None
        If given, items are ``((input, encoded target), weight)``.
    """

    def __init__(self, rows, X: torch.Tensor, y, sample_weight: torch.Tensor | None) -> None:
        super().__init__(X, y, length=len(rows))
        self.rows = tensors_of(rows)
        self.sample_weight = sample_weight

    def __getitem__(self, index):
        if self.sample_weight is None:
            return self.rows[index]
        return self.rows[index], self.sample_weight[index]


class WeightedBatches:
    """Batches of a loader over weighted rows, as the pairs ``(inputs, targets)`` skorch expects.

    The weights travel on the targets, as their attribute ``sample_weight``: whoever computes a
    loss of these targets has their weights at hand, and skorch's callbacks need not know them.

    Parameters
    ----------
    loader : iterable of ((inputs, targets), weights)
        The loader.
    """

    def __init__(self, loader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator:
        for (inputs, targets), weights in self.loader:
            targets.sample_weight = weights
            yield inputs, targets


def reordered(targets: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Return the targets of a batch in another order, their weights with them."""
    order = order.to(targets.device)
    result = targets[order]
    if hasattr(targets, "sample_weight"):
        result.sample_weight = targets.sample_weight[order]
    return result


def underlying_dataset(dataset):
    """Return the data set of which `dataset` is a (nested) subset, or itself."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return dataset


def tensors_of(dataset):
    """Return a plain skorch data set of tensors as a ``TensorDataset``, others as they are."""
    if type(dataset) is not Dataset or not isinstance(dataset.X, torch.Tensor):
        return dataset
    targets = dataset.X.new_zeros(len(dataset)) if dataset.y is None else dataset.y
    return TensorDataset(dataset.X, targets)


def can_slice(dataset) -> bool:
    """Whether indexing `dataset` with a list of positions returns a batch of tensors."""
    dataset = underlying_dataset(dataset)
    return isinstance(getattr(dataset, "rows", dataset), TensorDataset)


def slicing_loader(
    dataset, *, batch_size: int, shuffle: bool = False, drop_last: bool = False
) -> DataLoader:
    """Return a loader that slices whole batches instead of collating them row by row."""
    order = RandomSampler(dataset) if shuffle else SequentialSampler(dataset)
    return DataLoader(dataset, sampler=BatchSampler(order, batch_size, drop_last), batch_size=None)
