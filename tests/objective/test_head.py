"""Moving the final softmax or sigmoid into the loss leaves the loss as it was."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sharpfit.objective import split_head

INPUTS = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 1, 1, 0, 1, 0])


class FunctionalHead(nn.Module):
    def __init__(self, head):
        super().__init__()
        self.dense = nn.Linear(3, 2)
        self.head = head

    def forward(self, inputs):
        return self.head(self.dense(inputs))


def softmax(outputs):
    return F.softmax(outputs, dim=1)


def one_probability(outputs):
    return torch.sigmoid(outputs[:, 0] - outputs[:, 1])


PROBABILITIES = {
    "layer": nn.Sequential(nn.Linear(3, 2), nn.Softmax(dim=1)),
    "function": FunctionalHead(softmax),
}


@pytest.mark.parametrize("kind", PROBABILITIES)
def test_probabilities_under_a_logged_nll(kind):
    network = PROBABILITIES[kind].eval()
    before = copy.deepcopy(network.state_dict())
    module, criterion = split_head(network, nn.NLLLoss(), INPUTS, criterion_takes_log=True)
    expected = F.nll_loss(network(INPUTS).log(), LABELS)
    torch.testing.assert_close(criterion(module(INPUTS), LABELS), expected)
    assert dict(module.named_parameters()).keys() == dict(network.named_parameters()).keys()
    assert before.keys() == network.state_dict().keys()
    torch.testing.assert_close(
        network(INPUTS).sum(dim=1), torch.ones(6)
    )  # the original still ends in its softmax


def test_stripped_softmax_layer_returns_the_logits_themselves():
    network = PROBABILITIES["layer"].eval()
    module, _ = split_head(network, nn.NLLLoss(), INPUTS, criterion_takes_log=True)
    torch.testing.assert_close(module(INPUTS), network[0](INPUTS))


def test_log_probabilities_under_nll_with_class_weights():
    network = nn.Sequential(nn.Linear(3, 2), nn.LogSoftmax(dim=1)).eval()
    weighted = nn.NLLLoss(weight=torch.tensor([1.0, 3.0]))
    module, criterion = split_head(network, weighted, INPUTS)
    torch.testing.assert_close(criterion(module(INPUTS), LABELS), weighted(network(INPUTS), LABELS))


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Linear(3, 1), nn.Sigmoid()),
        FunctionalHead(one_probability),
    ],
)
def test_sigmoid_under_binary_cross_entropy(network):
    network = network.eval()
    module, criterion = split_head(network, nn.BCELoss(), INPUTS)
    outputs = module(INPUTS)
    assert outputs.shape == (6, 1)
    targets = LABELS.float()
    expected = F.binary_cross_entropy(network(INPUTS).reshape(-1), targets)
    torch.testing.assert_close(criterion(outputs, targets.unsqueeze(1)), expected)


def test_flat_outputs_get_an_output_axis():
    module, _ = split_head(nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)), nn.MSELoss(), INPUTS)
    assert module(INPUTS).shape == (6, 1)


def test_logits_under_nll_are_refused():
    with pytest.raises(ValueError, match="CrossEntropyLoss"):
        split_head(nn.Linear(3, 2), nn.NLLLoss(), INPUTS)


def test_probabilities_under_a_plain_nll_are_refused():
    with pytest.raises(ValueError, match="returns probabilities"):
        split_head(PROBABILITIES["layer"], nn.NLLLoss(), INPUTS)


def test_several_outputs_are_refused():
    class Pair(nn.Module):
        def forward(self, inputs):
            return inputs, inputs

    with pytest.raises(ValueError, match="returns tuple"):
        split_head(Pair(), nn.MSELoss(), INPUTS)


def test_maps_are_refused():
    with pytest.raises(ValueError, match=r"shape \(6, 1, 3\)"):
        split_head(nn.Unflatten(1, (1, 3)), nn.MSELoss(), INPUTS)
