"""Telling how far a walk through the rows has come."""

from collections.abc import Iterable, Iterator

from sharpfit.jacobian.arguments import check_count


def followed(
    chunks: Iterable[slice], n_rows: int, *, name: str, verbose: int = 0
) -> Iterator[slice]:
    """Yield chunks of rows and print, after some of them, how many rows are done.

    Parameters
    ----------
    chunks : iterable of slice
        In the order of the rows.
    n_rows : int
        Number of all rows.
    name : str
        Of the work.
    verbose : int, default=0
        Print one line per this many chunks; none if 0.

    Yields
    ------
    slice

    Examples
    --------
    >>> from sharpfit.jacobian.progress import followed
    >>> for rows in followed([slice(0, 5), slice(5, 8)], 8, name="slopes", verbose=1):
    ...     pass
    [slopes] 5 of 8 rows
    [slopes] 8 of 8 rows
    """
    check_count("verbose", verbose, smallest=0)
    for number, rows in enumerate(chunks, start=1):
        yield rows
        if verbose and number % verbose == 0:
            print(f"[{name}] {rows.stop} of {n_rows} rows", flush=True)
