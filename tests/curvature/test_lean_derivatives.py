"""Graphs with cheap second derivatives: the values and derivatives of PyTorch, and no waste."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from sharpfit.curvature import EmpiricalFisherOperator, GaussNewtonOperator, HessianOperator
from sharpfit.curvature.lean_derivatives import LeanDerivatives
from tests.curvature.reference import Doubled, dense_hessian, seeded


class Convolutions(nn.Module):
    """Convolutions of all kinds, as modules and as functions."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, stride=2, padding=1, dilation=(1, 2), groups=2)
        self.same = nn.Conv2d(4, 4, 3, padding="same", padding_mode="reflect")
        self.transposed = nn.ConvTranspose2d(4, 2, 2)
        self.line = nn.Conv1d(2, 3, 2, padding=1, bias=False)
        self.solid = nn.Conv3d(1, 2, 2)
        self.kernel = nn.Parameter(torch.ones(2, 3, 1))

    def forward(self, inputs):
        maps = self.transposed(torch.tanh(self.same(self.first(inputs))))
        rows = F.conv1d(torch.tanh(self.line(maps.flatten(2))), self.kernel)
        single = torch.stack([self.line(row) for row in maps.flatten(2)])  # without a batch
        solid = self.solid(maps.unsqueeze(1)).flatten(1)
        return torch.cat([rows.mean(2), single.mean(2), torch.tanh(solid[:, :3])], dim=1)


def test_second_derivatives_of_convolutions():
    module = seeded(Convolutions).double()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(3, 2, 5, 6, generator=generator, dtype=torch.float64)
    targets = torch.tensor([0, 4, 7])
    dense = dense_hessian(module, F.cross_entropy, inputs, targets)
    for parameters in (None, ["first.bias", "line.weight"], ["first.weight", "solid.weight"]):
        operator = HessianOperator(
            *(module, nn.CrossEntropyLoss(), inputs, targets),
            **{"parameters": parameters, "route": "graph", "batch_size": 2},
        )
        found = [name in operator.selection.names for name, _ in module.named_parameters()]
        sizes = torch.tensor([parameter.numel() for parameter in module.parameters()])
        kept = torch.repeat_interleave(torch.tensor(found), sizes)
        expected = dense[kept][:, kept]
        torch.testing.assert_close(operator.to_dense(), expected, rtol=0, atol=2e-7)


class Linears(nn.Module):
    """Linear maps of rows, of sequences and of single vectors, with and without bias."""

    def __init__(self):
        super().__init__()
        self.rows = nn.Linear(6, 4)
        self.tokens = nn.Linear(2, 3, bias=False)
        self.tied = nn.Linear(3, 3)
        self.last = nn.Linear(9, 3)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, inputs):
        sequences = torch.sin(self.tokens(inputs.unflatten(1, (3, 2))))
        sequences = torch.tanh(self.tied(self.tied(sequences)))
        outputs = torch.tanh(self.rows(inputs)) @ self.rows.weight[:, :3]
        outputs = outputs + F.linear(sequences.flatten(1), weight=self.last.weight, bias=None)
        single = torch.stack([self.last(row) for row in sequences.flatten(1)])
        return outputs + single * F.linear(inputs[:, :1], self.scale[:, None], self.scale)


LINEAR_SELECTIONS = [
    None,
    ["rows.bias", "tied.bias"],
    ["tokens.weight", "scale"],
    ["tied.weight"],
    ["last.bias"],
]


@pytest.mark.parametrize("parameters", LINEAR_SELECTIONS)
def test_second_derivatives_of_linear_maps(parameters):
    module = seeded(Linears).double()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    targets = torch.tensor([0, 1, 2, 1])
    dense = dense_hessian(module, F.cross_entropy, inputs, targets)
    operator = HessianOperator(
        *(module, nn.CrossEntropyLoss(), inputs, targets),
        **{"parameters": parameters, "route": "graph", "batch_size": 3},
    )
    found = [name in operator.selection.names for name, _ in module.named_parameters()]
    sizes = torch.tensor([parameter.numel() for parameter in module.parameters()])
    kept = torch.repeat_interleave(torch.tensor(found), sizes)
    torch.testing.assert_close(operator.to_dense(), dense[kept][:, kept], rtol=0, atol=2e-7)


PIECEWISE_LINEAR = [
    nn.ReLU(),
    nn.ReLU(inplace=True),
    nn.LeakyReLU(0.2),
    nn.LeakyReLU(0.2, inplace=True),
    nn.ReLU6(),
    nn.Hardtanh(-0.5, 0.5),
    nn.MaxPool2d(2, stride=1),
    F.relu_,
    torch.relu,
    torch.relu_,
    torch.Tensor.relu,
    lambda x: F.relu(x, True),
    lambda x: F.max_pool1d(x.flatten(1), 2),
    lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
    lambda x: F.max_pool3d(x.unsqueeze(1), 2),
    lambda x: torch.max_pool2d(x, [2, 2], padding=1),
]


@pytest.mark.parametrize("function", PIECEWISE_LINEAR)
def test_piecewise_linear_operations(function):
    generator = torch.Generator().manual_seed(0)
    point = torch.randn(2, 2, 4, 4, generator=generator, dtype=torch.float64)
    point[0, 0, 0] = 0.0  # at the kink of the rectifier

    def derivatives():
        x = point.clone().requires_grad_()
        y = function(torch.sin(x) * 1.0)
        weight = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view_as(y)
        (first,) = torch.autograd.grad((weight * y.square()).sum(), x, create_graph=True)
        direction = torch.cos(3 * point)
        (second,) = torch.autograd.grad((first * direction).sum(), x)
        return y.detach(), first.detach(), second

    expected = derivatives()
    with LeanDerivatives():
        found = derivatives()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-14)


class Count(TorchDispatchMode):
    """Counts the operations on images that run."""

    def __init__(self):
        super().__init__()
        self.calls = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if isinstance(args[0], torch.Tensor) and args[0].ndim == 4:
            name = function.overloadpacket.__name__
            self.calls[name] = self.calls.get(name, 0) + 1
        return function(*args, **(kwargs or {}))


def test_products_do_nothing_needless():
    module = nn.Sequential(
        *(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(16, 3)),
    )
    inputs, targets = torch.randn(5, 1, 8, 8), torch.tensor([0, 1, 2, 1, 0])
    operator = HessianOperator(module, nn.CrossEntropyLoss(), inputs, targets, route="graph")
    operator.matvec(torch.ones(operator.size))
    with Count() as count:
        operator.matvec(torch.ones(operator.size))
    # Of the first layer one convolution with the tangent of its weight and one derivative in the
    # weight; of the second one with each tangent, the derivatives along both, and the last pass.
    assert count.calls["convolution"] == 1 + 2
    assert count.calls["convolution_backward"] == 1 + 3
    assert "_convolution_double_backward" not in count.calls
    assert "zeros_like" not in count.calls


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
        self.head = nn.Linear(8, 3)

    def forward(self, inputs):
        return self.head(checkpoint(self.body, inputs, use_reentrant=False))


def test_recomputed_activations():
    module = seeded(Checkpointed).double()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(4, 1, 6, 6, generator=generator, dtype=torch.float64)
    targets = torch.tensor([0, 1, 2, 1])
    dense = dense_hessian(module, F.cross_entropy, inputs, targets)
    operator = HessianOperator(module, nn.CrossEntropyLoss(), inputs, targets)
    torch.testing.assert_close(operator.to_dense(), dense, rtol=0, atol=2e-7)


class Ensemble(nn.Module):
    """Its members run under `torch.func.vmap`."""

    def __init__(self):
        super().__init__()
        self.kernels = nn.Parameter(torch.linspace(-1, 1, 36).view(2, 2, 1, 3, 3))

    def forward(self, inputs):
        def member(kernel):
            return F.max_pool2d(torch.relu(F.conv2d(inputs, kernel)), 2).flatten(1)

        return torch.func.vmap(member)(self.kernels).mean(0)


def test_transforms_inside_the_module():
    module = Ensemble().double()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(4, 1, 4, 4, generator=generator, dtype=torch.float64)
    targets = torch.tensor([0, 1, 1, 0])
    dense = dense_hessian(module, F.cross_entropy, inputs, targets)
    operator = HessianOperator(module, nn.CrossEntropyLoss(), inputs, targets)
    torch.testing.assert_close(operator.to_dense(), dense, rtol=0, atol=2e-7)


class Changed(nn.Module):
    """Linear layers whose outputs are changed in place, and one that may get no rows."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.tokens = nn.Linear(4, 4)
        self.expert = nn.Linear(6, 3)
        self.last = nn.Linear(8, 3)

    def forward(self, inputs):
        hidden = F.relu_(self.first(inputs))
        tokens = self.tokens(hidden.unflatten(1, (2, 4)))
        tokens.mul_(0.5)
        hidden = hidden + F.elu(tokens.flatten(1), inplace=True)
        outputs = self.last(torch.tanh(hidden))
        outputs += 1.0
        chosen = inputs[:, 0] > 100.0
        return outputs.index_add(0, chosen.nonzero()[:, 0], self.expert(inputs[chosen]))


def test_outputs_changed_in_place_and_no_rows():
    module = seeded(Changed).double()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    targets = torch.arange(5) % 3
    operator = HessianOperator(module, nn.CrossEntropyLoss(), inputs, targets, route="graph")
    dense = dense_hessian(module, F.cross_entropy, inputs, targets)
    torch.testing.assert_close(operator.to_dense(), dense, rtol=0, atol=2e-7)


@pytest.mark.parametrize("operation", ["linear", "convolution"])
def test_third_derivatives_are_refused(operation):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(4, 1, 6, generator=generator)
    weight = torch.randn(2, 1, 3, generator=generator, requires_grad=True)
    with LeanDerivatives():
        if operation == "linear":
            outputs = F.linear(inputs.flatten(1), weight.view(1, 6))
        else:
            outputs = torch.conv1d(inputs, weight)
    (gradient,) = torch.autograd.grad(outputs.pow(3).sum(), weight, create_graph=True)
    torch.autograd.grad(gradient.sum(), weight, retain_graph=True)
    with pytest.raises(RuntimeError, match="third derivatives of this graph are not known"):
        torch.autograd.grad(gradient.sum(), weight, create_graph=True)


class Force(nn.Module):
    """A derivative itself, as forces are."""

    def __init__(self):
        super().__init__()
        self.energy = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))

    def forward(self, inputs):
        with torch.enable_grad():
            inputs = inputs.detach().requires_grad_()
            energy = self.energy(inputs).sum()
            return torch.autograd.grad(energy, inputs, create_graph=True)[0]


def test_networks_that_differentiate():
    module = seeded(Force).double()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    targets = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    operator = HessianOperator(module, nn.MSELoss(), inputs, targets, batch_size=2)
    dense = dense_hessian(module, F.mse_loss, inputs, targets)
    torch.testing.assert_close(operator.to_dense(), dense, rtol=0, atol=2e-7)


def test_threads_share_an_operator():
    module = seeded(Linears).double()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    operator = HessianOperator(
        module, nn.CrossEntropyLoss(), inputs, torch.tensor([0, 1, 2, 1]), route="graph"
    )
    vectors = torch.randn(8, operator.size, generator=generator, dtype=torch.float64)
    expected = torch.stack([operator.matvec(vector) for vector in vectors])
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            found = torch.stack(list(pool.map(operator.matvec, vectors)))
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", [HessianOperator, GaussNewtonOperator, EmpiricalFisherOperator])
def test_what_differentiates_once_is_refused(kind):
    # Double backward would leave the path through it out, and find zero.
    inputs, targets = torch.eye(4), torch.tensor([0, 1, 2, 1])
    with pytest.raises(ValueError, match="module Doubled uses an operation that PyTorch differ"):
        kind(Doubled(4, 3), nn.CrossEntropyLoss(), inputs, targets)
