"""The library's own measures are what its scorers and estimators say."""

import numpy as np
import pytest
import torch

from sharpfit import GeneralisationBound, NetworkRegressor, bound_scorer, selection_scorer
from sharpfit.measures import MEASURES, compute_measures

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
TERMS = ("bound_empirical_risk", "bound_geometry_cost", "bound_deviation")


@pytest.fixture(scope="module")
def case(measured):
    return measured(module__hidden=(6,))


def test_bound_and_terms(case):
    rows = case.inputs.numpy(), case.labels.numpy()
    estimator = case.network.problem.estimator
    assert case("bound") == pytest.approx(-bound_scorer(estimator, *rows), rel=1e-9)
    assert sum(case(name) for name in TERMS) == pytest.approx(case("bound"), rel=1e-9)
    fitted = GeneralisationBound(estimator).fit(*rows)
    assert case("bound_lipschitz_constant") == pytest.approx(fitted.lipschitz_constant_, rel=1e-9)


def test_selection_criterion(case):
    rows = case.inputs.numpy(), case.labels.numpy()
    expected = -selection_scorer(case.network.problem.estimator, *rows)
    assert case("selection_criterion") == pytest.approx(expected, rel=1e-9)


def test_regressors_have_a_criterion_and_no_bound():
    X = np.random.default_rng(0).normal(size=(40, 2))
    estimator = NetworkRegressor(max_epochs=5, random_state=0).fit(X, X[:, 0])
    found = compute_measures(estimator, X, X[:, 0], measures=["bound", "selection_criterion"])
    assert "loss_bound" in found["bound"].reason
    assert found["selection_criterion"].value == pytest.approx(
        -selection_scorer(estimator, X, X[:, 0])
    )


def test_margin_of_zero_is_said(measured):
    case = measured(max_epochs=1)
    with torch.no_grad():
        for parameter in case.module.parameters():
            parameter.zero_()
    found = MEASURES["log_distance_over_margin"].evaluate(case.network)
    assert np.isnan(found.value)
    assert "margins is zero" in found.reason
