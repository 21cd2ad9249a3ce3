"""Layer Jacobians against torch.func and closed forms, and their product against the network's."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import jacrev

from sharpfit.jacobian import jacobian_norms, layer_jacobians, layer_norms


def _inputs(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _jacobians(function, inputs):
    """Jacobians of all rows, of flattened outputs in flattened inputs."""
    rows = [jacrev(lambda row: function(row[None])[0])(row) for row in inputs]
    entries = inputs[0].numel()
    return torch.stack([row.reshape(-1, entries) for row in rows]).detach()


def _matrix(factor):
    return factor if factor.ndim == 3 else torch.diag_embed(factor)


def _trained_batch_norm(layer, *shape):
    layer(torch.randn(20, *shape) * 3 + 1)
    return layer


IMAGE, SERIES, VECTOR = (2, 6, 5), (4, 7), (9,)
LAYERS = {
    "linear": (lambda: nn.Linear(9, 4), VECTOR),
    "linear of sequences": (lambda: nn.Linear(7, 3), SERIES),
    "relu in place": (lambda: nn.ReLU(inplace=True), VECTOR),
    "elu in place": (lambda: nn.ELU(inplace=True), VECTOR),
    "prelu of images": (lambda: nn.PReLU(2), IMAGE),
    "tanhshrink": (nn.Tanhshrink, VECTOR),
    "softmax": (lambda: nn.Softmax(dim=1), VECTOR),
    "dropout": (lambda: nn.Dropout2d(0.5), IMAGE),
    "unflatten": (lambda: nn.Unflatten(1, (3, 3)), VECTOR),
    "layer norm": (lambda: nn.LayerNorm(9), VECTOR),
    "group norm": (lambda: nn.GroupNorm(1, 2), IMAGE),
    "batch norm 1d": (lambda: _trained_batch_norm(nn.BatchNorm1d(4), *SERIES), SERIES),
    "batch norm 2d": (lambda: _trained_batch_norm(nn.BatchNorm2d(2), *IMAGE), IMAGE),
    "conv 1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, groups=2), SERIES),
    "conv 2d": (lambda: nn.Conv2d(2, 3, (3, 2), stride=2, padding=1), IMAGE),
    "conv 2d dilated": (
        lambda: nn.Conv2d(2, 4, 3, dilation=2, padding=2, padding_mode="circular", groups=2),
        IMAGE,
    ),
    "transposed conv": (lambda: nn.ConvTranspose2d(2, 3, 2, stride=2), IMAGE),
    "max pooling": (lambda: nn.MaxPool2d(3, stride=1, padding=1), IMAGE),
    "average pooling": (lambda: nn.AvgPool2d(2), IMAGE),
    "adaptive pooling": (lambda: nn.AdaptiveAvgPool2d(2), IMAGE),
    "upsampling": (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), IMAGE),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(9, 9)), VECTOR),
    "spectral norm": (lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(9, 9)), VECTOR),
}


def _network(name):
    """Put a layer between dense layers, of which the first sees vectors of length 5."""
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    layer = make()
    before = nn.Sequential(nn.Linear(5, int(np.prod(shape))), nn.Unflatten(1, shape))
    with torch.no_grad():
        leaving = layer(torch.zeros(2, *shape)).flatten(1).shape[1]
    after = nn.Sequential(nn.Flatten(), nn.Linear(leaving, 3), nn.Tanh())
    return nn.Sequential(before, layer, after).double().eval()


@pytest.mark.parametrize("name", LAYERS)
def test_every_kind_of_layer(name):
    net, inputs = _network(name), _inputs(5, 5)
    found = layer_jacobians(net, inputs, batch_size=2)  # the last chunk is one row
    place = found.names.index("1")
    assert found.kinds[place] == type(net[1]).__name__
    assert not found.skipped
    with torch.no_grad():
        entering = net[0](inputs)
        leaving = net[1](entering.clone())
    factor = _jacobians(lambda x: net[1](x.clone()), entering)
    torch.testing.assert_close(_matrix(found.factors[place]), factor)
    torch.testing.assert_close(found.output_jacobians[place], _jacobians(net[2], leaving))
    assert found.is_chain
    torch.testing.assert_close(found.product(), _jacobians(net, inputs))


@pytest.mark.parametrize("name", LAYERS)
def test_norms_of_the_factors_are_the_layer_norms(name):
    net, inputs = _network(name), _inputs(5, 5)
    norms = layer_norms(net, inputs, tol=1e-8, batch_size=2)
    found = layer_jacobians(net, inputs)
    assert norms.names == found.names
    for norm, factor in zip(norms.norms, found.factors, strict=True):
        expected = torch.linalg.matrix_norm(_matrix(factor), 2)
        np.testing.assert_allclose(norm, expected.numpy(), rtol=1e-7)


def test_one_hidden_layer_in_closed_form():
    torch.manual_seed(0)
    net, inputs = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double(), _inputs(7, 4)
    found = layer_jacobians(net, inputs)
    first, last = net[0].weight.detach(), net[2].weight.detach()
    slopes = 1 - torch.tanh(net[0](inputs)).detach() ** 2
    assert [factor.shape for factor in found.factors] == [(7, 6, 4), (7, 6), (7, 2, 6)]
    torch.testing.assert_close(found.factors[0], first.expand(7, 6, 4))
    torch.testing.assert_close(found.factors[1], slopes)
    torch.testing.assert_close(found.output_jacobians[0], last * slopes[:, None])
    torch.testing.assert_close(found.output_jacobians[1], last.expand(7, 2, 6))
    torch.testing.assert_close(found.output_jacobians[2], torch.eye(2).double().expand(7, 2, 2))
    # One matrix for all rows.
    assert found.factors[0].stride(0) == 0


def test_convolutional_network_in_single_precision():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(24, 10),
    )
    inputs = _inputs(6, 1, 8, 8).float()
    found = layer_jacobians(net, inputs)
    assert {factor.dtype for factor in found.factors} == {torch.float32}
    spectral = torch.linalg.matrix_norm(found.product(), 2)
    np.testing.assert_allclose(spectral, jacobian_norms(net, inputs).spectral, rtol=1e-5)


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.activation = nn.Tanh()
        self.mix = nn.Bilinear(3, 3, 2)
        self.memory = nn.LSTM(2, 2, batch_first=True)

    def forward(self, x):
        x = x + self.activation(self.layer(x))
        return self.memory(self.mix(x, self.layer(x)).unsqueeze(1))[0].squeeze(1)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_branching_networks_have_output_jacobians_and_no_product():
    torch.manual_seed(0)
    net, inputs = Branching().double(), _inputs(4, 3)
    found = layer_jacobians(net, inputs)
    assert found.names == ("layer", "activation", "layer")
    assert found.skipped == ("mix", "memory")
    assert not found.is_chain
    behind = []
    for row in inputs:
        rest = lambda a, row=row: net.memory(net.mix(row + a, net.layer(row + a)).unsqueeze(1))[0]
        behind.append(_jacobians(rest, net.activation(net.layer(row[None])).detach()))
    torch.testing.assert_close(found.output_jacobians[1], torch.cat(behind))
    with pytest.raises(ValueError, match="not a chain"):
        found.product()
    assert layer_norms(net, inputs).skipped == ("mix", "memory")


class Transposing(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.second(self.first(x).transpose(1, 2)).flatten(1)


class Rows(nn.Module):
    """Applies a layer to a table of one row and to the rows, flattened into the batch."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.ones(1, 4))
        self.shift, self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, x):
        mixed = self.layer(x.reshape(-1, 4)).reshape(x.shape).mean(dim=1)
        return self.head(mixed + self.shift(self.table))


def test_permuted_and_regrouped_entries_are_not_taken_for_a_chain():
    inputs = _inputs(3, 4, 4)
    permuted = layer_jacobians(Transposing().double(), inputs)
    assert permuted.names == ("first", "second")
    assert not permuted.is_chain
    regrouped = layer_jacobians(Rows().double(), inputs, batch_size=2)
    assert regrouped.names == ("head",)
    assert regrouped.skipped == ("layer", "shift")
    assert layer_norms(Rows().double(), inputs, batch_size=2).names == ("head",)


def test_hooks_of_a_layer_are_part_of_it():
    torch.manual_seed(0)
    net, inputs = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)).double(), _inputs(4, 3)
    net[0].register_forward_hook(lambda layer, args, output: 2 * output)
    net[1].register_forward_pre_hook(lambda layer, args: (args[0] ** 2,))
    found = layer_jacobians(net, inputs)
    torch.testing.assert_close(found.factors[0], 2 * net[0].weight.detach().expand(4, 3, 3))
    torch.testing.assert_close(found.product(), _jacobians(net, inputs))
    norms = layer_norms(net, inputs, tol=1e-9).norms
    np.testing.assert_allclose(norms[1], torch.linalg.matrix_norm(found.factors[1], 2))


def test_some_of_the_layers():
    torch.manual_seed(0)
    layer = nn.Linear(3, 3)
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), layer, nn.ReLU(), layer).double()
    inputs = _inputs(5, 4)
    every = layer_jacobians(net, inputs)
    some = layer_jacobians(net, inputs, layers=["2", "0"])
    assert some.names == ("0", "2", "2")
    assert not some.is_chain
    for place, number in enumerate((0, 2, 4)):
        torch.testing.assert_close(some.factors[place], every.factors[number])
        torch.testing.assert_close(some.output_jacobians[place], every.output_jacobians[number])


def test_memory_that_does_not_suffice_is_told_before_the_work():
    net, inputs = nn.Sequential(nn.Linear(4, 6), nn.Softmax(dim=1)).double(), _inputs(7, 4)
    # One weight, a factor of the softmax per row, and two times 6 x 6 behind per row.
    needed = 8 * (6 * 4 + 7 * 36 + 7 * 2 * 36)
    message = f"2 layer calls at 7 rows take {needed:,} bytes.*layers="
    with pytest.raises(ValueError, match=message):
        layer_jacobians(net, inputs, memory_budget=needed - 1)
    found = layer_jacobians(net, inputs, memory_budget=needed)
    held = {tensor.untyped_storage() for tensor in (*found.factors, *found.output_jacobians)}
    assert sum(storage.nbytes() for storage in held) == needed


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        (["0", "third"], ValueError, "layers names 'third'; .* are '0', '1'"),
        ("0", TypeError, r"use \['0'\]"),
    ],
)
def test_unknown_layers_are_named(layers, error, message):
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh()).double()
    with pytest.raises(error, match=message):
        layer_jacobians(net, _inputs(3, 4), layers=layers)


def test_module_is_untouched():
    net, inputs = _network("batch norm 2d").train(), _inputs(5, 5)
    before = copy.deepcopy(net.state_dict())
    layer_jacobians(net, inputs)
    assert all(module.training for module in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


class Square(nn.Module):
    def forward(self, x):
        return x**2


def test_a_module_without_layers_of_its_own_is_one_layer():
    inputs = _inputs(3, 2)
    found = layer_jacobians(Square(), inputs)
    assert found.names == ("",)
    torch.testing.assert_close(found.factors[0], torch.diag_embed(2 * inputs))
    torch.testing.assert_close(found.product(), torch.diag_embed(2 * inputs))
