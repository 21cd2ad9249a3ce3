"""What a bound says, in one line."""

import math

__all__ = ["statement"]


def statement(
    bound: float, *, certified: bool, confidence: float, loss_bound: float | None = None
) -> str:
    """Say what a bound says, and of which kind it is.

    Parameters
    ----------
    bound : float
        The bound.
    certified : bool
        Whether it is a certificate.
    confidence : float
        Probability with which it holds.
    loss_bound : float, optional
        Clipping residual of a regression.

    Returns
    -------
    str
        The bound is written with two digits, rounded upwards.

    Examples
    --------
    >>> statement(0.0533, certified=True, confidence=0.95)
    'certified: error <= 0.054 with confidence 95 %'
    >>> statement(0.9978, certified=False, confidence=0.95)
    'estimate: error <= 0.9978 with confidence 95 %'
    """
    kind = "certified" if certified else "estimate"
    what = "error" if loss_bound is None else f"clipped loss / {loss_bound:g}"
    if not math.isfinite(bound):
        return f"vacuous ({kind}): {what} has no finite bound here"
    decimals = max(2, 1 - math.floor(math.log10(bound))) if bound > 0 else 2
    if 0.99 < bound < 1.0:  # two digits of what is left, so that it does not read as 1
        decimals = 1 - math.floor(math.log10(1.0 - bound))
    rounded = f"{math.ceil(bound * 10**decimals) / 10**decimals:.{decimals}f}"
    if bound >= 1.0:
        return f"vacuous ({kind}): {what} <= {rounded} says nothing"
    return f"{kind}: {what} <= {rounded} with confidence {100 * confidence:.4g} %"
