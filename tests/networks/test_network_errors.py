"""What is refused, with the argument, the value and the remedy, before any training."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.exceptions import NotFittedError
from torch import nn

from sharpfit.networks import NetworkClassifier, NetworkRegressor
from tests.networks.modules_for_tests import Flat, Normalised, Plain, Probabilities, TwoOutputs


class Untrainable(Plain):
    """Fails the test if training starts."""

    def forward(self, X):
        assert not self.training, "training has begun"
        return super().forward(X)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("estimator", [NetworkClassifier, NetworkRegressor])
def test_not_finite_values_are_named_by_column(value, estimator, iris):
    X, y = iris
    X = X.copy()
    X[7, 2] = value
    word = "NaN" if np.isnan(value) else "infinity"
    with pytest.raises(ValueError, match=rf"X contains {word}.* in column 2, in 1 of 150 .*row 7"):
        estimator().fit(X, y)
    frame = pd.DataFrame(X, columns=["a", "b", "width", "d"])
    with pytest.raises(ValueError, match=r"column 2 \('width'\)"):
        estimator().fit(frame, y)
    network = estimator(max_epochs=1).fit(X[8:], y[8:])
    with pytest.raises(ValueError, match="column 2"):
        network.predict(X)


def test_not_finite_images_are_named_by_position():
    X = np.zeros((4, 1, 3, 3))
    X[2, 0, 1, 1] = np.nan
    with pytest.raises(ValueError, match=r"NaN in position \(2, 0, 1, 1\)"):
        NetworkClassifier(Plain).fit(X, [0, 1, 0, 1])


def test_values_too_large_for_the_module(iris):
    X, y = iris
    with pytest.raises(ValueError, match=r"too large for torch.float32.*Scale X"):
        NetworkClassifier(Plain).fit(X * 1e39, y)


def test_not_finite_targets(plane):
    X, y = plane
    y = y.copy()
    y[3, 1] = np.nan
    with pytest.raises(ValueError, match="y contains NaN in column 1"):
        NetworkRegressor().fit(X, y)
    with pytest.raises(ValueError, match=r"y contains infinity or a value too large.*Scale y"):
        NetworkRegressor(Plain, module__d=3, module__k=2).fit(X, np.full_like(y, 1e39))
    with pytest.raises(ValueError, match=r"y contains missing labels .* in 1 rows \(first: row 1"):
        NetworkClassifier().fit(X[:3], np.array(["a", None, "b"], dtype=object))


def test_one_class(iris):
    X, _ = iris
    with pytest.raises(ValueError, match=r"one class only \('only'\)"):
        NetworkClassifier(Untrainable).fit(X, ["only"] * len(X))


def test_wrong_feature_count(iris):
    X, y = iris
    network = NetworkClassifier(max_epochs=1).fit(X, y)
    with pytest.raises(ValueError, match="X has 3 features, but NetworkClassifier is expecting 4"):
        network.predict(X[:, :3])
    with pytest.raises(ValueError, match="X has 3 features"):
        network.partial_fit(X[:, :3], y)


@pytest.mark.parametrize("container", [sparse.csr_matrix, sparse.csr_array, sparse.coo_array])
def test_sparse_input(container, iris):
    X, y = iris
    with pytest.raises(TypeError, match=r"Sparse data was passed for X.*toarray\(\)"):
        NetworkClassifier(Untrainable).fit(container(X), y)


def test_data_sets_and_several_inputs(iris):
    X, y = iris
    with pytest.raises(TypeError, match=r"X is a dict.*skorch"):
        NetworkClassifier().fit({"X": X}, y)
    rows = torch.utils.data.TensorDataset(torch.tensor(X))
    with pytest.raises(TypeError, match=r"X is a TensorDataset.*skorch"):
        NetworkClassifier().fit(rows, y)


@pytest.mark.parametrize("n_outputs", [1, 2, 4])
def test_output_width_that_does_not_fit_the_classes(n_outputs, iris):
    X, y = iris
    message = rf"returned \(1, {n_outputs}\) for one row, but 3 classes .*Give the module 3 output"
    with pytest.raises(ValueError, match=message):
        NetworkClassifier(Untrainable, module__k=n_outputs).fit(X, y)


def test_output_width_that_does_not_fit_the_targets(plane):
    X, y = plane
    with pytest.raises(ValueError, match=r"returned \(1, 3\) for one row, but targets with 2"):
        NetworkRegressor(Untrainable, module__d=3).fit(X, y)


def test_rows_that_the_module_cannot_take(iris):
    X, y = iris
    with pytest.raises(ValueError, match=r"Untrainable cannot take rows of shape \(4,\): mat1"):
        NetworkClassifier(Untrainable, module__d=7).fit(X, y)


def test_several_outputs(iris):
    X, y = iris
    with pytest.raises(ValueError, match="returned tuple for one row"):
        NetworkClassifier(TwoOutputs).fit(X, y)


def test_criterion_for_two_classes_only(iris):
    X, y = iris
    with pytest.raises(ValueError, match="BCEWithLogitsLoss is for two classes, but there are 3"):
        NetworkClassifier(Flat, criterion=nn.BCEWithLogitsLoss).fit(X, y)


def test_criterion_that_does_not_fit(iris):
    X, y = iris
    with pytest.raises(ValueError, match=r"criterion=MSELoss cannot compare .*\(1, 3\)"):
        NetworkClassifier(Untrainable, criterion=nn.MSELoss).fit(X, y)


def test_criterion_without_a_number(iris):
    X, y = iris
    with pytest.raises(ValueError, match="must return one number per batch"):
        NetworkClassifier(Untrainable, criterion__reduction="none").fit(X, y)


def test_logits_where_probabilities_are_due(iris):
    X, y = iris
    with pytest.raises(ValueError, match=r"NLLLoss is used as in skorch.*CrossEntropyLoss"):
        NetworkClassifier(Untrainable, criterion=nn.NLLLoss).fit(X, y)
    NetworkClassifier(Probabilities, criterion=nn.NLLLoss, max_epochs=1).fit(X, y)


def test_probabilities_of_a_criterion_without_any(iris):
    X, y = iris
    network = NetworkClassifier(Plain, criterion=nn.MultiMarginLoss, random_state=0).fit(X, y)
    assert network.score(X, y) > 0.9
    with pytest.raises(AttributeError, match="MultiMarginLoss does not say how"):
        network.predict_proba(X)


def test_last_batch_of_one_row_under_batch_normalisation(iris):
    X, y = iris
    network = NetworkClassifier(Normalised, batch_size=149)
    with pytest.raises(ValueError, match="With 150 rows and batch_size=149 the last batch"):
        network.fit(X, y)
    network.set_params(iterator_train__drop_last=True, max_epochs=1).fit(X, y)


def test_module_is_not_changed_by_the_trial(iris):
    X, y = iris
    module = Normalised()
    state = copy.deepcopy(module.state_dict())
    network = NetworkClassifier(module, batch_size=50, max_epochs=2).fit(X, y)
    assert network.module_ is not module
    assert all(torch.equal(state[key], value) for key, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())
    # The trial must not count as a batch of training either: 3 batches in each of 2 epochs.
    assert int(network.module_.layers[1].num_batches_tracked) == 6


def test_refused_module_is_not_taken_up_again(iris):
    X, y = iris
    network = NetworkClassifier(Untrainable, module__k=4)
    for _ in range(2):
        with pytest.raises(ValueError, match="Give the module 3 output"):
            network.partial_fit(X, y)
        with pytest.raises(NotFittedError):
            network.predict(X)


def test_refused_parameters(iris):
    X, y = iris
    with pytest.raises(ValueError, match=r"got unexpected argument\(s\) learning_rate"):
        NetworkClassifier(learning_rate=0.1).fit(X, y)
    with pytest.raises(ValueError, match="activation='swish' is unknown"):
        NetworkClassifier(module__activation="swish").fit(X, y)
    with pytest.raises(ValueError, match=r"dropout=1.5 must lie in \[0, 1\)"):
        NetworkClassifier(module__dropout=1.5).fit(X, y)
    with pytest.raises(ValueError, match=r"hidden=\(3, 0\) must hold positive widths"):
        NetworkClassifier(module__hidden=(3, 0)).fit(X, y)


def test_default_module_needs_rows_of_features(iris):
    _, y = iris
    with pytest.raises(ValueError, match=r"rows of X have shape \(2, 2\). Pass a module"):
        NetworkClassifier().fit(np.zeros((150, 2, 2)), y)
    with pytest.raises(ValueError, match="not known before fit"):
        NetworkClassifier().initialize()


def test_labels_that_were_not_announced(iris):
    X, y = iris
    network = NetworkClassifier(max_epochs=1).partial_fit(X, y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match=r"label\(s\) \[3\].*classes \[0, 1, 2\]"):
        network.partial_fit(X, y + 1)
    with pytest.raises(ValueError, match="differ from those of the first call"):
        network.partial_fit(X, y, classes=[0, 1, 2, 3])


@pytest.mark.parametrize("weight", [[-1.0] * 150, [1.0] * 3, [np.nan] * 150])
def test_bad_sample_weight(weight, iris):
    X, y = iris
    with pytest.raises(ValueError, match=r"sample_weight"):
        NetworkClassifier(Untrainable).fit(X, y, sample_weight=weight)


@pytest.mark.parametrize("estimator", [NetworkClassifier, NetworkRegressor])
def test_missing_targets(estimator, iris):
    with pytest.raises(ValueError, match="requires y to be passed"):
        estimator().fit(iris[0], None)


@pytest.mark.parametrize(
    "column",
    [
        pd.Categorical(list("ab") * 75),
        np.array(["a", "b"] * 75, dtype=object),
        pd.date_range("2020", periods=150),
    ],
)
def test_columns_without_numbers_are_named(column, iris):
    X, y = iris
    frame = pd.DataFrame(X).add_prefix("x").assign(colour=column)
    with pytest.raises(ValueError, match=r"columns without numbers, \{'colour': .*OneHotEncoder"):
        NetworkClassifier(Untrainable).fit(frame, y)


def test_categories_that_are_numbers_are_taken(iris):
    X, y = iris
    frame = pd.DataFrame(X).add_prefix("x").assign(size=pd.Categorical([1.0, 2.0] * 75))
    found = NetworkClassifier(max_epochs=1, random_state=0).fit(frame, y)
    plain = NetworkClassifier(max_epochs=1, random_state=0).fit(frame.astype(float), y)
    np.testing.assert_array_equal(found.predict_proba(frame), plain.predict_proba(frame))
