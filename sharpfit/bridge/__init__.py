"""From anything shaped like a scikit-learn estimator to a module, a loss and data."""
