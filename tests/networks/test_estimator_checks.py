import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from sharpfit.networks import NetworkClassifier, NetworkRegressor

EXPECTED_FAILURES = {
    "check_no_attributes_set_in_init": (
        "skorch keeps history_, initialized_ and virtual_params_ from the constructor on"
    ),
}


@parametrize_with_checks(
    [NetworkClassifier(), NetworkRegressor()],
    expected_failed_checks=lambda estimator: EXPECTED_FAILURES,
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_estimator_check(estimator, check):
    check(estimator)
