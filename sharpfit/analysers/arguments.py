"""Arguments of analysers in the forms users give them."""

from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state


def as_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """Return a floating torch dtype given as such or by name; None stays None."""
    if dtype is None:
        return None
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not getattr(found, "is_floating_point", False):
        raise ValueError(
            f'dtype={dtype!r} must be a floating torch dtype such as "float64", or None.'
        )
    return found


def as_seed(random_state: Any) -> int | None:
    """Draw a seed; None leaves it to torch, as numpy's global state is not ours to advance."""
    if random_state is None:
        return None
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))
