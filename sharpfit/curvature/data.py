"""The rows a loss is taken over, from tensors, data sets or loaders, in chunks."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
)

from sharpfit.curvature.linearisation import Chunk

Source = Tensor | Dataset | DataLoader


@dataclass(frozen=True)
class Rows:
    """Rows of a data set with their targets.

    Attributes
    ----------
    source : Tensor, Dataset or DataLoader
        Inputs as a tensor, or a map-style data set that yields ``(input, target)``.
    targets : Tensor of shape (n, ...)
        Targets of all rows.
    weights : Tensor of shape (n,), float64
        Row weights of the loss.
    device : torch.device
        Where chunks are moved to.
    dtype : torch.dtype
        What floating inputs are converted to.
    """

    source: Source
    targets: Tensor
    weights: Tensor
    device: torch.device
    dtype: torch.dtype

    def __len__(self) -> int:
        return self.targets.shape[0]

    def chunks(self, size: int, start: int = 0) -> Iterator[Chunk]:
        """Yield the rows from `start` on in order, `size` at a time."""
        for inputs in self._inputs(size, start):
            stop = start + inputs.shape[0]
            weights = self.weights[start:stop].to(self.device, self.dtype)
            targets = self.targets[start:stop].to(self.device)
            if targets.is_floating_point():
                targets = targets.to(self.dtype)
            yield Chunk(self._place(inputs), targets, weights.unsqueeze(1), start)
            start = stop

    def first(self, count: int) -> Tensor:
        """Return the inputs of the first rows."""
        return self._place(next(self._inputs(count, 0)))

    def _inputs(self, size: int, start: int) -> Iterator[Tensor]:
        if start >= len(self):
            return
        if isinstance(self.source, Tensor):
            yield from (self.source[i : i + size] for i in range(start, len(self), size))
        else:
            for inputs, _ in ordered_loader(self.source, size, start):
                yield inputs

    def source_example(self) -> Tensor:
        """Return the first row as the source holds it."""
        return next(self._inputs(1, 0))

    def _place(self, inputs: Tensor) -> Tensor:
        return inputs.to(self.device, self.dtype if inputs.is_floating_point() else None)


def ordered_loader(source: Dataset | DataLoader, size: int, start: int = 0) -> DataLoader:
    """Return a loader over the rows of a data set or of another loader, in order.

    A shuffling or sampling loader yields other rows, or the same in another order, at
    every pass, and drawing them would advance the global random state.

    Parameters
    ----------
    source : Dataset or DataLoader
    size : int
        Rows in a batch.
    start : int, default=0
        First row.

    Returns
    -------
    DataLoader
    """
    settings: dict[str, Any] = {"batch_size": size, "shuffle": False}
    if isinstance(source, DataLoader):
        settings |= {
            "collate_fn": source.collate_fn,
            "num_workers": source.num_workers,
            "pin_memory": source.pin_memory,
        }
        source = source.dataset
    if start:
        source = Subset(source, range(start, len(source)))  # type: ignore[arg-type]
    # Its own generator: a loader without one draws a seed from the global random state.
    return DataLoader(source, generator=torch.Generator().manual_seed(0), **settings)


def collect_targets(source: Dataset | DataLoader) -> Tensor:
    """Read the targets of a data set, one pass over it.

    Parameters
    ----------
    source : Dataset or DataLoader

    Returns
    -------
    Tensor of shape (n, ...)

    Raises
    ------
    TypeError
        If the data set cannot be read twice in the same order, or yields no pairs.
    ValueError
        If it has no rows, or a loader's sampler draws others than each of them once. What
        ``drop_last`` would leave out is read all the same.
    """
    dataset = source.dataset if isinstance(source, DataLoader) else source
    if isinstance(dataset, IterableDataset):
        raise TypeError(
            f"inputs is {type(dataset).__name__}, an IterableDataset; products pass over the rows "
            "many times in one order, so give a map-style data set (with __getitem__ and __len__)"
        )
    if isinstance(source, DataLoader):
        _check_sampler(source)
    found = []
    for batch in ordered_loader(source, 256):
        if not (isinstance(batch, list | tuple) and len(batch) == 2):
            raise TypeError(
                f"inputs is {type(dataset).__name__}, whose batches are {type(batch).__name__}; "
                "expected pairs (inputs, targets) of tensors"
            )
        inputs, targets = batch
        if not isinstance(inputs, Tensor) or not isinstance(targets, Tensor):
            raise TypeError(
                f"inputs is {type(dataset).__name__}, whose batches hold "
                f"{type(inputs).__name__} and {type(targets).__name__}; expected two tensors"
            )
        found.append(targets)
    if not found:
        raise ValueError(f"inputs is {type(dataset).__name__}, which has no rows")
    return torch.cat(found)


def _check_sampler(loader: DataLoader) -> None:
    """Refuse a loader that draws other rows than those of its data set, each once."""
    batches = loader.batch_sampler
    drawn: Any = loader.sampler if batches is None else batches
    if type(drawn) is BatchSampler:
        drawn = drawn.sampler
    count = len(loader.dataset)  # type: ignore[arg-type]
    in_order = isinstance(drawn, SequentialSampler) and len(drawn) == count
    shuffled = isinstance(drawn, RandomSampler) and not drawn.replacement
    if in_order or drawn == range(count) or (shuffled and drawn.num_samples == count):
        return
    raise ValueError(
        f"inputs is a DataLoader that draws rows by {type(drawn).__name__}, and products are "
        "taken over every row of a data set once; give the data set of the rows that are meant, "
        "such as torch.utils.data.Subset(dataset, indices)"
    )
