"""An operator that takes over other values of its module, or is unpickled, against a new one."""

import copy
import pickle

import pytest
import torch
from torch import nn

from sharpfit.curvature import HessianOperator
from tests.curvature.reference import seeded


def moved(module):
    """Return a copy with other parameters and other buffers."""
    generator = torch.Generator().manual_seed(1)
    other = copy.deepcopy(module)
    with torch.no_grad():
        for tensor in [*other.parameters(), *other.buffers()]:
            if tensor.is_floating_point():
                tensor.mul_(1 + torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype))
    return other


def convolutional():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(12, 3),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("route", ["closed_form", "traced", "graph"])
def test_reloaded_operators_are_new_operators(route, dtype):
    module = seeded(convolutional).double()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(6, 1, 4, 4, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 3, (6,), generator=generator)
    settings = {"route": route, "batch_size": 4, "dtype": dtype}
    operator = HessianOperator(module, nn.CrossEntropyLoss(), inputs, targets, **settings)
    vector = torch.linspace(-1, 1, operator.size, dtype=dtype)
    operator.gradient()
    operator.matvec(vector)
    other = moved(module)
    operator.reload(other)
    expected = HessianOperator(other, nn.CrossEntropyLoss(), inputs, targets, **settings)
    torch.testing.assert_close(operator.gradient(), expected.gradient())
    torch.testing.assert_close(operator.matvec(vector), expected.matvec(vector))
    assert operator.gauss_newton_form(vector) == pytest.approx(expected.gauss_newton_form(vector))
    assert operator.batch_size == 4


@pytest.mark.parametrize("route", ["closed_form", "traced", "graph"])
def test_unpickled_operators_multiply_and_reload(route):
    module = seeded(convolutional).double()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(6, 1, 4, 4, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 3, (6,), generator=generator)
    arguments = (nn.CrossEntropyLoss(), inputs, targets)
    settings = {"route": route, "batch_size": 4, "weight_decay": 0.1, "parameters": "weight"}
    operator = HessianOperator(module, *arguments, **settings)
    vector = torch.linspace(-1, 1, operator.size, dtype=torch.float64)
    expected = operator.matvec(vector)
    back = pickle.loads(pickle.dumps(operator))
    assert (back.route, back.n_kept_chunks, operator.n_kept_chunks) == (operator.route, 0, 2)
    torch.testing.assert_close(back.matvec(vector), expected, rtol=0, atol=0)
    other = moved(module)
    back.reload(other)
    expected = HessianOperator(other, *arguments, **settings).matvec(vector)
    torch.testing.assert_close(back.matvec(vector), expected)
