"""Random halves of a sample, drawn before the data are looked at."""

import numpy as np

__all__ = ["random_halves"]


def random_halves(n_samples: int, n_splits: int, random_state: int) -> np.ndarray:
    """Draw the reference halves ``U``; the rest of the rows is the test half ``V``.

    The split depends on the number of rows and the seed alone, never on the data: given ``U``, the
    rows of ``V`` are then independent draws from the distribution of the sample. Stratified halves
    are not: they would need another theorem.

    Parameters
    ----------
    n_samples : int
        Number of rows, at least 2.
    n_splits : int
        Number of splits.
    random_state : int
        Seed. It has to be the same for everything that is compared, so ``None`` is refused.

    Returns
    -------
    ndarray of bool of shape (n_splits, n_samples)
        True for the ``n_samples // 2`` rows of the reference half.

    Raises
    ------
    ValueError
        If there are fewer than two rows or no split.
    TypeError
        If ``random_state`` is not an integer.

    Examples
    --------
    >>> random_halves(4, 1, 0).sum(axis=1)
    array([2])
    """
    if n_samples < 2:
        raise ValueError(f"n_samples={n_samples!r}: two halves need at least 2 rows.")
    if n_splits < 1:
        raise ValueError(f"n_splits={n_splits!r} must be at least 1.")
    if not isinstance(random_state, int | np.integer) or isinstance(random_state, bool):
        raise TypeError(
            f"random_state={random_state!r} must be an integer: the splits are part of the "
            "statement and must not be redrawn from one candidate to the next."
        )
    generator = np.random.default_rng(int(random_state))
    halves = np.zeros((n_splits, n_samples), dtype=bool)
    for half in halves:
        half[generator.permutation(n_samples)[: n_samples // 2]] = True
    return halves
