"""Networks that are no functions of single rows are refused, with the remedy."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import make_classification
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from sharpfit import GeneralisationBound, HessianSpectrum, JacobianProfiler, NetworkClassifier
from sharpfit.curvature import (
    BatchObjective,
    HessianOperator,
    ObjectiveHessianOperator,
    hessian_spectrum,
)
from sharpfit.jacobian import jacobian_norms
from sharpfit.objective.first_outputs import first_outputs, require_rows_apart

CRITERION = nn.CrossEntropyLoss()


class Changed(nn.Module):
    """A linear layer of changed rows."""

    def __init__(self, change):
        super().__init__()
        self.dense = nn.Linear(6, 3)
        self.change = change

    def forward(self, inputs):
        return self.dense(self.change(inputs))


def always_drops(inputs):
    return F.dropout(inputs, 0.5)


OWN = torch.Generator()


def adds_noise_of_its_own(inputs):
    return inputs + torch.randn(inputs.shape, generator=OWN)


def centres(inputs):
    return inputs - inputs.mean(dim=0)


def drops_the_layer(inputs):
    return inputs if torch.rand(()) > 0.1 else 0 * inputs


def draws_for_nothing(inputs):
    torch.rand(3)
    return inputs


def rows(count=20):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 6, generator=generator), torch.arange(count) % 3


@pytest.mark.parametrize("change", [always_drops, adds_noise_of_its_own, drops_the_layer])
def test_random_networks(change):
    network = Changed(change)
    inputs, targets = rows()
    before = torch.get_rng_state()
    refusal = "returns something else for the same rows .* switch its randomness off"
    with pytest.raises(ValueError, match=refusal):
        HessianOperator(network, CRITERION, inputs, targets)
    with pytest.raises(ValueError, match=refusal):
        jacobian_norms(network, inputs)
    objective = BatchObjective(lambda module, x, y: CRITERION(module(x), y))
    with pytest.raises(ValueError, match=refusal):
        ObjectiveHessianOperator(network, objective, inputs, targets)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("analyser", [HessianSpectrum, JacobianProfiler, GeneralisationBound])
def test_random_networks_in_analysers(analyser):
    X, y = make_classification(60, 6, n_informative=4, n_classes=3, random_state=0)
    network = NetworkClassifier(Changed, module__change=always_drops, max_epochs=2, verbose=0)
    network.fit(X, y)
    with pytest.raises(ValueError, match="switch its randomness off"):
        analyser(network).fit(X, y)


def test_networks_that_draw_and_are_not_changed_by_it():
    inputs, targets = rows()
    network = Changed(draws_for_nothing)
    plain = nn.Sequential(network.dense)
    found = HessianOperator(network, CRITERION, inputs, targets).to_dense()
    torch.testing.assert_close(
        found, HessianOperator(plain, CRITERION, inputs, targets).to_dense(), rtol=0, atol=1e-6
    )


def normalised_by_the_batch():
    return nn.Sequential(
        nn.Linear(6, 5), nn.BatchNorm1d(5, track_running_stats=False), nn.Linear(5, 3)
    )


class RecursOverRows(nn.Module):
    """Takes the rows for the times of one sequence, of which the first sees no other."""

    def __init__(self):
        super().__init__()
        self.recurrent = nn.LSTM(6, 3)

    def forward(self, inputs):
        return self.recurrent(inputs)[0]


class AttendsToRows(nn.Module):
    """Takes the rows for the places of one sequence."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2)
        self.dense = nn.Linear(6, 3)

    def forward(self, inputs):
        return self.dense(self.attention(inputs, inputs, inputs, need_weights=False)[0])


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (lambda: Changed(centres), "returns other outputs for a row when other rows change"),
        (lambda: Changed(lambda x: x.cumsum(0)), "returns other outputs for a row when other"),
        (lambda: Changed(lambda x: x / x.abs().max()), "returns other outputs for a row when"),
        (AttendsToRows, "returns other outputs for a row when other rows change"),
        (RecursOverRows, "returns other outputs for a row when other rows change"),
        (normalised_by_the_batch, "returns other outputs for a row when other rows change"),
    ],
)
def test_networks_that_mix_rows(network, reason):
    inputs, targets = rows()
    with pytest.raises(ValueError, match=f"{reason}.*, so its rows depend on each other"):
        HessianOperator(network(), CRITERION, inputs, targets)
    with pytest.raises(ValueError, match="depend"):
        jacobian_norms(network(), inputs)


def test_networks_that_mix_rows_have_the_hessian_of_an_objective():
    inputs, targets = rows()
    network = Changed(centres)
    objective = BatchObjective(lambda module, x, y: CRITERION(module(x), y))
    found = ObjectiveHessianOperator(network, objective, inputs, targets).to_dense()
    centred = HessianOperator(
        nn.Sequential(network.dense), CRITERION, centres(inputs), targets
    ).to_dense()
    torch.testing.assert_close(found, centred, rtol=0, atol=1e-6)
    objective = BatchObjective(lambda module, x, y: CRITERION(module(x), y))
    assert ObjectiveHessianOperator(normalised_by_the_batch(), objective, inputs, targets).size


def doubled():
    """Return a network whose two halves cancel but for rounding."""
    first, last = nn.Linear(6, 512), nn.Linear(512, 1, bias=False)
    with torch.no_grad():
        first.weight[256:], first.bias[256:] = first.weight[:256], first.bias[:256]
        last.weight[:, 256:] = -last.weight[:, :256]
    return nn.Sequential(first, nn.ReLU(), last)


@pytest.mark.parametrize("seed", range(3))
def test_outputs_of_rounding_alone(seed):
    torch.manual_seed(seed)
    network, (inputs, _) = doubled(), rows()
    assert HessianOperator(network, nn.MSELoss(), inputs, inputs[:, :1]).size == 4096
    jacobian_norms(network, inputs)


def test_low_precision():
    for seed in range(5):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 5)).bfloat16()
        assert len(jacobian_norms(network, torch.randn(4, 64).bfloat16()).spectral) == 4


def test_outputs_without_a_last_axis():
    network = nn.Sequential(nn.Linear(6, 1), nn.Flatten(0))
    inputs, _ = rows()
    assert len(jacobian_norms(network, inputs).spectral) == 20
    with pytest.raises(ValueError, match=r"returns \(8,\) for 8 rows"):
        HessianOperator(network, nn.MSELoss(), inputs, inputs[:, 0])


def test_one_row_and_rows_that_are_not_finite():
    network = Changed(centres).eval()
    inputs = rows()[0]
    require_rows_apart(network, inputs[:1], first_outputs(network, inputs[:1]))
    plain = nn.Linear(6, 3)
    inputs[0, 0] = torch.nan  # refused elsewhere, with its place
    require_rows_apart(plain, inputs, first_outputs(plain, inputs))


def test_networks_that_do_not_run():
    inputs, targets = rows(1)
    refusal = r"does not run on rows of shape \(6,\) and dtype torch.float32 \(Expected more than 1"
    with pytest.raises(ValueError, match=refusal):
        HessianOperator(normalised_by_the_batch(), CRITERION, inputs, targets)
    inputs, targets = rows()
    with pytest.raises(ValueError, match=r"rows of shape \(5,\) .*mat1 and mat2 shapes"):
        hessian_spectrum(Changed(centres), CRITERION, inputs[:, :5], targets)


class Augmented(Dataset):
    """Rows with fresh noise at every reading."""

    def __len__(self):
        return 20

    def __getitem__(self, index):
        inputs, targets = rows()
        return inputs[index] + torch.randn(6), targets[index]


def test_data_that_changes_between_readings():
    with pytest.raises(ValueError, match="Augmented, which yields other rows when it is read"):
        hessian_spectrum(nn.Linear(6, 3), CRITERION, Augmented())


def test_data_with_missing_entries_that_the_network_fills():
    inputs, targets = rows()
    inputs[3, 2] = torch.nan
    data = TensorDataset(inputs, targets)
    assert HessianOperator(Changed(torch.nan_to_num), CRITERION, data).size == 21
