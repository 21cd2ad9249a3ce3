"""The matrix of affine preprocessing against finite differences of `transform`."""

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)

from sharpfit.bridge import affine_map

X = np.random.default_rng(0).normal(size=(30, 4)) * [1.0, 10.0, 0.1, 3.0]

CHAINS = {
    "nothing": (),
    "standard": (StandardScaler(),),
    "centred only": (StandardScaler(with_std=False),),
    "range": (MinMaxScaler(feature_range=(-2, 5)),),
    "largest": (MaxAbsScaler(),),
    "robust": (RobustScaler(),),
    "unscaled robust": (RobustScaler(with_scaling=False),),
    "identity": (FunctionTransformer(),),
    "components": (StandardScaler(), PCA(3)),
    "whitened": (PCA(2, whiten=True), MinMaxScaler()),
    "whitened without spread": (PCA(4, whiten=True),),
    "truncated": (TruncatedSVD(2),),
    "not centred": (StandardScaler(with_mean=False), RobustScaler(with_centering=False)),
    "frozen": (FrozenEstimator(StandardScaler().fit(X)), MaxAbsScaler()),
    "nested": (make_pipeline(RobustScaler(), "passthrough", PCA(3)), StandardScaler()),
    "columns": (
        ColumnTransformer(
            [
                ("numbers", make_pipeline(StandardScaler(), PCA(1)), [3, -4]),
                ("slice", MinMaxScaler(), slice(1, 2)),
                ("mask", "passthrough", np.array([False, False, True, False])),
                ("none", RobustScaler(), []),
            ],
            remainder="drop",
        ),
    ),
    "remaining columns": (
        StandardScaler(),
        ColumnTransformer([("dropped", "drop", [1])], remainder=MaxAbsScaler()),
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_matrix_is_the_derivative(name):
    steps = CHAINS[name]
    rows = X * [1.0, 1.0, 1.0, 0.0] if name == "whitened without spread" else X
    for step in steps:
        rows = step.fit(rows, None).transform(rows)
    mapped = affine_map(steps, n_features=4)

    def apply(rows):
        for step in steps:
            rows = step.transform(rows)
        return rows

    differences = apply(X[:1] + np.eye(4)) - apply(X[:1])
    np.testing.assert_allclose(mapped.matrix, differences.T, atol=1e-9)
    np.testing.assert_allclose(mapped(X), apply(X), atol=1e-9)
    assert mapped.norm == pytest.approx(np.linalg.svd(differences.T)[1].max())


@pytest.mark.parametrize(
    "step",
    [Normalizer(), PolynomialFeatures(), MinMaxScaler(clip=True), FunctionTransformer(np.sin)],
)
def test_other_steps_are_refused_by_name(step):
    with pytest.raises(ValueError, match=f"{type(step).__name__} is not known to be affine"):
        affine_map((step.fit(X),), n_features=4)


def test_columns_by_name():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcd"))
    step = ColumnTransformer(
        [
            ("names", StandardScaler(), ["d", "a"]),
            ("slice", PCA(1), slice("b", "c")),
            ("open slice", "passthrough", slice(None, "b")),
        ]
    ).fit(frame)
    np.testing.assert_allclose(affine_map((step,), 4)(X), step.transform(frame), atol=1e-9)


def test_a_column_that_is_no_affine_map_is_refused_by_name():
    step = ColumnTransformer([("curved", PolynomialFeatures(), [0]), ("rest", PCA(1), [1, 2])])
    with pytest.raises(ValueError, match="PolynomialFeatures is not known to be affine"):
        affine_map((step.fit(X),), n_features=4)
