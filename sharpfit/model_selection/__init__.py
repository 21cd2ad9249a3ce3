"""Scorers and splitters for model selection from training rows."""
