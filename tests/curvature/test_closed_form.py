import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, hessian

from sharpfit.curvature import GaussNewtonOperator, HessianOperator
from tests.curvature.reference import problem, seeded


class Functional(nn.Module):
    """A chain written with functions and methods."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.hidden = nn.Linear(16, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, inputs):
        images = F.max_pool2d(F.relu(self.conv(inputs)), 3, stride=2, padding=1)
        images = F.avg_pool2d(images, 2, stride=1)
        rows = images.view(images.size(0), -1)
        rows = F.dropout(torch.tanh(self.hidden(rows)), training=self.training)
        return self.head(F.leaky_relu(rows, 0.2))


def grouped():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.SiLU(inplace=True),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2),
        nn.GELU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


def signal():
    return nn.Sequential(
        nn.Conv1d(1, 3, 3, padding=1),
        nn.BatchNorm1d(3, affine=False),
        nn.Softplus(),
        nn.MaxPool1d(2),
        nn.Flatten(),
        nn.Linear(9, 4),
        nn.BatchNorm1d(4),
        nn.ELU(),
        nn.Linear(4, 3),
    )


CHAINS = {
    "functional": (Functional, (1, 6, 6)),
    "grouped": (grouped, (1, 6, 6)),
    "signal": (signal, (1, 6)),
    "mlp": (lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(), nn.Linear(6, 3)), (4,)),
}


@pytest.mark.parametrize("selection", [None, "weight", r"bias|^0\.", "^(5|7|head)"])
@pytest.mark.parametrize("name", CHAINS)
def test_closed_forms_equal_double_backward(name, selection):
    build, shape = CHAINS[name]
    module = seeded(build).double()
    if selection is not None and name == "mlp":
        selection = {"^(5|7|head)": "^3"}.get(selection, selection)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(7, *shape, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 3, (7,), generator=generator)
    for kind in (HessianOperator, GaussNewtonOperator):
        arguments = (module, nn.CrossEntropyLoss(), inputs, targets)
        fast = kind(*arguments, batch_size=4, parameters=selection)
        general = kind(*arguments, batch_size=4, parameters=selection, route="graph")
        assert fast.route == "closed_form"
        torch.testing.assert_close(fast.to_dense(), general.to_dense())
        torch.testing.assert_close(fast.gradient(), general.gradient())


def rectified_twice():
    """Narrow layers of many rows lie by columns, and rectifiers pull back in place."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Linear(4, 12),
        nn.ReLU(),
        nn.LeakyReLU(0.1),
        nn.BatchNorm1d(12),
        nn.ReLU6(),
        nn.Linear(12, 20),
        nn.Tanh(),
        nn.Linear(20, 3),
        nn.Hardtanh(),
    )


@pytest.mark.parametrize("route", ["closed_form", "graph"])
def test_narrow_chains_of_many_rows(route):
    module = seeded(rectified_twice).double()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(300, 4, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 3, (300,), generator=generator)
    names = [name for name, _ in module.named_parameters()]
    sizes = [p.numel() for p in module.parameters()]

    def loss(vector):
        parts = [
            part.view_as(p)
            for part, p in zip(vector.split(sizes), module.parameters(), strict=True)
        ]
        outputs = functional_call(module.eval(), dict(zip(names, parts, strict=True)), (inputs,))
        return F.cross_entropy(outputs, targets)

    point = nn.utils.parameters_to_vector(module.parameters()).detach()
    operator = HessianOperator(module, nn.CrossEntropyLoss(), inputs, targets, route=route)
    torch.testing.assert_close(operator.to_dense(), hessian(loss)(point))
    torch.testing.assert_close(operator.gradient(), grad(loss)(point))
    direction = torch.randn(len(point), generator=generator, dtype=torch.float64)
    torch.testing.assert_close(operator.matvec(direction), operator.to_dense() @ direction)


@torch.no_grad()
def test_cotangents_stay_where_the_last_layer_works_in_place():
    module = seeded(lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU())).double()
    inputs = torch.randn(300, 4, dtype=torch.float64)
    operator = HessianOperator(
        module, nn.CrossEntropyLoss(), inputs, torch.zeros(300, dtype=torch.long)
    )
    cotangents = torch.randn(300, 3, dtype=torch.float64)
    kept = cotangents.clone()
    total = torch.zeros(operator.size, dtype=torch.float64)
    for linearisation in operator.linearisations():
        linearisation.add_transposed_product(cotangents, operator.selection.split(total))
    assert torch.equal(cotangents, kept)


class TwoPaths(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, inputs):
        return self.head(inputs + torch.relu(self.layer(inputs)))


class ByValue(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, inputs):
        return self.layer(inputs) if inputs.sum() > 0 else self.layer(-inputs)


class Scaled(nn.Linear):
    def forward(self, inputs):
        return 2 * super().forward(inputs)


def hooked():
    module = nn.Sequential(nn.Linear(4, 3))
    module[0].register_forward_hook(lambda layer, inputs, output: output + 1)
    return module


@pytest.mark.parametrize("build", [TwoPaths, ByValue, hooked, lambda: nn.Sequential(Scaled(4, 3))])
def test_what_is_no_chain_takes_the_general_route(build):
    module = seeded(build).double()
    _, inputs, targets = problem("mlp-tanh")
    operator = HessianOperator(module, nn.CrossEntropyLoss(), inputs, targets)
    assert operator.route == "graph"
    with pytest.raises(ValueError, match="not a chain of layers"):
        HessianOperator(module, nn.CrossEntropyLoss(), inputs, targets, route="closed_form")
