"""What a profiler states beyond its rows: certificates and held-out maxima."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_classification
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sharpfit import JacobianProfiler, NetworkClassifier
from sharpfit.bridge import as_problem
from sharpfit.jacobian import lipschitz_certificate

# The networks are trained briefly on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:The training loss")


@pytest.fixture(scope="module")
def data():
    X, y = make_classification(
        120, n_features=5, n_informative=4, n_redundant=0, n_classes=3, random_state=0
    )
    return 3 * X + 10, y


@pytest.fixture(scope="module")
def pipeline(data):
    network = NetworkClassifier(module__hidden=(8,), max_epochs=20, random_state=0)
    return make_pipeline(StandardScaler(), network).fit(*data)


@pytest.mark.parametrize("space", ["network", "input"])
@pytest.mark.parametrize("method", ["product", "semidefinite"])
def test_certificate_is_above_every_slope(pipeline, data, space, method):
    X, y = data
    profiler = JacobianProfiler(pipeline, space=space).fit(X, y)
    certificate = profiler.certificate(X[:1], method=method)
    assert float(certificate) >= max(profiler.max_norm_, profiler.slope_bound_)
    assert certificate.margin_constant >= profiler.margin_constant_
    assert 1 <= certificate.tightness(profiler.slope_bound_) < 20
    if space == "network":
        alone = lipschitz_certificate(as_problem(pipeline, X).module, (5,), method=method)
        assert float(certificate) == float(alone)


@pytest.mark.parametrize("output", ["logits", "loss"])
def test_held_out_maximum_is_that_of_the_norms(pipeline, data, output):
    X, y = data
    profiler = JacobianProfiler(pipeline, output=output).fit(X, y)
    largest, mass = profiler.held_out_maximum(X[:50], y[:50], confidence=0.9)
    assert largest == profiler.profile(X[:50], y[:50]).norms.spectral.max()
    assert mass == pytest.approx(1 - 0.1 ** (1 / 50))


def test_inference_mode_around_changes_nothing(pipeline, data):
    X, y = data
    outside = JacobianProfiler(pipeline).fit(X, y)
    with torch.inference_mode():
        inside = JacobianProfiler(pipeline).fit(X, y)
        features = outside.transform(X)
    np.testing.assert_array_equal(inside.norms_, outside.norms_)
    np.testing.assert_array_equal(features, outside.transform(X))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_any_floating_dtype(pipeline, data, dtype):
    X, y = data
    profiler = JacobianProfiler(pipeline, dtype=dtype).fit(X, y)
    reference = JacobianProfiler(pipeline).fit(X, y)
    assert profiler.mean_norm_ == pytest.approx(reference.mean_norm_, rel=2e-2)
    assert profiler.attribution(X).shape == X.shape
