"""The measurements of a watched training, wherever they are."""

from collections.abc import Sequence
from typing import Any

from skorch import NeuralNet
from skorch.history import History

from sharpfit.bridge import unwrap
from sharpfit.monitoring.sharpness_monitor import SharpnessMonitor

_REMEDY = (
    "train with a SharpnessMonitor among the callbacks, or call its update in a loop of your own"
)


def training_records(training: Any) -> Sequence[dict[str, Any]]:
    """Return the records of a training.

    Parameters
    ----------
    training : estimator object, SharpnessMonitor, History or sequence of dict
        A trained network or what is around it, a monitor, a history, or records.

    Returns
    -------
    sequence of dict

    Raises
    ------
    TypeError
        If it is none of these.
    ValueError
        If nothing was measured.
    """
    if isinstance(training, SharpnessMonitor):
        records: Any = getattr(training, "records_", [])
    elif isinstance(training, History):
        records = SharpnessMonitor.records_of(training)
    elif hasattr(training, "get_params"):
        records = _of_network(unwrap(training).network)
    else:
        records = training
    is_sequence = isinstance(records, Sequence) and not isinstance(records, str)
    if not is_sequence or not all(_is_record(record) for record in records):
        raise TypeError(
            "training must be a network trained with a SharpnessMonitor, the monitor or its "
            f"records, got {type(training).__name__}."
        )
    if not records:
        raise ValueError(f"{type(training).__name__} holds no measurements: {_REMEDY}.")
    return records


def _is_record(record: Any) -> bool:
    return isinstance(record, dict) and {"update", "sharpness"} <= record.keys()


def _of_network(network: NeuralNet) -> list[dict[str, Any]]:
    if not getattr(network, "history_", None):
        raise ValueError(f"{type(network).__name__} is not trained: {_REMEDY}.")
    return SharpnessMonitor.records_of(network.history)
