"""Networks that are scikit-learn estimators."""
