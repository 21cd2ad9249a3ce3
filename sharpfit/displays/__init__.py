"""Figures of the analysers, with the numbers behind them."""

from sharpfit.displays.attribution import AttributionDisplay
from sharpfit.displays.bound import BoundDisplay
from sharpfit.displays.comparison import ComparisonDisplay
from sharpfit.displays.jacobian import JacobianDisplay
from sharpfit.displays.sharpening import SharpeningDisplay
from sharpfit.displays.spectrum import SpectrumDisplay

__all__ = [
    "AttributionDisplay",
    "BoundDisplay",
    "ComparisonDisplay",
    "JacobianDisplay",
    "SharpeningDisplay",
    "SpectrumDisplay",
]
