"""Dense matrices from finite differences in float64, and the networks they are taken of."""

import copy
import itertools

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable


def double_copy(module):
    return copy.deepcopy(module).double().eval()


def _parameters(module, names):
    own = dict(module.named_parameters())
    return [own[name] for name in (names or own) if own[name].requires_grad]


def _read(parameters):
    return torch.cat([parameter.detach().reshape(-1) for parameter in parameters])


def _write(parameters, vector):
    start = 0
    for parameter in parameters:
        count = parameter.numel()
        parameter.data.copy_(vector[start : start + count].view_as(parameter))
        start += count


def _central_differences(function, parameters, step):
    point = _read(parameters)
    columns = []
    for index in range(point.numel()):
        ends = []
        for sign in (1, -1):
            moved = point.clone()
            moved[index] += sign * step
            _write(parameters, moved)
            ends.append(function())
        columns.append((ends[0] - ends[1]) / (2 * step))
    _write(parameters, point)
    return torch.stack(columns, dim=-1)


def dense_hessian(module, objective, inputs, targets, names=None, step=1e-6):
    """Hessian of `objective(outputs, targets)` by differences of its gradient."""
    module = double_copy(module)
    parameters = _parameters(module, names)
    inputs = inputs.double() if inputs.is_floating_point() else inputs

    def gradient():
        found = torch.autograd.grad(
            objective(module(inputs), targets),
            parameters,
            materialize_grads=True,
            allow_unused=True,
        )
        return torch.cat([part.reshape(-1) for part in found])

    matrix = _central_differences(gradient, parameters, step)
    return (matrix + matrix.T) / 2


def dense_jacobian(module, inputs, names=None, step=1e-6):
    """Derivative of the outputs in the parameters by differences, of shape (n, C, P)."""
    module = double_copy(module)
    inputs = inputs.double() if inputs.is_floating_point() else inputs

    def outputs():
        with torch.no_grad():
            return module(inputs)

    return _central_differences(outputs, _parameters(module, names), step)


def output_curvature(module, sample_value, inputs, targets, step=1e-4):
    """Hessian of the loss of every row in its outputs by differences of values, (n, C, C)."""
    module = double_copy(module)
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    with torch.no_grad():
        outputs = module(inputs)
    count, width = outputs.shape
    unit = step * torch.eye(width, dtype=torch.float64)
    matrix = torch.zeros(count, width, width, dtype=torch.float64)
    for i in range(width):
        for j in range(width):
            corners = [
                a * b * sample_value(outputs + a * unit[i] + b * unit[j], targets)
                for a in (1, -1)
                for b in (1, -1)
            ]
            matrix[:, i, j] = sum(corners) / (4 * step**2)
    return matrix


def gauss_newton(jacobian, curvature, weights):
    return torch.einsum("nip,nij,njq,n->pq", jacobian, curvature, jacobian, weights.double())


def cross_entropy(outputs, targets):
    return F.cross_entropy(outputs, targets, reduction="none")


class Residual(nn.Module):
    """A small convolutional network with a skip connection, which is no chain of layers."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3, padding=1)
        self.norm = nn.BatchNorm2d(2)
        self.second = nn.Conv2d(2, 2, 3, padding=1)
        self.head = nn.Linear(2, 3)

    def forward(self, inputs):
        hidden = torch.tanh(self.norm(self.first(inputs)))
        hidden = torch.relu(hidden + self.second(hidden))
        return self.head(hidden.mean(dim=(2, 3)))


def randomise_statistics(module, generator):
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            shape = layer.running_mean.shape
            layer.running_mean.copy_(0.3 * torch.randn(shape, generator=generator))
            layer.running_var.copy_(0.5 + torch.rand(shape, generator=generator))
    return module


def seeded(build):
    """Build a module without touching the global random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        module = build()
        return randomise_statistics(module, torch.Generator().manual_seed(1)).eval()


def mlp(activation=nn.Tanh, sizes=(4, 5, 4, 3)):
    layers = []
    for width, following in itertools.pairwise(sizes):
        layers += [nn.Linear(width, following), activation()]
    return nn.Sequential(*layers[:-1])


def cnn():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 2, 3, stride=2, bias=False),
        nn.Softplus(),
        nn.Flatten(),
        nn.Linear(2, 3),
    )


NETWORKS = {
    "mlp-tanh": (lambda: mlp(nn.Tanh), (4,)),
    "mlp-relu": (lambda: mlp(nn.ReLU), (4,)),
    "linear": (lambda: nn.Sequential(nn.Linear(4, 3)), (4,)),
    "cnn": (cnn, (1, 6, 6)),
    "residual": (Residual, (1, 4, 4)),
}


def problem(name, n_rows=6, dtype=torch.float64, seed=0):
    """Return a network, inputs and class numbers."""
    build, shape = NETWORKS[name]
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n_rows, *shape, generator=generator, dtype=torch.float64).to(dtype)
    targets = torch.randint(0, 3, (n_rows,), generator=generator)
    return seeded(build).to(dtype), inputs, targets


class Once(torch.autograd.Function):
    """Doubles, with a derivative that has none."""

    @staticmethod
    def forward(ctx, inputs):
        return 2 * inputs

    @staticmethod
    @once_differentiable
    def backward(ctx, cotangents):
        return 2 * cotangents


class Doubled(nn.Linear):
    """A linear layer of which PyTorch knows the first derivative alone."""

    def forward(self, inputs):
        return Once.apply(super().forward(inputs))
