"""Figures of the analysers, with the numbers behind them."""

from sharpfit.displays.bound import BoundDisplay

__all__ = ["BoundDisplay"]
