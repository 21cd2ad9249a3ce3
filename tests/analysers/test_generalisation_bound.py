import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.base import is_regressor
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import make_moons
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    Normalizer,
    QuantileTransformer,
    StandardScaler,
)
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from sharpfit import (
    GeneralisationBound,
    HalfFeatures,
    NetworkClassifier,
    NetworkRegressor,
    ResubstitutionSplit,
    make_bound_scorer,
)
from sharpfit.jacobian import lipschitz_certificate
from sharpfit.theory import fit_geometry, generalisation_bound, logit_margins

# The networks are trained for a few epochs only.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = make_moons(160, noise=0.1, random_state=0)
X = X * [3.0, 0.5]


def network(**settings):
    defaults = {"module__hidden": (12,), "max_epochs": 15, "random_state": 0}
    return NetworkClassifier(**{**defaults, **settings})


@pytest.fixture(scope="module")
def pipeline():
    return make_pipeline(StandardScaler(), network()).fit(X, Y)


def test_bound_by_hand_through_the_pipeline(pipeline):
    scaler, net = pipeline[0], pipeline[1]
    analysis = GeneralisationBound(pipeline, lipschitz="certified", method="transport").fit(X, Y)
    with torch.no_grad():
        logits = net.module_.double()(torch.as_tensor(scaler.transform(X))).numpy()
    net.module_.float()
    certificate = lipschitz_certificate(net.module_, (2,))
    constant = certificate.margin_constant / scaler.scale_.min()
    geometry = fit_geometry(X, Y)
    expected = generalisation_bound(
        geometry, constant, margins=logit_margins(logits, Y), method="transport"
    )
    assert analysis.lipschitz_constant_ == pytest.approx(constant, rel=1e-6)
    # Margins are lowered by a bound on rounding.
    assert expected.value - 1e-6 <= analysis.bound_ <= expected.value + 1e-4
    assert analysis.scale_ == expected.scale
    assert analysis.ramp_width_ == pytest.approx(constant / analysis.scale_, rel=1e-6)
    assert analysis.bound_ == pytest.approx(
        analysis.capacity_ * analysis.empirical_risk_
        + analysis.geometry_cost_
        + analysis.deviation_
    )
    assert analysis.certified_
    assert analysis.assumptions_["fixed_metric"].status == "holds"
    assert analysis.assumptions_["independent_rows"].status == "assumed"


@pytest.mark.parametrize(
    "steps",
    [
        (StandardScaler(),),
        (MinMaxScaler(), PCA(whiten=True)),
        (FunctionTransformer(), StandardScaler(with_mean=False)),
    ],
    ids=["standard", "minmax and PCA", "identity"],
)
@pytest.mark.parametrize("lipschitz", ["certified", "empirical"])
def test_constants_are_in_units_of_the_raw_rows(steps, lipschitz):
    pipe = make_pipeline(*steps, network()).fit(X, Y)
    analysis = GeneralisationBound(pipe, lipschitz=lipschitz).fit(X, Y)
    scores = pipe.decision_function(X)
    differences = np.abs(scores[:, None] - scores[None])
    distances = np.linalg.norm(X[:, None] - X[None], axis=2)
    counted = (distances > 0) & (Y[:, None] == Y[None])
    # Slopes between rows of one class bound both constants from below.
    slope = (differences[counted] / distances[counted]).max()
    assert analysis.lipschitz_constant_ >= slope * (1 - 1e-4)
    step = 1e-3
    gradient = np.array(
        [
            (pipe.decision_function(X + step * e) - pipe.decision_function(X - step * e)) / 2 / step
            for e in np.eye(2)
        ]
    )
    steepest = np.linalg.norm(gradient, axis=0)
    # Finite differences straddle kinks of the ReLU at a few rows only.
    assert analysis.lipschitz_constant_ >= np.quantile(steepest, 0.9) * 0.98


def test_empirical_constant_is_never_above_the_certificate(pipeline):
    empirical = GeneralisationBound(pipeline).fit(X, Y)
    certified = GeneralisationBound(pipeline, lipschitz="certified").fit(X, Y)
    assert empirical.lipschitz_constant_ <= certified.lipschitz_constant_
    assert not empirical.certified_
    assert empirical.assumptions_["lipschitz_constant"].status == "assumed"


def test_a_search_is_won_by_the_bound_it_reports():
    settings = {"lipschitz": "certified", "confidence": 0.9, "method": "transport"}
    search = GridSearchCV(
        make_pipeline(StandardScaler(), network(max_epochs=4)),
        {"networkclassifier__lr": [0.01, 0.1, 0.3]},
        scoring=make_bound_scorer(**settings),
        cv=ResubstitutionSplit(),
    ).fit(X, Y)
    analysis = GeneralisationBound(search, **settings).fit(X, Y)
    assert analysis.bound_ == -search.best_score_
    assert analysis.refitted_ is False


def test_score_on_the_same_and_on_other_rows(pipeline):
    analysis = GeneralisationBound(pipeline).fit(X, Y)
    assert analysis.score(X, Y) == -analysis.bound_
    other, labels = make_moons(60, noise=0.1, random_state=1)
    assert analysis.score(other * [3.0, 0.5], labels) < analysis.score(X, Y)
    np.testing.assert_array_equal(analysis.predict(X), pipeline.predict(X))
    np.testing.assert_array_equal(analysis.predict_proba(X), pipeline.predict_proba(X))
    np.testing.assert_array_equal(analysis.classes_, pipeline.classes_)
    with pytest.raises(NotFittedError):
        GeneralisationBound(network()).predict(X)


def test_one_logit_and_two_logits_of_the_same_function_agree():
    def build(head):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), head)

    one_head = nn.Linear(8, 1)
    two_head = nn.Linear(8, 2)
    with torch.no_grad():
        two_head.weight.copy_(torch.cat([-one_head.weight / 2, one_head.weight / 2]))
        two_head.bias.copy_(torch.cat([-one_head.bias / 2, one_head.bias / 2]))
    bounds = []
    for head, criterion in ((one_head, nn.BCEWithLogitsLoss), (two_head, nn.CrossEntropyLoss)):
        net = NetworkClassifier(build(head), criterion=criterion, max_epochs=1, lr=1e-12)
        analysis = GeneralisationBound(net.fit(X, Y), lipschitz="certified").fit(X, Y)
        bounds.append((analysis.bound_, analysis.lipschitz_constant_))
    np.testing.assert_allclose(bounds[0], bounds[1], rtol=1e-5)


def test_regression_in_units_of_the_target():
    rng = np.random.default_rng(0)
    rows = rng.random((200, 1))
    targets = 50.0 * rows[:, 0] + rng.normal(size=200)
    net = NetworkRegressor(module__hidden=(8,), max_epochs=30, random_state=0)
    model = TransformedTargetRegressor(net, transformer=StandardScaler()).fit(rows, targets)
    settings = {"loss_bound": 40.0, "lipschitz": "certified", "method": "transport"}
    analysis = GeneralisationBound(model, **settings).fit(rows, targets)
    certificate = lipschitz_certificate(model.regressor_.module_, (1,))
    expected = float(certificate) * model.transformer_.scale_[0]
    assert analysis.lipschitz_constant_ == pytest.approx(expected, rel=1e-6)
    losses = np.minimum(np.abs(model.predict(rows) - targets) / 40.0, 1.0)
    assert analysis.empirical_risk_ == pytest.approx(losses.mean(), abs=1e-4)
    assert analysis.scale_ >= analysis.lipschitz_constant_ / 40.0
    assert analysis.scale_ / np.sqrt(2) < analysis.lipschitz_constant_ / 40.0
    assert "loss_bound" in analysis.assumptions_
    assert "mean of min(1, |f(x) - y| / 40)" in repr(analysis)
    empirical = GeneralisationBound(model, loss_bound=40.0).fit(rows, targets)
    assert empirical.lipschitz_constant_ <= analysis.lipschitz_constant_ * (1 + 1e-6)
    assert empirical.lipschitz_constant_ >= 30.0
    curved = TransformedTargetRegressor(net, func=np.log, inverse_func=np.exp)
    with pytest.raises(ValueError, match="no affine inverse"):
        GeneralisationBound(curved, loss_bound=40.0).fit(rows, targets + 100)


def test_half_features_are_the_metric():
    half = HalfFeatures(network())
    pipe = make_pipeline(half, network(module__hidden=())).fit(X, Y)
    analysis = GeneralisationBound(pipe, lipschitz="certified").fit(X, Y)
    step = pipe[0]
    assert analysis.certified_
    assert "drawn by an integer seed" in analysis.assumptions_["fixed_metric"].reason
    geometry = fit_geometry(step.transform(X), Y, reference=step.mask_)
    with torch.no_grad():
        inputs = torch.as_tensor(step.transform(X), dtype=torch.float64)
        logits = pipe[1].module_.double()(inputs).numpy()
    pipe[1].module_.float()
    constant = lipschitz_certificate(pipe[1].module_, (2,)).margin_constant
    expected = generalisation_bound(geometry, constant, margins=logit_margins(logits, Y))
    assert expected.value - 1e-6 <= analysis.bound_ <= expected.value + 1e-4
    many = make_pipeline(HalfFeatures(network(), n_metrics=1000), network(module__hidden=()))
    assert GeneralisationBound(many, lipschitz="certified").fit(X, Y).bound_ > analysis.bound_
    with pytest.raises(ValueError, match="other rows"):
        GeneralisationBound(pipe).fit(X[::-1].copy(), Y[::-1].copy())
    behind = make_pipeline(StandardScaler(), half, network(module__hidden=()))
    violated = GeneralisationBound(behind, lipschitz="certified").fit(X, Y)
    assert violated.assumptions_["fixed_metric"].status == "violated"
    assert "put it inside" in violated.assumptions_["fixed_metric"].remedy
    assert not violated.certified_
    raw = make_pipeline(HalfFeatures(StandardScaler()), network())
    assert GeneralisationBound(raw, lipschitz="certified").fit(X, Y).certified_
    # metric="euclidean" goes back to the raw rows, through which the softmax is not affine.
    with pytest.raises(ValueError, match="HalfFeatures is not known to be affine"):
        GeneralisationBound(pipe, metric="euclidean").fit(X, Y)


@pytest.mark.parametrize("n_metrics", [1, 2])
def test_tuning_half_features_has_to_be_declared(n_metrics):
    half = HalfFeatures(network(max_epochs=3), n_metrics=n_metrics)
    search = GridSearchCV(
        make_pipeline(half, network(module__hidden=(), max_epochs=3)),
        {"halffeatures__estimator__lr": [0.05, 0.1], "networkclassifier__lr": [0.1, 0.2]},
        scoring=make_bound_scorer(lipschitz="certified"),
        cv=ResubstitutionSplit(),
    ).fit(X, Y)
    analysis = GeneralisationBound(search, lipschitz="certified").fit(X, Y)
    status = analysis.assumptions_["fixed_metric"]
    assert (status.status, analysis.certified_) == (
        ("violated", False) if n_metrics == 1 else ("holds", True)
    )
    assert n_metrics == 2 or "n_metrics=2" in status.remedy


def test_half_features_draw_rows_without_looking():
    step = HalfFeatures(StandardScaler(), fraction=0.25, random_state=3).fit(X)
    assert step.mask_.sum() == 40
    np.testing.assert_array_equal(
        step.mask_,
        HalfFeatures(StandardScaler(), fraction=0.25, random_state=3).fit(5 * X + 1).mask_,
    )
    np.testing.assert_allclose(step.estimator_.mean_, X[step.mask_].mean(axis=0))
    for settings, error, message in (
        ({"fraction": 1.0}, ValueError, "fraction=1.0"),
        ({"fraction": "half"}, ValueError, "fraction='half'"),
        ({"fraction": 1e-4}, ValueError, "one side empty"),
        ({"random_state": None}, TypeError, "random_state=None"),
        ({"random_state": -1}, TypeError, "random_state=-1"),
        ({"n_metrics": 0}, ValueError, "n_metrics=0"),
    ):
        with pytest.raises(error, match=message):
            HalfFeatures(StandardScaler(), **settings).fit(X)


def test_frozen_features_are_the_metric():
    other, _ = make_moons(100, noise=0.1, random_state=7)
    frozen = FrozenEstimator(QuantileTransformer(n_quantiles=50).fit(other))
    pipe = make_pipeline(frozen, StandardScaler(), network()).fit(X, Y)
    analysis = GeneralisationBound(pipe, metric=frozen, lipschitz="certified").fit(X, Y)
    assert analysis.assumptions_["fixed_metric"].status == "assumed"
    assert analysis.certified_
    geometry = fit_geometry(frozen.transform(X), Y)
    point = np.searchsorted(geometry.scales, analysis.scale_ or 1.0)
    table = analysis.curve()
    transport = table["form"] == "transport"
    column = list(geometry.capacities).index(table["capacity"][transport][point])
    assert table["geometry_cost"][transport][point] == pytest.approx(
        geometry.transport_costs[point, column]
    )
    assert GeneralisationBound(pipe, lipschitz="certified").fit(X, Y).bound_ == analysis.bound_
    stranger = FrozenEstimator(StandardScaler().fit(other))
    with pytest.raises(ValueError, match="no step of the pipeline"):
        GeneralisationBound(pipe, metric=stranger).fit(X, Y)


def test_distances_in_a_space_fitted_on_the_rows_are_no_certificate(pipeline):
    analysis = GeneralisationBound(pipeline, lipschitz="certified", metric="preprocessed").fit(X, Y)
    fixed = analysis.assumptions_["fixed_metric"]
    assert (fixed.status, analysis.certified_) == ("violated", False)
    assert "HalfFeatures" in fixed.remedy
    with pytest.raises(ValueError, match="Normalizer is not known to be affine"):
        GeneralisationBound(make_pipeline(Normalizer(), network())).fit(X, Y)


def test_callables_give_constants_or_radii(pipeline):
    def constant(module, inputs, targets):
        assert not module.training
        assert len(inputs) == len(targets) == 160
        return lipschitz_certificate(module, tuple(inputs.shape[1:])).margin_constant

    def radii(module, inputs, targets):
        with torch.no_grad():
            logits = module(inputs).double().numpy()
        return np.maximum(logit_margins(logits, Y), 0.0) / constant(module, inputs, targets)

    certified = GeneralisationBound(pipeline, lipschitz="certified", method="exceptions").fit(X, Y)
    by_constant = GeneralisationBound(pipeline, lipschitz=constant, method="exceptions").fit(X, Y)
    by_radii = GeneralisationBound(pipeline, lipschitz=radii, method="exceptions").fit(X, Y)
    assert by_constant.bound_ == certified.bound_ == by_radii.bound_
    assert by_constant.certified_
    assert by_constant.assumptions_["lipschitz_constant"].status == "assumed"
    assert by_radii.lipschitz_constant_ is None
    with pytest.raises(ValueError, match="160 certified radii"):
        GeneralisationBound(pipeline, lipschitz=lambda *_: np.zeros(3)).fit(X, Y)


def test_refusals_come_before_training():
    untrained = network(max_epochs=10**6)
    for settings, error, message in (
        ({"method": "bayes"}, ValueError, "method='bayes'"),
        ({"lipschitz": "exact"}, ValueError, "lipschitz='exact'"),
        ({"metric": "cosine"}, ValueError, "metric='cosine'"),
        ({"confidence": 95}, ValueError, "confidence=95"),
        ({"scales": [-1.0]}, ValueError, "scales"),
        ({"capacities": [0.1]}, ValueError, "capacities"),
        ({"n_splits": 0}, ValueError, "n_splits=0"),
        ({"random_state": None}, TypeError, "random_state=None"),
        ({"loss_bound": 1.0}, ValueError, "is for regressors"),
    ):
        with pytest.raises(error, match=message):
            GeneralisationBound(untrained, **settings).fit(X, Y)
    analysis = GeneralisationBound(untrained)
    with pytest.raises(TypeError, match="groups is refused"):
        analysis.fit(X, Y, groups=Y)
    with pytest.raises(TypeError, match="sample_weight is refused"):
        analysis.fit(X, Y, sample_weight=np.ones(160))
    with pytest.raises(TypeError, match="X is sparse"):
        analysis.fit(csr_matrix(X), Y)
    with pytest.raises(ValueError, match="requires y to be passed"):
        analysis.fit(X, None)
    with pytest.raises(ValueError, match="loss_bound=None"):
        GeneralisationBound(NetworkRegressor(max_epochs=10**6)).fit(X, Y)
    with pytest.raises(TypeError, match="memory=3"):
        GeneralisationBound(network(max_epochs=1), memory=3).fit(X, Y)


def test_diverged_networks_are_refused(pipeline):
    broken = make_pipeline(StandardScaler(), network(max_epochs=1)).fit(X, Y)
    with torch.no_grad():
        next(broken[1].module_.parameters()).fill_(np.nan)
    with pytest.raises(ValueError, match="not finite on 160 of 160 rows"):
        GeneralisationBound(broken).fit(X, Y)


def test_floor_and_dimension(pipeline):
    analysis = GeneralisationBound(pipeline, lipschitz="certified").fit(X, Y)
    floors = analysis.floor()
    assert floors["best"] <= analysis.bound_
    assert set(floors) == {"transport", "variance", "covering", "exceptions", "best"}
    compared = analysis.floor({"first column": X[:, :1]})
    assert compared["current"] == floors
    assert compared["first column"]["transport"] >= floors["transport"] - 0.1
    assert 1.0 < float(analysis.intrinsic_dimension()) < 2.6


def test_statements(pipeline):
    analysis = GeneralisationBound(pipeline, lipschitz="certified").fit(X, Y)
    assert "certified" in repr(analysis)
    html = analysis._repr_mimebundle_()["text/html"]
    assert "analysed as given" in html
    assert "analysed as given" in analysis._repr_html_()
    small = GeneralisationBound(pipeline).fit(X[:10], Y[:10])
    assert small.vacuous_
    assert "says nothing" in repr(small)


@parametrize_with_checks(
    [
        GeneralisationBound(NetworkClassifier(random_state=0)),
        GeneralisationBound(
            NetworkRegressor(random_state=0, max_epochs=2, lr=1e-4), loss_bound=1.0
        ),
    ],
    expected_failed_checks=lambda analyser: (
        {"check_regressors_train": "the score is minus the bound, not R squared"}
        if is_regressor(analyser)
        else {}
    ),
)
def test_estimator_check(estimator, check):
    check(estimator)
