import numpy as np
import pytest
from sklearn.datasets import make_moons
from sklearn.exceptions import NotFittedError

from sharpfit import GeneralisationBound, NetworkClassifier, NetworkRegressor

# The networks are trained for a few epochs only.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = make_moons(160, noise=0.1, random_state=0)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_floor_before_any_training(task):
    kind, settings = NetworkClassifier, {}
    if task == "regression":
        kind, settings = NetworkRegressor, {"loss_bound": 1.0}
    targets = Y if task == "classification" else X[:, 0] - X[:, 1]
    analysis = GeneralisationBound(kind(max_epochs=2, random_state=0), **settings)
    before = analysis.floor(X=X, y=targets)
    assert not hasattr(analysis, "estimator_")
    assert before == analysis.fit(X, targets).floor()
    column = {"first column": X[:, :1]}
    fresh = GeneralisationBound(kind(random_state=0), **settings)
    assert fresh.floor(column, X=X, y=targets) == analysis.floor(column)
    with pytest.raises(ValueError, match="y is None"):
        fresh.floor(X=X)
    with pytest.raises(NotFittedError):
        fresh.floor()


def test_the_floor_names_the_metric_that_helps():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    noise = rng.normal(size=(200, 30))
    analysis = GeneralisationBound(NetworkClassifier(random_state=0))
    columns = {"labels": 5.0 * labels[:, None], "one column": noise[:, :1]}
    told = analysis.floor_statement(columns, X=noise, y=labels)
    floors = analysis.floor(X=noise, y=labels)
    assert f"{np.floor(100 * floors['transport']) / 100:.2f} from the transport form" in told
    assert "labels would help" in told
    assert "one column would" not in told
    assert "none of the other metrics would help: one column" in analysis.floor_statement(
        {"one column": noise[:, :1]}, X=noise, y=labels
    )
    assert "HalfFeatures" in analysis.floor_statement(X=noise, y=labels)
