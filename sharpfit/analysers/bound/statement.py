"""What a bound says, in one line."""

import math
from decimal import Decimal

__all__ = ["floor_statement", "statement"]


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
    >>> statement(0.25, certified=True, confidence=0.999, loss_bound=2.0)
    'certified: mean of min(1, |f(x) - y| / 2) <= 0.25 with confidence 99.9 %'
    """
    kind = "certified" if certified else "estimate"
    what = "error" if loss_bound is None else f"mean of min(1, |f(x) - y| / {loss_bound:g})"
    if not math.isfinite(bound):
        return f"vacuous ({kind}): {what} has no finite bound here"
    decimals = max(2, 1 - math.floor(math.log10(bound))) if bound > 0 else 2
    if 0.99 < bound < 1.0:  # two digits of what is left, so that it does not read as 1
        decimals = 1 - math.floor(math.log10(1.0 - bound))
    rounded = f"{math.ceil(bound * 10**decimals) / 10**decimals:.{decimals}f}"
    if bound >= 1.0:
        return f"vacuous ({kind}): {what} <= {rounded} says nothing"
    # As it was written, so that 99.9999 % does not read as 100 %.
    percent = f"{(100 * Decimal(str(confidence))).normalize():f}"
    return f"{kind}: {what} <= {rounded} with confidence {percent} %"


def floor_statement(floors: dict[str, dict[str, float]]) -> str:
    """Say what no network gets below, and which metric would help.

    Parameters
    ----------
    floors : dict of str to dict of str to float
        By name of the metric, ``"current"`` first, the floors by form.

    Returns
    -------
    str
        One line a form, and one on the metrics. Floors are written with two digits, rounded
        downwards.

    Examples
    --------
    >>> print(floor_statement({"current": {"transport": 0.934, "best": 0.95},
    ...                        "PCA": {"transport": 0.41, "best": 0.43}}))
    no network gets below 0.93 from the transport form on these rows in this metric
    no network gets below 0.95 from the best of the forms on these rows in this metric
    PCA would help: there the floor of the best form is 0.43
    """
    own = floors["current"]
    lines = []
    for form, floor in own.items():
        name = "best of the forms" if form == "best" else f"{form} form"
        lines.append(
            f"no network gets below {_rounded_down(floor)} from the {name} on these rows in this "
            "metric"
        )
    others = {
        name: _rounded_down(other["best"]) for name, other in floors.items() if name != "current"
    }
    better = [name for name in others if float(others[name]) < float(_rounded_down(own["best"]))]
    lines += [
        f"{name} would help: there the floor of the best form is {others[name]}"
        for name in sorted(better, key=lambda name: float(others[name]))
    ]
    if others and not better:
        lines.append(f"none of the other metrics would help: {', '.join(others)}")
    elif not others and own["best"] >= 0.5:
        lines.append(
            "another metric may help: features fixed in advance, or learnt on one half of the rows "
            "with HalfFeatures"
        )
    return "\n".join(lines)


def _rounded_down(value: float) -> str:
    return f"{math.floor(value * 100) / 100:.2f}"
