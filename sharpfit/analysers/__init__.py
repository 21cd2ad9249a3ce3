"""Meta-estimators that analyse a fitted network."""
