"""What gives no features is named before anything is fitted."""

import numpy as np
import pytest
from sklearn.cluster import DBSCAN
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from sharpfit import HalfFeatures, NetworkClassifier, bound_scorer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
Y = (X[:, 0] > 0).astype(int)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (StandardScaler, r"got StandardScaler; write StandardScaler\(\)"),
        ("scaler", "got str"),
        (LinearSVC(), "LinearSVC has neither transform nor predict_proba"),
        (DBSCAN(), "DBSCAN has neither transform nor predict,"),
    ],
)
def test_estimators_without_features(estimator, message):
    with pytest.raises(TypeError, match=message):
        HalfFeatures(estimator).fit(X, Y)


def test_values_of_arguments():
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        HalfFeatures(StandardScaler()).fit(X, Y[1:])
    with pytest.raises(ValueError, match="n_metrics=True must be a positive integer"):
        HalfFeatures(StandardScaler(), n_metrics=True).fit(X, Y)


@pytest.mark.filterwarnings("ignore:bound_scorer is given rows")
def test_searches_on_folds_are_told_of_the_splitter():
    candidates = make_pipeline(HalfFeatures(StandardScaler()), NetworkClassifier(max_epochs=1))
    search = GridSearchCV(
        candidates,
        {"networkclassifier__lr": [0.1]},
        scoring=bound_scorer,
        cv=2,
        error_score="raise",
    )
    with pytest.raises(ValueError, match=r"in a search, cv=ResubstitutionSplit\(\) scores"):
        search.fit(X, Y)
