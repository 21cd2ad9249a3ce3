"""Do measures of trained networks go along with their generalisation gap? Honest statistics."""

from sharpfit.comparison.compare import compare_models
from sharpfit.comparison.comparison import Comparison
from sharpfit.comparison.conditional_information import (
    ConditionalInformation,
    conditional_mutual_information,
)
from sharpfit.comparison.granulated import GranulatedKendall, granulated_kendall
from sharpfit.comparison.partial import partial_rank_correlation
from sharpfit.comparison.permutation_tests import PermutationTest, permutation_tests
from sharpfit.comparison.rank_correlation import RankCorrelation, rank_correlation
from sharpfit.comparison.ranking import Ranking, rank_measures
from sharpfit.comparison.runs import Common, Run
from sharpfit.comparison.sign_error import SignError, robust_sign_error

__all__ = [
    "Common",
    "Comparison",
    "ConditionalInformation",
    "GranulatedKendall",
    "PermutationTest",
    "RankCorrelation",
    "Ranking",
    "Run",
    "SignError",
    "compare_models",
    "conditional_mutual_information",
    "granulated_kendall",
    "partial_rank_correlation",
    "permutation_tests",
    "rank_correlation",
    "rank_measures",
    "robust_sign_error",
]
