"""The result of a comparison: a table of runs and its statistics."""

from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpfit.comparison.conditional_information import (
    ConditionalInformation,
    conditional_mutual_information,
)
from sharpfit.comparison.granulated import GranulatedKendall, granulated_kendall
from sharpfit.comparison.partial import partial_rank_correlation
from sharpfit.comparison.permutation_tests import (
    ALL,
    PermutationTest,
    Statistic,
    permutation_tests,
)
from sharpfit.comparison.rank_correlation import (
    RankCorrelation,
    adjusted_p_values,
    rank_correlation,
    undefined_correlation,
)
from sharpfit.comparison.ranking import Ranking, rank_measures
from sharpfit.comparison.resampling import Kind
from sharpfit.comparison.run_table import RunTable
from sharpfit.comparison.sign_error import SignError, robust_sign_error
from sharpfit.comparison.table import as_frame


class Comparison(RunTable):
    """Measures and generalisation gaps of many runs, and their statistics.

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
            gap, values, _ = self.columns(*columns)
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
        names = self.complete_measures
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

    def tests(
        self,
        statistic: Statistic = "granulated",
        *,
        n_test: int | None = None,
        n_permutations: int = 500,
        random_state: int | None = 0,
    ) -> Any:
        """Test all measures within all hyper-parameters, allowing for the number of tests.

        Parameters
        ----------
        statistic : {"granulated", "conditional_information", "sign_error"}, default="granulated"
            The statistic of the method of this name.
        n_test : int, optional
            Number of test rows, for the sign error.
        n_permutations : int, default=500
            Number of permutations of the gaps.
        random_state : int or None, default=0
            Seed of the permutations.

        Returns
        -------
        pandas.DataFrame or dict of str to list
            Columns ``measure``, ``hyperparameter``, ``value``, ``p_value`` and
            ``adjusted_p_value``, as of `permutation_tests`, the smallest adjusted p-values over
            all hyper-parameters first. A measure that some run lacks is at the end, without
            numbers.
        """
        names = self.complete_measures
        gap, values, settings = self._with_settings(*names)
        found = permutation_tests(
            dict(zip(names, values, strict=True)),
            gap,
            settings,
            statistic=statistic,
            n_test=n_test,
            n_permutations=n_permutations,
            random_state=random_state,
        )
        overall = {
            test.measure: test.adjusted_p_value for test in found if test.hyperparameter == ALL
        }
        found.sort(key=lambda test: overall[test.measure])
        missing = [name for name in self.measures if name not in names]
        found += [PermutationTest(name, ALL, np.nan, np.nan, np.nan) for name in missing]
        columns = [field.name for field in fields(PermutationTest)]
        return as_frame({name: [getattr(test, name) for test in found] for name in columns})

    def __repr__(self) -> str:
        return f"Comparison: {self.statement}"

    def _with_settings(
        self, *names: str
    ) -> tuple[NDArray[np.float64], list[NDArray[np.float64]], dict[str, list[Any]]]:
        if not self.hyperparameters:
            raise ValueError(
                "the settings of the runs are not known; pass hyperparameters= to compare_models"
            )
        return self.columns(*names)
