"""What every form of the bound reports: its terms along its grid."""

from dataclasses import dataclass

import numpy as np

__all__ = ["FormCurve", "curve_table"]

_COLUMNS = {
    "scale": "scales",
    "radius": "radii",
    "capacity": "capacities",
    "empirical_risk": "risks",
    "geometry_cost": "geometry",
    "deviation": "deviations",
    "n_exceptions": "exceptions",
    "bound": "values",
}


@dataclass(frozen=True, eq=False)
class FormCurve:
    """Terms of one form of the bound at every point of its grid.

    All points hold at once, with the probability the form was given, so the smallest may be
    chosen. ``value = capacity * risk + geometry + deviation`` at every point.

    Attributes
    ----------
    form : str
        Name of the form.
    scales : ndarray of shape (n_points,)
        Inverse lengths ``s``; NaN for covering forms.
    radii : ndarray of shape (n_points,)
        Radii; NaN for transport forms.
    capacities : ndarray of shape (n_points,)
        The best capacity at each point; 1 for covering forms.
    risks : ndarray of shape (n_points,)
        Mean loss on the sample, or what exceptions cost in a covering form.
    geometry : ndarray of shape (n_points,)
        Transport cost, or frequency of uncovered points.
    deviations : ndarray of shape (n_points,)
        What is added for the finite test half.
    values : ndarray of shape (n_points,)
        The bound.
    exceptions : ndarray of int of shape (n_points,)
        Number of reference points without the radius; 0 for transport forms.
    saturates : bool
        Whether the form cannot exceed 1, so that a value of 1 says nothing and ranks nothing.
    """

    form: str
    scales: np.ndarray
    radii: np.ndarray
    capacities: np.ndarray
    risks: np.ndarray
    geometry: np.ndarray
    deviations: np.ndarray
    values: np.ndarray
    exceptions: np.ndarray
    saturates: bool

    @property
    def best(self) -> int:
        """Index of the smallest bound among points at which a perfect network gets below 1.

        At other points the geometry alone says nothing, whatever the network, so their
        values do not tell networks apart. All points count if there is no other.
        """
        telling = (self.geometry + self.deviations < 1.0) & np.isfinite(self.values)
        if not telling.any():
            return int(np.argmin(self.values))
        return int(np.argmin(np.where(telling, self.values, np.inf)))

    @property
    def best_value(self) -> float:
        """Bound at the best point."""
        return float(self.values[self.best])


def curve_table(curves: tuple[FormCurve, ...]) -> dict[str, np.ndarray]:
    """Put the terms of several forms into one table.

    Parameters
    ----------
    curves : tuple of FormCurve
        Of one bound.

    Returns
    -------
    dict of str to ndarray of shape (n_points,)
        Columns ``form``, ``scale``, ``radius``, ``capacity``, ``empirical_risk``,
        ``geometry_cost``, ``deviation``, ``n_exceptions`` and ``bound``.
    """
    forms = np.concatenate([np.full(len(curve.values), curve.form) for curve in curves])
    return {"form": forms} | {
        column: np.concatenate([getattr(curve, name) for curve in curves])
        for column, name in _COLUMNS.items()
    }
