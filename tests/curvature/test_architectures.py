"""Modules outside the closed forms: attention, embeddings, recurrence, and odd data."""

import pytest
import torch
import torch.nn.functional as F
from skorch.dataset import Dataset as SkorchDataset
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from sharpfit.curvature import GaussNewtonOperator, HessianOperator, attribution, hessian_spectrum
from tests.curvature.reference import dense_hessian, problem, seeded


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.encoder = nn.TransformerEncoderLayer(
            4, 2, dim_feedforward=3, activation="gelu", batch_first=True
        )
        self.head = nn.Linear(4, 3)

    def forward(self, tokens):
        return self.head(self.encoder(self.embedding(tokens)).mean(dim=1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.GRU(2, 3, batch_first=True)
        self.head = nn.Linear(3, 3)

    def forward(self, inputs):
        return self.head(self.layer(inputs)[0][:, -1])


def tokens():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 5, (4, 3), generator=generator), torch.tensor([0, 2, 1, 1])


@pytest.mark.parametrize("route", ["auto", "traced"])
def test_transformer_encoder(route):
    module = seeded(Encoder).double()
    inputs, targets = tokens()
    dense = dense_hessian(module, F.cross_entropy, inputs, targets)
    operator = HessianOperator(
        module, nn.CrossEntropyLoss(), inputs, targets, batch_size=2, route=route
    )
    assert operator.route == {"auto": "graph", "traced": "traced"}[route]
    vectors = torch.randn(
        operator.size, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    torch.testing.assert_close(operator @ vectors, dense @ vectors, rtol=1e-6, atol=1e-6)
    top = torch.linalg.eigh(dense)[1][:, -1]
    split = attribution(module, nn.CrossEntropyLoss(), inputs, targets, vectors=top)
    assert split.samples.sum() == pytest.approx(split.eigenvalue, rel=1e-6)
    assert torch.backends.mha.get_fastpath_enabled()


def test_recurrent_network():
    module = seeded(Recurrent).double()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(5, 4, 2, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 3, (5,), generator=generator)
    dense = dense_hessian(module, F.cross_entropy, inputs, targets)
    operator = HessianOperator(module, nn.CrossEntropyLoss(), inputs, targets)
    assert operator.route == "graph"
    torch.testing.assert_close(operator.to_dense(), dense, rtol=0, atol=2e-7)


@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_normalisation(dim):
    def build():
        last = nn.utils.parametrizations.weight_norm(nn.Linear(5, 3), dim=dim)
        return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), last)

    module = seeded(build).double()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 3, (6,), generator=generator)
    before = str(module)
    dense = dense_hessian(module, F.cross_entropy, inputs, targets)
    operator = HessianOperator(module, nn.CrossEntropyLoss(), inputs, targets)
    torch.testing.assert_close(operator.to_dense(), dense, rtol=0, atol=2e-7)
    assert str(module) == before


def test_contexts_that_change_derivatives_are_refused():
    module, inputs, targets = problem("mlp-tanh", dtype=torch.float32)
    operator = HessianOperator(module, nn.CrossEntropyLoss(), inputs, targets)
    vector = torch.ones(operator.size)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with pytest.raises(RuntimeError, match="enabled=False"):
            HessianOperator(module, nn.CrossEntropyLoss(), inputs, targets)
        with pytest.raises(RuntimeError, match="enabled=False"):
            operator.matvec(vector)
    with torch.inference_mode():
        with pytest.raises(RuntimeError, match=r"or use torch\.no_grad"):
            HessianOperator(module, nn.CrossEntropyLoss(), inputs, targets)
        with pytest.raises(RuntimeError, match=r"or use torch\.no_grad"):
            operator.matvec(vector)
    with torch.no_grad():
        assert operator.matvec(vector).isfinite().all()


class Cube(torch.autograd.Function):
    """In the style that torch.func refuses."""

    @staticmethod
    def forward(context, inputs):
        context.save_for_backward(inputs)
        return inputs**3

    @staticmethod
    def backward(context, gradient):
        (inputs,) = context.saved_tensors
        return 3 * inputs**2 * gradient


class Custom(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, inputs):
        return Cube.apply(self.layer(inputs))


def test_what_torch_func_refuses_falls_back_to_double_backward():
    module = seeded(Custom).double()
    _, inputs, targets = problem("mlp-tanh", n_rows=40)
    dense = dense_hessian(module, F.cross_entropy, inputs, targets)
    with pytest.warns(UserWarning, match="cannot be traced .* double backward"):
        operator = HessianOperator(module, nn.CrossEntropyLoss(), inputs, targets, batch_size=1)
    assert operator.route == "graph"
    torch.testing.assert_close(operator.to_dense(), dense, rtol=0, atol=2e-7)
    with pytest.raises(ValueError, match="cannot be traced"):
        HessianOperator(module, nn.CrossEntropyLoss(), inputs, targets, route="traced")


def test_many_chunks_share_a_trace():
    module, inputs, targets = problem("residual", n_rows=40)
    arguments = (module, nn.CrossEntropyLoss(), inputs, targets)
    operator = HessianOperator(*arguments, batch_size=1)
    assert operator.route == "traced"
    whole = HessianOperator(*arguments, route="graph", batch_size=40)
    vector = torch.linspace(-1, 1, whole.size, dtype=torch.float64)
    torch.testing.assert_close(operator.matvec(vector), whole.matvec(vector))


def test_rows_stream_from_data_sets_and_loaders():
    module, inputs, targets = problem("mlp-tanh", n_rows=11)
    expected = HessianOperator(module, nn.CrossEntropyLoss(), inputs, targets).to_dense()
    dataset = TensorDataset(inputs, targets)
    loader = DataLoader(dataset, batch_size=3, shuffle=True)
    random_state = torch.get_rng_state()
    for source in (dataset, loader, SkorchDataset(inputs.numpy(), targets.numpy())):
        for budget in (2**31, 1):
            operator = HessianOperator(
                module, nn.CrossEntropyLoss(), source, batch_size=4, memory_budget=budget
            )
            torch.testing.assert_close(operator.to_dense(), expected)
            assert operator.n_kept_chunks == (3 if budget > 1 else 0)
    assert torch.equal(torch.get_rng_state(), random_state)


class Stream(IterableDataset):
    def __iter__(self):
        yield torch.zeros(4), torch.tensor(0)


def test_data_that_cannot_be_used_is_refused():
    module, inputs, targets = problem("mlp-tanh")
    criterion = nn.CrossEntropyLoss()
    with pytest.raises(TypeError, match="IterableDataset"):
        HessianOperator(module, criterion, Stream())
    with pytest.raises(TypeError, match="expected pairs"):
        HessianOperator(module, criterion, TensorDataset(inputs))
    with pytest.raises(ValueError, match="a tuple of 2 tensors; give rows and their"):
        HessianOperator(module, criterion, (inputs, targets))
    with pytest.raises(ValueError, match="targets is missing"):
        HessianOperator(module, criterion, inputs)
    with pytest.raises(ValueError, match="targets must not be given"):
        HessianOperator(module, criterion, TensorDataset(inputs, targets), targets)
    with pytest.raises(ValueError, match="as many targets"):
        HessianOperator(module, criterion, inputs, targets[:3])
    with pytest.raises(
        ValueError, match=r"ndarray is taken for; convert arrays by torch\.as_tensor"
    ):
        HessianOperator(module, criterion, inputs.numpy(), targets.numpy())
    with pytest.raises(ValueError, match="at least one row"):
        HessianOperator(module, criterion, inputs[:0], targets[:0])
    with pytest.raises(ValueError, match="TensorDataset, which has no rows"):
        HessianOperator(module, criterion, TensorDataset(inputs[:0], targets[:0]))
    wrong = targets.clone()
    wrong[[1, 3]] = torch.tensor([-100, 3])  # the first does not count
    with pytest.raises(ValueError, match=r"targets\[3\] is 3, but the module has 3 outputs"):
        HessianOperator(module, criterion, inputs, wrong)
    with pytest.raises(TypeError, match="preconditioner must be a Tensor, got list"):
        HessianOperator(module, criterion, inputs, targets, preconditioner=[1.0])
    with pytest.raises(ValueError, match="lazy parameters without a shape"):
        HessianOperator(nn.LazyLinear(3), criterion, inputs, targets)
    with pytest.raises(ValueError, match="convert one of them"):
        HessianOperator(module, criterion, inputs.float(), targets)
    with pytest.raises(ValueError, match="sample_weight has shape"):
        HessianOperator(module, criterion, inputs, targets, sample_weight=torch.ones(2))
    with pytest.raises(ValueError, match="sample_weight must be non-negative"):
        HessianOperator(module, criterion, inputs, targets, sample_weight=-torch.ones(6))
    with pytest.raises(ValueError, match="one row of logits"):
        HessianOperator(nn.Sequential(nn.Linear(4, 3), nn.Flatten(0)).double(), criterion, inputs,
                        targets)  # fmt: skip


def test_rows_that_are_not_finite_are_named():
    module, inputs, targets = problem("mlp-tanh")
    inputs[4, 1] = torch.nan
    operator = HessianOperator(module, nn.CrossEntropyLoss(), inputs, targets, batch_size=3)
    with pytest.raises(ValueError, match="row 4 of inputs"):
        operator.matvec(torch.ones(operator.size, dtype=torch.float64))


def test_losses_without_curvature():
    _, inputs, _ = problem("mlp-tanh")
    targets = torch.linspace(-3, 3, 6, dtype=torch.float64)
    network = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    dense = dense_hessian(network, lambda z, y: F.l1_loss(z.squeeze(1), y), inputs, targets)
    arguments = (network, nn.L1Loss(), inputs, targets)
    for route in ("auto", "graph"):
        found = HessianOperator(*arguments, route=route).to_dense()
        torch.testing.assert_close(found, dense, rtol=0, atol=2e-7)
        assert not GaussNewtonOperator(*arguments, route=route).to_dense().any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_needs_a_wider_dtype(dtype):
    module, inputs, targets = problem("mlp-tanh", dtype=dtype)
    arguments = (module, nn.CrossEntropyLoss(), inputs, targets)
    with pytest.raises(ValueError, match=r"pass dtype=torch\.float32"):
        HessianOperator(*arguments)
    wide = HessianOperator(module.double(), nn.CrossEntropyLoss(), inputs.double(), targets)
    module.to(dtype)
    narrow = HessianOperator(*arguments, dtype=torch.float64)
    torch.testing.assert_close(narrow.to_dense(), wide.to_dense())


class Constant(nn.Module):
    """Its outputs do not depend on its parameter."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, inputs):
        return inputs[:, :3]


@pytest.mark.parametrize("route", ["auto", "traced"])
def test_constant_networks_have_no_curvature(route):
    _, inputs, targets = problem("mlp-tanh")
    arguments = (Constant().double(), nn.CrossEntropyLoss(), inputs, targets)
    for kind in (HessianOperator, GaussNewtonOperator):
        assert not kind(*arguments, route=route).to_dense().any()
    result = hessian_spectrum(*arguments, n_eigenvalues=1, random_state=0, route=route)
    assert result.eigenvalues[0] == 0


def test_zero_gradients():
    # Perfectly fitted squared error: the residual vanishes, the Gauss-Newton matrix does not.
    module, inputs, _ = problem("mlp-tanh")
    targets = module(inputs).detach()
    arguments = (module, nn.MSELoss(), inputs, targets)
    hessian = HessianOperator(*arguments)
    torch.testing.assert_close(hessian.to_dense(), GaussNewtonOperator(*arguments).to_dense())
    assert not hessian.gradient().any()


def test_one_row():
    module, inputs, targets = problem("cnn", n_rows=1)
    dense = dense_hessian(module, F.cross_entropy, inputs, targets)
    operator = HessianOperator(module, nn.CrossEntropyLoss(), inputs, targets)
    torch.testing.assert_close(operator.to_dense(), dense, rtol=0, atol=2e-7)


def test_frozen_parameters_are_left_out_or_refused():
    module, inputs, targets = problem("mlp-tanh")
    module[0].weight.requires_grad_(False)
    arguments = (module, nn.CrossEntropyLoss(), inputs, targets)
    assert "0.weight" not in HessianOperator(*arguments).selection.names
    with pytest.raises(ValueError, match=r"'0\.weight', which is frozen"):
        HessianOperator(*arguments, parameters=["0.weight"])
    with pytest.raises(ValueError, match="does not have"):
        HessianOperator(*arguments, parameters=["nothing"])
    module.requires_grad_(False)
    with pytest.raises(ValueError, match="all its parameters are frozen"):
        HessianOperator(*arguments)
