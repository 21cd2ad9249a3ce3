"""What a profiler states beyond its rows: certificates and held-out maxima."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_classification
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

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


class Opposites(nn.Module):
    """The difference of the first two logits is twice as steep as any class's margin."""

    def __init__(self):
        super().__init__()
        self.top = nn.Parameter(torch.tensor(100.0))

    def forward(self, x):
        return torch.cat([torch.sin(x), -torch.sin(x), self.top.expand_as(x)], dim=1)


def test_margin_constant_of_misclassified_rows_is_below_the_true_one():
    X = np.linspace(-1, 1, 30, dtype=np.float32)[:, None]
    y = np.arange(30) % 3
    net = NeuralNetClassifier(
        Opposites, criterion=nn.CrossEntropyLoss, lr=0.0, max_epochs=1, train_split=None, verbose=0
    ).fit(X, y)
    profiler = JacobianProfiler(net).fit(X, y)
    assert 0.9 < profiler.margin_constant_ <= 1 + 1e-6


def test_margin_constant_looks_at_all_of_many_classes():
    # Logit k moves along feature k only, most of all the last, which is nobody's runner-up.
    weight = torch.eye(70)
    weight[-1, -1] = -50.0
    rows = torch.eye(70)[:-1] + 0.01
    module = nn.Sequential(nn.Flatten(), nn.Linear(70, 70, bias=False))
    module[1].weight.data = weight
    net = NeuralNetClassifier(
        module, criterion=nn.CrossEntropyLoss, lr=0.0, max_epochs=1, train_split=None, verbose=0
    ).fit(rows.numpy(), np.arange(69))
    profiler = JacobianProfiler(net).fit(rows.numpy(), np.arange(69))
    assert profiler.profile(rows.numpy()).norms.method == "krylov"
    assert profiler.margin_constant_ == pytest.approx(np.hypot(50, 1), rel=1e-5)


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.cuda,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
            ],
        ),
    ],
)
@pytest.mark.parametrize("output", ["logits", "probabilities", "margin", "loss"])
def test_everything_of_a_network_on_a_device(data, device, output):
    X, y = data
    network = NetworkClassifier(max_epochs=2, device=device, random_state=0)
    profiler = JacobianProfiler(
        make_pipeline(StandardScaler(), network).fit(X, y), output=output, space="input"
    ).fit(X, y)
    assert profiler.transform(X).shape == (120, 4)
    assert profiler.attribution(X).shape == X.shape
    assert profiler.score(X, y) == pytest.approx(-profiler.max_norm_)
    assert profiler.profile(X, y).logits.largest_margin_gradient.shape == (120,)
    assert profiler.variation(X).excess >= 1
    assert float(profiler.certificate(X)) > 0


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
