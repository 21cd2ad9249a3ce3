"""Figures of the analysers, with the numbers behind them."""
