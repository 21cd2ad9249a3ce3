"""The rows that a skorch network is training on."""

import random
import warnings
from typing import Any

import torch
from skorch.dataset import unpack_data
from skorch.utils import is_dataset
from torch.utils.data import Subset

from sharpfit.bridge import Problem, as_problem
from sharpfit.networks._randomness import accelerators_among, get_states, set_states


def training_problem(net: Any, dataset: Any, X: Any, y: Any) -> Problem:
    """Return the problem of the rows an epoch trains on.

    Parameters
    ----------
    net : skorch.NeuralNet
        In training.
    dataset : Dataset
        What the epoch reads, a part of the rows where others are for validation.
    X, y : array-like
        What the network is fitted on.

    Returns
    -------
    Problem
    """
    indices = None
    whole = dataset
    while isinstance(whole, Subset):
        part = torch.as_tensor(whole.indices)
        indices = part if indices is None else part[indices]
        whole = whole.dataset
    weights = getattr(whole, "sample_weight", None)
    if is_dataset(X):
        rows, targets = _collected(net, X)
    else:
        rows, targets = X, y
    if indices is not None:
        chosen = indices.numpy()
        rows, targets = rows[chosen], targets[chosen]
        weights = None if weights is None else weights[chosen]
    with warnings.catch_warnings():
        # The rows are those of the training part already.
        warnings.filterwarnings("ignore", message=".*train_split", category=UserWarning)
        return as_problem(net, rows, targets, prefit=True, sample_weight=weights)


def _collected(net: Any, dataset: Any) -> tuple[Any, Any]:
    """Read a data set once, in order; the global random states stay, whatever it draws."""
    devices = accelerators_among([torch.device(net.device)]) if net.device is not None else []
    states, python = get_states(devices), random.getstate()
    try:
        batches = [unpack_data(batch) for batch in net.get_iterator(dataset, training=False)]
    finally:
        set_states(states, devices)
        random.setstate(python)
    rows, targets = zip(*batches, strict=True)
    return torch.cat(rows).cpu().numpy(), torch.cat(targets).cpu().numpy()
