"""Processes, callbacks and early ends of a spectrum."""

import importlib.util
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from sharpfit import HessianSpectrum
from tests.analysers.spectrum_cases import LABELS, X, network

needs_callbacks = pytest.mark.skipif(
    importlib.util.find_spec("sklearn.callback") is None, reason="scikit-learn has no callbacks"
)


def analysis(**settings):
    request = {"n_eigenvalues": 3, "tol": 1e-6, "trace": True, "density": True, "random_state": 0}
    return HessianSpectrum(network(), **{**request, **settings})


def test_the_same_answer_for_every_number_of_processes():
    alone = analysis(which="smallest").fit(X, LABELS)
    for n_jobs in (2, -1):
        found = analysis(which="smallest", n_jobs=n_jobs).fit(X, LABELS)
        np.testing.assert_allclose(found.eigenvalues_, alone.eigenvalues_, rtol=1e-9)
        assert found.sharpness_ == pytest.approx(alone.sharpness_, rel=1e-9)
        assert found.trace_ == pytest.approx(alone.trace_, rel=1e-9)
        np.testing.assert_allclose(found.density_.density, alone.density_.density, atol=1e-9)
        assert found.route_ == alone.route_ == "closed_form"


class Recorder:
    """Follows scikit-learn's protocol of callbacks; asks to stop after some products."""

    def __init__(self, patience=None):
        self.events = []
        self.patience = patience

    def setup(self, estimator, context):
        self.events.append(("setup", context.task_name))

    def teardown(self, estimator, context):
        self.events.append(("teardown", context.task_name))

    def on_fit_task_begin(self, estimator, context, *, X=None, metadata=None):
        self.events.append(("begin", context.task_name))
        self.shape, self.metadata = X.shape, metadata

    def on_fit_task_end(self, estimator, context):
        self.events.append(("end", context.task_name))
        return context.task_name == "product" and self.count("product") == self.patience

    def count(self, name):
        return self.events.count(("end", name))


@needs_callbacks
def test_callbacks_see_parts_and_products():
    recorder = Recorder()
    spectrum = analysis(which="magnitude").set_callbacks(recorder)
    assert spectrum.fit(X, LABELS, sample_weight=np.ones(len(X))) is spectrum
    tasks = [event for event in recorder.events if event[1] != "product"]
    parts = ["network", "eigenvalues", "trace", "density"]
    inside = [(when, name) for name in parts for when in ("begin", "end")]
    assert tasks == [
        ("setup", "fit"), ("begin", "fit"), *inside, ("end", "fit"), ("teardown", "fit")
    ]  # fmt: skip
    assert recorder.count("product") >= spectrum.n_products_ + spectrum.density_.n_products
    assert recorder.shape == X.shape
    np.testing.assert_array_equal(recorder.metadata["sample_weight"], np.ones(len(X)))
    plain = analysis(which="magnitude").fit(X, LABELS, sample_weight=np.ones(len(X)))
    np.testing.assert_array_equal(plain.eigenvalues_, spectrum.eigenvalues_)


@needs_callbacks
def test_a_callback_that_asks_to_stop_leaves_what_is_known():
    recorder = Recorder(patience=8)
    spectrum = analysis(trace=False, density=False, tol=1e-12).set_callbacks(recorder)
    with pytest.warns(match="are not accurate to tol"):
        spectrum.fit(X, LABELS)
    assert spectrum.interrupted_
    assert spectrum.n_products_ <= 8
    assert recorder.events[-1] == ("teardown", "fit")
    late = analysis(which="smallest", trace=False, density=False)
    patience = late.fit(X, LABELS).n_products_ + 1
    stopped = clone(late).set_callbacks(Recorder(patience)).fit(X, LABELS)
    np.testing.assert_array_equal(stopped.eigenvalues_, late.eigenvalues_)
    assert stopped.interrupted_
    assert np.isnan(stopped.sharpness_)


@needs_callbacks
def test_callbacks_are_torn_down_when_the_fit_fails():
    recorder = Recorder()
    spectrum = analysis(parameters="nothing").set_callbacks(recorder)
    with pytest.raises(ValueError, match="selects no trainable parameter"):
        spectrum.fit(X, LABELS)
    assert recorder.events[-1] == ("teardown", "fit")


@needs_callbacks
def test_callbacks_of_processes_see_parts():
    recorder = Recorder()
    analysis(n_jobs=2).set_callbacks(recorder).fit(X, LABELS)
    assert recorder.count("product") == 0
    assert [name for when, name in recorder.events if when == "end"] == [
        "network", "eigenvalues", "trace", "density", "fit"
    ]  # fmt: skip


@needs_callbacks
def test_callbacks_survive_searches_and_pickling():
    spectrum = analysis(trace=False, density=False).set_callbacks(Recorder())
    search = GridSearchCV(spectrum, {"n_eigenvalues": [1, 2]}, cv=2, refit=True)
    search.fit(X, LABELS)
    loaded = pickle.loads(pickle.dumps(search.best_estimator_))
    assert loaded.sharpness_ == search.best_estimator_.sharpness_


def test_verbose_prints_products(capsys):
    analysis(trace=False, density=False, verbose=5).fit(X, LABELS)
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert all("products" in line for line in lines)
