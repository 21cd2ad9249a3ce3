"""How many rows make a chunk."""

from numbers import Integral

import torch

from sharpfit.curvature.data import Rows
from sharpfit.curvature.kept_graph import saved_tensors
from sharpfit.curvature.linearisation import storage_bytes
from sharpfit.curvature.network import Network, differentiable_kernels

# Bytes of activations a chunk aims at. On the CPU larger buffers leave the cache and are
# returned to the system between products, which then faults their pages in again.
_TARGET_BYTES = {"cpu": 2**24, "cuda": 2**29}
# A product reads and writes all parameters once a chunk: they must not outweigh the rows.
_ACTIVATIONS_PER_PARAMETER = 4
# A second-order graph holds about three times the activations of the forward pass.
_STATE_PER_ACTIVATION = 3
_PROBE_ROWS = 8


def choose_batch_size(
    network: Network, rows: Rows, batch_size: int | str, memory_budget: int
) -> int:
    """Return the number of rows of a chunk.

    Parameters
    ----------
    network : Network
    rows : Rows
    batch_size : int or "auto"
    memory_budget : int
        Bytes; automatic chunks take a fourth of it at most.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If `batch_size` is neither a positive integer nor ``"auto"``.
    """
    if batch_size != "auto":
        if not isinstance(batch_size, Integral) or batch_size is True or batch_size < 1:
            raise ValueError(f"batch_size must be a positive integer or 'auto', got {batch_size!r}")
        return min(int(batch_size), len(rows))
    bytes_per_row = activation_bytes(network, rows)
    parameter_bytes = storage_bytes(network.parameters)
    target = max(
        _TARGET_BYTES.get(network.device.type, _TARGET_BYTES["cpu"]),
        _ACTIVATIONS_PER_PARAMETER * parameter_bytes,
    )
    target = min(target, memory_budget // (4 * _STATE_PER_ACTIVATION))
    wanted = max(int(target // bytes_per_row), 1)
    n_chunks = -(-len(rows) // wanted)
    # Even chunks: one short remainder costs a trace of its own, and time.
    return -(-len(rows) // n_chunks)


def activation_bytes(network: Network, rows: Rows) -> float:
    """Return the bytes one row adds to what a forward pass saves.

    Parameters
    ----------
    network : Network
    rows : Rows

    Returns
    -------
    float
    """
    inputs = rows.first(_PROBE_ROWS)
    with torch.enable_grad(), differentiable_kernels():
        outputs = network.module(inputs)
    held = [*network.module.parameters(), *network.module.buffers(), inputs]
    return max(storage_bytes(saved_tensors([outputs]), without=held) / inputs.shape[0], 1.0)
