"""The result of a comparison: a table of runs and its statistics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpfit.comparison.conditional_information import (
    ConditionalInformation,
    conditional_mutual_information,
)
from sharpfit.comparison.granulated import GranulatedKendall, granulated_kendall
from sharpfit.comparison.partial import partial_rank_correlation
from sharpfit.comparison.rank_correlation import (
    RankCorrelation,
    adjusted_p_values,
    rank_correlation,
    undefined_correlation,
)
from sharpfit.comparison.ranking import Ranking, rank_measures
from sharpfit.comparison.resampling import Kind
from sharpfit.comparison.runs import Common, Gap, Run
from sharpfit.comparison.sign_error import SignError, robust_sign_error
from sharpfit.comparison.table import as_frame, runs_of_table


@dataclass(frozen=True, eq=False)
class Comparison:
    """Measures and generalisation gaps of many runs.

    Runs that diverged or did not finish stay in the table with their status; statistics are
    over the runs that count, and say how many these are.

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
    ) -> "Comparison":
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

    def correlations(
        self,
        kind: Kind = "kendall",
        *,
        given: str | None = None,
        n_bootstrap: int = 500,
        confidence: float = 0.95,
        random_state: int | None = 0,
    ) -> Any:
        """Rank correlation of every measure with the gap, with intervals.

        Parameters
        ----------
        kind : {"kendall", "spearman"}, default="kendall"
            The correlation.
        given : str, optional
            A measure that is held fixed: does another one add anything once it is known?
        n_bootstrap : int, default=500
            Number of resamples behind the intervals.
        confidence : float, default=0.95
            Level of the intervals, each on its own.
        random_state : int or None, default=0
            Seed of the resamples.

        Returns
        -------
        pandas.DataFrame or dict of str to list
            Columns ``measure``, ``value``, ``low``, ``high``, ``p_value``,
            ``adjusted_p_value`` and ``n_runs``, the strongest first. The adjusted p-values
            control the false discovery rate over all measures of the table, whatever their
            dependence (Benjamini and Yekutieli 2001).
        """
        settings = {
            "kind": kind,
            "n_bootstrap": n_bootstrap,
            "confidence": confidence,
            "random_state": random_state,
        }
        results: dict[str, RankCorrelation] = {}
        for name in self.measures:
            if name == given:
                continue
            columns = [name] if given is None else [name, given]
            gap, values = self._complete(*columns)
            if len(gap) < 4:
                results[name] = undefined_correlation(confidence, len(gap))
            elif given is None:
                results[name] = rank_correlation(values[0], gap, **settings)
            else:
                results[name] = partial_rank_correlation(values[0], gap, values[1], **settings)
        order = sorted(results, key=lambda name: -np.nan_to_num(results[name].value, nan=-2.0))
        table: dict[str, list[Any]] = {"measure": order}
        for column in ("value", "low", "high", "p_value"):
            table[column] = [getattr(results[name], column) for name in order]
        table["adjusted_p_value"] = adjusted_p_values(table["p_value"])
        table["n_runs"] = [results[name].n_runs for name in order]
        return as_frame(table)

    def ranking(
        self,
        kind: Kind = "kendall",
        *,
        n_bootstrap: int = 500,
        confidence: float = 0.95,
        random_state: int | None = 0,
    ) -> Ranking:
        """Say which measure goes best with the gap, and which others may as well.

        Parameters
        ----------
        kind : {"kendall", "spearman"}, default="kendall"
            The correlation.
        n_bootstrap : int, default=500
            Number of resamples behind the intervals.
        confidence : float, default=0.95
            Level of the intervals.
        random_state : int or None, default=0
            Seed of the resamples.

        Returns
        -------
        Ranking
            Of the measures that all runs that count have.
        """
        counted = [run for run in self.runs if run.status == "ok"]
        names = [
            name
            for name in self.measures
            if all(np.isfinite(run.measures.get(name, np.nan)) for run in counted)
        ]
        gap, values, _ = self.columns(*names)
        return rank_measures(
            dict(zip(names, values, strict=True)),
            gap,
            kind=kind,
            n_bootstrap=n_bootstrap,
            confidence=confidence,
            random_state=random_state,
        )

    def granulated(
        self,
        measure: str,
        *,
        n_bootstrap: int = 500,
        confidence: float = 0.95,
        random_state: int | None = 0,
    ) -> GranulatedKendall:
        """Kendall's tau within each hyper-parameter, the others held fixed.

        Parameters
        ----------
        measure : str
            Name of a measure.
        n_bootstrap, confidence, random_state : int, float, int
            As in `correlations`; groups of runs are resampled.

        Returns
        -------
        GranulatedKendall
        """
        gap, (values,), settings = self._with_settings(measure)
        return granulated_kendall(
            values,
            gap,
            settings,
            n_bootstrap=n_bootstrap,
            confidence=confidence,
            random_state=random_state,
        )

    def conditional_information(self, measure: str) -> ConditionalInformation:
        """Return the competition's score of a measure.

        Parameters
        ----------
        measure : str
            Name of a measure.

        Returns
        -------
        ConditionalInformation
        """
        gap, (values,), settings = self._with_settings(measure)
        return conditional_mutual_information(values, gap, settings)

    def sign_error(self, measure: str, *, n_test: int | None = None) -> SignError:
        """Return the robust sign error of a measure.

        Parameters
        ----------
        measure : str
            Name of a measure.
        n_test : int, optional
            Number of test rows, to weigh pairs of runs by what these settle.

        Returns
        -------
        SignError
        """
        gap, (values,), settings = self._with_settings(measure)
        return robust_sign_error(values, gap, settings, n_test=n_test)

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

    def __repr__(self) -> str:
        return f"Comparison: {self.statement}"

    def _complete(self, *names: str) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
        gap, values, _ = self.columns(*names)
        return gap, values

    def _with_settings(
        self, *names: str
    ) -> tuple[NDArray[np.float64], list[NDArray[np.float64]], dict[str, list[Any]]]:
        if not self.hyperparameters:
            raise ValueError(
                "the settings of the runs are not known; pass hyperparameters= to compare_models"
            )
        return self.columns(*names)

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
                raise ValueError(f"{name!r} was not measured; choose from {list(self.measures)}")
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
