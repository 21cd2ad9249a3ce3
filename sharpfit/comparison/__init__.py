"""Do measures of trained networks go along with their generalisation gap? Honest statistics."""

from sharpfit.comparison.conditional_information import (
    ConditionalInformation,
    conditional_mutual_information,
)
from sharpfit.comparison.granulated import GranulatedKendall, granulated_kendall
from sharpfit.comparison.partial import partial_rank_correlation
from sharpfit.comparison.rank_correlation import RankCorrelation, rank_correlation
from sharpfit.comparison.sign_error import SignError, robust_sign_error

__all__ = [
    "ConditionalInformation",
    "GranulatedKendall",
    "RankCorrelation",
    "SignError",
    "conditional_mutual_information",
    "granulated_kendall",
    "partial_rank_correlation",
    "rank_correlation",
    "robust_sign_error",
]
