"""A reading of a monitored training in words, with its numbers."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sharpfit.monitoring.training_records import training_records

__all__ = ["Diagnosis", "diagnose"]

_EDGE = 0.9
_CHANGE = 0.05  # relative changes below this are not told


@dataclass(frozen=True)
class Diagnosis:
    """What a training's measurements say; every statement is an estimate.

    Attributes
    ----------
    statements : tuple of str
        One sentence each; ``str()`` joins them.
    edge_update : int or None
        First measured update at which the trained sharpness was at least nine tenths of the
        stability limit; None if it never was, or no limit is known.
    part_at_edge : float
        Part of the measurements from then on that were at the edge too; NaN without an edge.
    loss_rises : int
        Rises of the loss between measurements from the edge on, in the whole training without one.
    sharpness_ratio : float
        Last sharpness over the first.
    jacobian_ratio : float
        Last largest Jacobian norm over the first.
    gauss_newton_share : float
        Share of the Gauss-Newton part in the last sharpness.
    layer : str or None
        Layer with the largest part of the last top eigenvector; None if none was recorded.
    layer_share : float
        That part, of its squared length.
    floor_share : float
        Last floor from the Jacobian over the last sharpness; NaN if none is known.
    """

    statements: tuple[str, ...]
    edge_update: int | None
    part_at_edge: float
    loss_rises: int
    sharpness_ratio: float
    jacobian_ratio: float
    gauss_newton_share: float
    layer: str | None
    layer_share: float
    floor_share: float

    def __str__(self) -> str:
        return " ".join(self.statements)


def diagnose(training: Any) -> Diagnosis:
    """Read a training watched by a `SharpnessMonitor`.

    Progressive sharpening and the edge of stability are those of Cohen et al. (2021) for full-batch
    descent; the stability limit ignores the noise of mini-batches and sees networks in evaluation
    mode. That flat networks can have large Jacobians once the loss curvature has vanished is the
    mitigating factor of MacDonald, Valmadre and Lucey (2023).

    Parameters
    ----------
    training : estimator object, SharpnessMonitor or sequence of dict
        A network trained with a monitor among its callbacks or a pipeline, search or the like
        around it, the monitor, or its records.

    Returns
    -------
    Diagnosis

    Raises
    ------
    TypeError
        If `training` is none of these.
    ValueError
        If there are fewer than two measurements.

    Examples
    --------
    >>> from sharpfit.monitoring import diagnose
    >>> names = ("loss", "sharpness", "trained_sharpness", "stability_limit", "jacobian_max",
    ...          "gauss_newton_part")
    >>> rows = [(1.0, 2.0, 2.0, 10.0, 1.0, 2.0), (0.5, 9.5, 9.5, 10.0, 3.0, 9.5)]
    >>> records = [dict(zip(names, row)) | {"update": k} for k, row in enumerate(rows)]
    >>> print(diagnose(records).statements[0])
    Sharpness reached the stability limit at update 1 (9.5 of 10) and was there in 100 % of the \
measurements since.
    """
    records = training_records(training)
    usable = [record for record in records if np.isfinite(record["sharpness"])]
    problems = [record["problem"] for record in records if record.get("problem")]
    if len(usable) < 2:
        count = f"{len(usable)} measurement{'s' * (len(usable) != 1)}"
        remedy = "measure more often, as with SharpnessMonitor(every=10), or train longer"
        if problems:
            remedy = f"{len(problems)} failed: {problems[-1]}"
        raise ValueError(f"there {_be(len(usable))} {count}, too few to read; {remedy}.")
    columns = {
        name: np.array([record.get(name, np.nan) for record in usable], dtype=np.float64)
        for name in (
            "update",
            "loss",
            "sharpness",
            "trained_sharpness",
            "stability_limit",
            "jacobian_max",
            "loss_curvature",
            "gauss_newton_part",
        )
    }
    sharpness, jacobian = columns["sharpness"], columns["jacobian_max"]
    at_edge = columns["trained_sharpness"] >= _EDGE * columns["stability_limit"]
    edge = int(np.argmax(at_edge)) if at_edge.any() else None
    rises = int(np.sum(np.diff(columns["loss"][edge or 0 :]) > 0))
    sharpened, steepened = _ratio(sharpness), _ratio(jacobian)
    share = float(columns["gauss_newton_part"][-1] / sharpness[-1]) if sharpness[-1] else np.nan
    reason = usable[-1].get("stability_statement", "no optimiser was given")
    statements = [
        _about_edge(columns, at_edge, edge, rises, reason),
        _about_trend(sharpness, sharpened),
    ]
    if np.isfinite(steepened):
        statements.append(_about_jacobian(sharpened, steepened, columns))
    if np.isfinite(share):
        statements.append(
            f"At the end the Gauss-Newton part is {share:.0%} of the sharpness; "
            f"{round(1 - share, 2) + 0.0:.0%} is from the curvature of the network's outputs."
        )
    shares = {name: found["share"] for name, found in usable[-1].get("layers", {}).items()}
    layer = max(shares, key=shares.__getitem__) if shares else None
    if layer is not None:
        statements.append(f"{shares[layer]:.0%} of the top curvature sits in layer {layer!r}.")
    floor = _ratio(np.array([sharpness[-1], usable[-1].get("sharpness_floor", np.nan)]))
    if np.isfinite(floor):
        statements.append(
            f"The Jacobian at the rows alone implies {floor:.0%} of the last sharpness."
        )
    missing = len(records) - len(usable)
    if missing:
        reason = f": {problems[-1]}" if problems else ""
        statements.append(
            f"{missing} of {len(records)} measurements {_be(missing)} missing{reason}."
        )
    return Diagnosis(
        statements=tuple(statements),
        edge_update=None if edge is None else int(columns["update"][edge]),
        part_at_edge=float(at_edge[edge:].mean()) if edge is not None else float("nan"),
        loss_rises=rises,
        sharpness_ratio=sharpened,
        jacobian_ratio=steepened,
        gauss_newton_share=share,
        layer=layer,
        layer_share=shares[layer] if layer is not None else float("nan"),
        floor_share=float(floor),
    )


def _be(count: int) -> str:
    return "is" if count == 1 else "are"


def _about_edge(
    columns: dict[str, np.ndarray],
    at_edge: np.ndarray,
    edge: int | None,
    rises: int,
    reason: str,
) -> str:
    limit, trained = columns["stability_limit"], columns["trained_sharpness"]
    if not np.isfinite(limit).any():
        return f"No stability limit is known: {reason}."
    if edge is None:
        nearest = np.nanmax(trained / limit)
        return f"Sharpness stayed below the stability limit, at most {nearest:.0%} of it."
    told = (
        f"Sharpness reached the stability limit at update {columns['update'][edge]:.0f} "
        f"({trained[edge]:.3g} of {limit[edge]:.3g}) and was there in "
        f"{100 * at_edge[edge:].mean():.0f} % of the measurements since"
    )
    return told + (f"; the loss rose {rises} time{'s' * (rises > 1)}." if rises else ".")


def _about_trend(sharpness: np.ndarray, ratio: float) -> str:
    verb = "grew" if ratio > 1 + _CHANGE else "fell" if ratio < 1 - _CHANGE else "hardly changed"
    highest = sharpness.max()
    peak = ""
    if highest > 1.2 * sharpness[-1] and highest > (1 + _CHANGE) * sharpness[0]:
        peak = f", with a peak of {highest:.3g}"
    return f"Over the training it {verb}, from {sharpness[0]:.3g} to {sharpness[-1]:.3g}{peak}."


def _about_jacobian(sharpened: float, steepened: float, columns: dict[str, np.ndarray]) -> str:
    told = (
        "The largest Jacobian norm of the logits or predictions went to "
        f"{steepened:.3g} times its first value"
    )
    loss, fallen = columns["loss"], _ratio(columns["loss_curvature"])
    if steepened > 1 + _CHANGE and sharpened < steepened and loss[-1] < loss[0]:
        told += f" and sharpness to {sharpened:.3g} times"
        # That of the squared error is constant.
        if fallen < 1 - _CHANGE:
            return (
                f"{told}: as the loss falls, so does the loss's curvature (to {fallen:.2g} times "
                "its first value), and sharpness understates how steep the network became."
            )
    return f"{told}."


def _ratio(values: np.ndarray) -> float:
    return float(values[-1] / values[0]) if values[0] else float("nan")
