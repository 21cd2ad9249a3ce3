"""Analysers as estimators: scikit-learn's own checks, and those for meta-estimators."""

import pytest
from sklearn.base import is_regressor
from sklearn.utils.estimator_checks import parametrize_with_checks

from sharpfit import (
    GeneralisationBound,
    HessianSpectrum,
    JacobianProfiler,
    NetworkClassifier,
    NetworkRegressor,
)
from tests.analysers.meta_estimator_checks import MetaEstimatorChecks


class TestHessianSpectrum(MetaEstimatorChecks):
    attribute = "eigenvalues_"

    def analyser(self, estimator, y):
        return HessianSpectrum(estimator, n_eigenvalues=2, tol=1e-4, random_state=0)


class TestJacobianProfiler(MetaEstimatorChecks):
    attribute = "norms_"

    def analyser(self, estimator, y):
        return JacobianProfiler(estimator)


class TestGeneralisationBound(MetaEstimatorChecks):
    attribute = "bound_"

    def analyser(self, estimator, y):
        loss_bound = 5.0 if y.dtype.kind == "f" else None
        return GeneralisationBound(estimator, loss_bound=loss_bound)


EXPECTED_FAILURES = {
    "check_regressors_train": "the score is minus the largest eigenvalue, not R squared"
}


# The checks seed the analyser, not the network inside, and fit rows with targets in the hundreds.
@parametrize_with_checks(
    [
        HessianSpectrum(NetworkClassifier(random_state=0), n_eigenvalues=2),
        HessianSpectrum(NetworkRegressor(random_state=0, max_epochs=2, lr=1e-4), n_eigenvalues=2),
    ],
    expected_failed_checks=lambda analyser: EXPECTED_FAILURES if is_regressor(analyser) else {},
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_estimator_check(estimator, check):
    check(estimator)
