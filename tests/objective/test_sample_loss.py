"""Per-sample losses against PyTorch's criteria and float64 automatic differentiation."""

import pytest
import torch
from torch import nn

from sharpfit.objective import RowwiseLoss, as_sample_loss

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(7, 4, dtype=torch.float64, generator=GENERATOR)
CLASSES = torch.tensor([0, 1, 2, 3, 1, 1, 0])
SOFT = torch.rand(7, 4, dtype=torch.float64, generator=GENERATOR).softmax(dim=1)
REAL = torch.randn(7, 4, dtype=torch.float64, generator=GENERATOR)
BINARY = torch.tensor([[0.0], [1], [1], [0], [1], [1], [0]], dtype=torch.float64)
WEIGHT = torch.tensor([0.5, 2.0, 1.0, 3.0], dtype=torch.float64)

CASES = {
    "cross-entropy": (nn.CrossEntropyLoss(), LOGITS, CLASSES),
    "cross-entropy sum": (nn.CrossEntropyLoss(reduction="sum"), LOGITS, CLASSES),
    "cross-entropy weighted": (nn.CrossEntropyLoss(weight=WEIGHT), LOGITS, CLASSES),
    "cross-entropy weighted smooth": (
        nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.2),
        LOGITS,
        CLASSES,
    ),
    "cross-entropy ignoring": (nn.CrossEntropyLoss(ignore_index=1), LOGITS, CLASSES),
    "cross-entropy soft": (nn.CrossEntropyLoss(weight=WEIGHT), LOGITS, SOFT),
    "squared error": (nn.MSELoss(), LOGITS, REAL),
    "squared error sum": (nn.MSELoss(reduction="sum"), LOGITS, REAL),
    "squared error flat": (nn.MSELoss(), LOGITS[:, :1], REAL[:, 0]),
    "binary": (nn.BCEWithLogitsLoss(), LOGITS[:, :1], BINARY),
    "binary weighted": (
        nn.BCEWithLogitsLoss(pos_weight=torch.tensor([3.0]), reduction="sum"),
        LOGITS[:, :1],
        BINARY,
    ),
    "binary many outputs": (
        nn.BCEWithLogitsLoss(weight=WEIGHT, pos_weight=WEIGHT.flip(0)),
        LOGITS,
        (REAL > 0).double(),
    ),
    "huber": (nn.HuberLoss(), LOGITS, REAL),
    "absolute": (nn.L1Loss(), LOGITS, REAL),
    "margin": (nn.MultiMarginLoss(), LOGITS, CLASSES),
}
# PyTorch has no second derivative of its multi-class margin loss.
TWICE_DIFFERENTIABLE = [case for case in CASES if case != "margin"]
# PyTorch says that it evaluates that loss sample by sample, which is right but slow.
PYTORCH_LOOPS = pytest.mark.filterwarnings("ignore:There is a performance drop")


@PYTORCH_LOOPS
@pytest.mark.parametrize("case", CASES)
def test_rows_add_up_to_the_criterion(case):
    criterion, outputs, targets = CASES[case]
    loss = as_sample_loss(criterion)
    total = (loss.row_weights(targets) * loss.values(outputs, targets)).sum()
    expected = criterion(outputs, targets.reshape(outputs.shape) if "flat" in case else targets)
    torch.testing.assert_close(total, expected)


@pytest.mark.parametrize("case", TWICE_DIFFERENTIABLE)
def test_derivatives_are_those_of_the_criterion(case):
    criterion, outputs, targets = CASES[case]
    loss = as_sample_loss(criterion)
    shaped = targets.reshape(outputs.shape) if "flat" in case else targets
    gradient = torch.func.grad(lambda z: criterion(z, shaped))(outputs)
    size = outputs.shape
    hessian = torch.func.jacrev(torch.func.grad(lambda z: criterion(z.reshape(size), shaped)))(
        outputs.flatten()
    )
    weights = loss.row_weights(targets)
    torch.testing.assert_close(weights.unsqueeze(1) * loss.gradient(outputs, targets), gradient)
    blocks = weights[:, None, None] * loss.curvature(outputs, targets)
    torch.testing.assert_close(torch.block_diag(*blocks), hessian)


@pytest.mark.parametrize("case", TWICE_DIFFERENTIABLE)
def test_products_and_roots_agree_with_the_curvature(case):
    criterion, outputs, targets = CASES[case]
    loss = as_sample_loss(criterion)
    curvature = loss.curvature(outputs, targets)
    vectors = torch.randn(outputs.shape, dtype=torch.float64, generator=GENERATOR)
    expected = torch.einsum("nij,nj->ni", curvature, vectors)
    torch.testing.assert_close(loss.curvature_product(outputs, targets, vectors), expected)
    with torch.no_grad():
        product = loss.curvature_map(outputs, targets)(vectors).mul_(1.0)
    torch.testing.assert_close(product, expected)
    root = loss.curvature_root(outputs, targets)
    torch.testing.assert_close(root @ root.mT, curvature, atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("case", TWICE_DIFFERENTIABLE)
def test_integer_sample_weights_are_repetitions(case):
    criterion, outputs, targets = CASES[case]
    loss = as_sample_loss(criterion)
    repeats = torch.tensor([1, 2, 0, 3, 1, 1, 2])
    total = (loss.row_weights(targets, repeats) * loss.values(outputs, targets)).sum()
    rows = torch.repeat_interleave(torch.arange(7), repeats)
    shaped = targets.reshape(outputs.shape) if "flat" in case else targets
    torch.testing.assert_close(total, criterion(outputs[rows], shaped[rows]))


def test_zero_weights_are_refused():
    with pytest.raises(ValueError, match="weights of all samples are zero"):
        as_sample_loss(nn.MSELoss()).row_weights(REAL, torch.zeros(7))


def test_softmax_curvature_is_at_most_one_half():
    logits = torch.tensor([[3.0, 3.0, -50.0]], dtype=torch.float64)
    curvature = as_sample_loss(nn.CrossEntropyLoss()).curvature(logits, torch.tensor([0]))
    assert torch.linalg.eigvalsh(curvature).max().item() == pytest.approx(0.5)


def test_reduction_none_is_refused():
    with pytest.raises(ValueError, match="reduction='none'"):
        as_sample_loss(nn.MSELoss(reduction="none"))


def test_criterion_class_is_refused():
    with pytest.raises(TypeError, match="instance"):
        as_sample_loss(nn.MSELoss)


@pytest.mark.parametrize("criterion", [nn.NLLLoss(), nn.BCELoss()])
def test_probability_criteria_name_the_remedy(criterion):
    with pytest.raises(ValueError, match="split_head"):
        as_sample_loss(criterion)


class SpreadLoss(nn.Module):
    def forward(self, outputs, targets):
        return (outputs - targets).square().mean() + outputs.std()


def test_criterion_that_couples_rows_is_refused():
    loss = as_sample_loss(SpreadLoss())
    assert isinstance(loss, RowwiseLoss)
    with pytest.raises(ValueError, match="SpreadLoss is not a mean over rows"):
        loss.check_additive(LOGITS, REAL)
    as_sample_loss(nn.HuberLoss()).check_additive(LOGITS, REAL)


def test_non_convex_loss_has_no_root():
    class Bump(nn.Module):
        def forward(self, outputs, targets):
            return torch.cos(outputs - targets).sum(dim=1).mean()

    with pytest.raises(ValueError, match="not convex"):
        as_sample_loss(Bump()).curvature_root(LOGITS, LOGITS)
