"""A table of runs: settings, gaps and measures."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sharpfit.comparison.runs import Common, Gap, Run
from sharpfit.comparison.table import as_frame, runs_of_table


@dataclass(frozen=True, eq=False)
class RunTable:
    """Measures and generalisation gaps of many runs.

    Attributes
    ----------
    names : tuple of str
        Name of every run.
    runs : tuple of Run
        What is known of every run.
    hyperparameters : dict of str to list
        Setting of every run.
    measures : tuple of str
        Names of the measures.
    gap_kind : {"error", "loss"}
        What the gap is a difference of.
    common : Common or None
        What the runs have in common; None for runs compared as they were trained.
    """

    names: tuple[str, ...]
    runs: tuple[Run, ...]
    hyperparameters: dict[str, list[Any]]
    measures: tuple[str, ...]
    gap_kind: Gap
    common: Common | None

    @classmethod
    def from_table(
        cls,
        table: Mapping[str, Sequence[Any]],
        measures: Sequence[str],
        *,
        gap: str = "gap",
        gap_kind: Gap = "error",
        common: Common | None = None,
        hyperparameters: Sequence[str] = (),
    ) -> Self:
        """Make a comparison of a table of runs that were measured elsewhere.

        Parameters
        ----------
        table : mapping of str to sequence of length n_runs
            Columns; a DataFrame serves. If it has them, as a table made by `frame` does,
            ``run``, ``status``, ``n_updates``, ``training``, ``test`` and ``gap_error`` are
            taken too.
        measures : sequence of str
            Columns of measures.
        gap : str, default="gap"
            Column of the generalisation gap.
        gap_kind : {"error", "loss"}, default="error"
            What the gap is a difference of.
        common : Common, optional
            What the runs have in common.
        hyperparameters : sequence of str, default=()
            Columns of settings.

        Returns
        -------
        Comparison

        Raises
        ------
        ValueError
            If a column is missing.
        """
        missing = [name for name in (gap, *measures, *hyperparameters) if name not in table]
        if missing:
            raise ValueError(f"table has no column {missing[0]!r}; it has {list(table)}")
        runs = runs_of_table(table, measures, gap)
        names = table["run"] if "run" in table else range(len(runs))
        return cls(
            names=tuple(map(str, names)),
            runs=runs,
            hyperparameters={name: list(table[name]) for name in hyperparameters},
            measures=tuple(measures),
            gap_kind=gap_kind,
            common=common,
        )

    def frame(self) -> Any:
        """Return the table of runs.

        Returns
        -------
        pandas.DataFrame or dict of str to list
            One row a run: name, settings, status, updates, training and test value, gap with
            its standard error, and measures. A dict of columns without pandas.
        """
        columns: dict[str, list[Any]] = {"run": list(self.names)}
        columns |= self.hyperparameters
        for name in ("status", "n_updates", "training", "test", "gap", "gap_error"):
            columns[name] = [getattr(run, name) for run in self.runs]
        for name in self.measures:
            columns[name] = [run.measures.get(name, float("nan")) for run in self.runs]
        return as_frame(columns)

    @property
    def statement(self) -> str:
        """What is compared, over how many runs, and what these have in common."""
        counted = [run for run in self.runs if run.status == "ok"]
        if self.common is not None:
            terms = f"at equal {self.common.kind.replace('_', ' ')} ({self.common.value:g})"
        else:
            updates = sorted({run.n_updates for run in counted})
            terms = "as they were trained"
            if len(updates) > 1:
                terms += f", after {updates[0]} to {updates[-1]} updates"
            elif updates and updates[0]:
                terms += f", all after {updates[0]} updates"
        excluded = len(self.runs) - len(counted)
        return (
            f"{len(counted)} runs compared {terms}; gap = test minus training {self.gap_kind}"
            + (f"; {excluded} runs do not count, see status" if excluded else "")
        )

    @property
    def complete_measures(self) -> tuple[str, ...]:
        """The measures that all runs that count have."""
        counted = [run for run in self.runs if run.status == "ok"]
        return tuple(
            name
            for name in self.measures
            if all(np.isfinite(run.measures.get(name, np.nan)) for run in counted)
        )

    def rows_with(self, *names: str) -> list[int]:
        """Return the places of the runs that count and have these measures.

        Parameters
        ----------
        *names : str
            Names of measures.

        Returns
        -------
        list of int

        Raises
        ------
        ValueError
            If a measure was not taken.
        """
        for name in names:
            if name not in self.measures:
                near = difflib.get_close_matches(str(name), self.measures, n=3)
                choice = " or ".join(map(repr, near)) or f"one of {list(self.measures)}"
                raise ValueError(f"{name!r} was not measured; did you mean {choice}?")
        return [
            i
            for i, run in enumerate(self.runs)
            if run.status == "ok" and all(np.isfinite(run.measures[name]) for name in names)
        ]

    def columns(
        self, *names: str
    ) -> tuple[NDArray[np.float64], list[NDArray[np.float64]], dict[str, list[Any]]]:
        """Return the runs that count and have these measures.

        Parameters
        ----------
        *names : str
            Names of measures.

        Returns
        -------
        gap : ndarray of shape (n,)
            Generalisation gaps.
        values : list of ndarray of shape (n,)
            One array a measure.
        hyperparameters : dict of str to list of length n
            Settings of these runs.

        Raises
        ------
        ValueError
            If a measure was not taken.
        """
        rows = self.rows_with(*names)
        gap = np.array([self.runs[i].gap for i in rows])
        values = [np.array([self.runs[i].measures[name] for i in rows]) for name in names]
        settings = {key: [column[i] for i in rows] for key, column in self.hyperparameters.items()}
        return gap, values, settings
