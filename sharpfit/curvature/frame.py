"""Tables of results."""

import importlib
import importlib.util
from typing import Any


def as_frame(columns: dict[str, Any]) -> Any:
    """Return columns as a pandas DataFrame, or as they are without pandas.

    Parameters
    ----------
    columns : dict of ndarray

    Returns
    -------
    pandas.DataFrame or dict of ndarray
    """
    if importlib.util.find_spec("pandas") is None:
        return columns
    return importlib.import_module("pandas").DataFrame(columns)
