"""Sums over processes that each hold a shard of the rows."""

from typing import Literal

import torch
import torch.distributed as distributed
from torch import Tensor

GroupChoice = Literal["auto"] | distributed.ProcessGroup | None


def resolve_group(process_group: GroupChoice) -> distributed.ProcessGroup | None:
    """Return the group over which rows are sharded, or None for one process.

    Parameters
    ----------
    process_group : "auto", ProcessGroup or None
        ``"auto"`` is the default group when `torch.distributed` is initialised.

    Returns
    -------
    ProcessGroup or None
    """
    if process_group != "auto":
        return process_group
    if distributed.is_available() and distributed.is_initialized():
        return distributed.group.WORLD
    return None


def sum_over(group: distributed.ProcessGroup | None, tensor: Tensor) -> Tensor:
    """Sum a tensor over the processes of a group, in place.

    Parameters
    ----------
    group : ProcessGroup or None
    tensor : Tensor

    Returns
    -------
    Tensor
    """
    if group is not None:
        distributed.all_reduce(tensor, group=group)
    return tensor


def shared_seed(group: distributed.ProcessGroup | None, seed: int | None) -> int | None:
    """Return the first process's seed on all processes, drawn if it is None.

    Parameters
    ----------
    group : ProcessGroup or None
    seed : int or None

    Returns
    -------
    int or None
    """
    if group is None:
        return seed
    drawn = torch.Generator().seed() % 2**31 if seed is None else seed
    own = drawn if distributed.get_rank(group) == 0 else 0
    first = torch.tensor([own], device=_exchange_device(group))
    return int(sum_over(group, first).item())


def global_weights(
    group: distributed.ProcessGroup | None, weights: Tensor, sample_weight: Tensor | None
) -> Tensor:
    """Turn the row weights of a mean over a shard into those of the mean over all shards.

    Parameters
    ----------
    group : ProcessGroup or None
    weights : Tensor of shape (n,), float64
        Row weights when the shard is taken for the whole data set.
    sample_weight : Tensor of shape (n,) or None

    Returns
    -------
    Tensor of shape (n,), float64
    """
    if group is None:
        return weights
    counted = float(weights.shape[0]) if sample_weight is None else float(sample_weight.sum())
    # Weights are s_i / T with T additive over shards, so T follows from their sum.
    device = _exchange_device(group)
    own = torch.tensor(counted / float(weights.sum()), dtype=torch.float64, device=device)
    return weights * (own / sum_over(group, own.clone())).to(weights.device)


def _exchange_device(group: distributed.ProcessGroup) -> torch.device:
    """Return where a group takes small tensors: NCCL knows none but its process's GPU."""
    if distributed.get_backend(group) == distributed.Backend.NCCL:
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
