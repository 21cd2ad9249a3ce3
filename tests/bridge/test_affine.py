"""The matrix of affine preprocessing against finite differences of `transform`."""

import numpy as np
import pytest
from sklearn.decomposition import PCA, TruncatedSVD
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
    "truncated": (TruncatedSVD(2),),
}


@pytest.mark.parametrize("name", CHAINS)
def test_matrix_is_the_derivative(name):
    steps = CHAINS[name]
    rows = X
    for step in steps:
        rows = step.fit_transform(rows)
    mapped = affine_map(steps, n_features=4)

    def apply(rows):
        for step in steps:
            rows = step.transform(rows)
        return rows

    differences = apply(X[:1] + np.eye(4)) - apply(X[:1])
    np.testing.assert_allclose(mapped.matrix, differences.T, atol=1e-9)
    assert mapped.norm == pytest.approx(np.linalg.svd(differences.T)[1].max())


@pytest.mark.parametrize(
    "step",
    [Normalizer(), PolynomialFeatures(), MinMaxScaler(clip=True), FunctionTransformer(np.sin)],
)
def test_other_steps_are_refused_by_name(step):
    with pytest.raises(ValueError, match=f"{type(step).__name__} is not known to be affine"):
        affine_map((step.fit(X),), n_features=4)
