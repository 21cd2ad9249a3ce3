"""Seeded random vectors that leave the global random state alone."""

import torch
from torch import Tensor


def as_generator(random_state: int | torch.Generator | None) -> torch.Generator:
    """Return a CPU generator for a seed.

    Random vectors are drawn on the CPU and moved, so that a seed means the same on every device.

    Parameters
    ----------
    random_state : int, torch.Generator or None
        A seed; a generator, which is used and advanced; or None for a fresh, unpredictable seed.

    Returns
    -------
    torch.Generator

    Raises
    ------
    TypeError
        If `random_state` is anything else.

    Examples
    --------
    >>> from sharpfit.linalg import as_generator
    >>> as_generator(0).initial_seed()
    0
    """
    if isinstance(random_state, torch.Generator):
        if random_state.device.type != "cpu":
            raise TypeError(
                f"random_state is a generator on {random_state.device}; give one on the CPU."
            )
        return random_state
    generator = torch.Generator()
    if random_state is None:
        generator.seed()
        return generator
    if isinstance(random_state, bool) or not hasattr(random_state, "__index__"):
        raise TypeError(
            f"random_state must be an int, a torch.Generator or None, got {random_state!r}."
        )
    return generator.manual_seed(random_state.__index__())


def rademacher(size: int, count: int, generator: torch.Generator) -> Tensor:
    """Draw independent random signs.

    Parameters
    ----------
    size : int
        Entries of one vector.
    count : int
        Number of vectors.
    generator : torch.Generator
        Source of randomness, on the CPU.

    Returns
    -------
    Tensor of shape (size, count), float64
    """
    signs = torch.randint(0, 2, (count, size), generator=generator, dtype=torch.int8)
    return (2 * signs - 1).to(torch.float64).T
