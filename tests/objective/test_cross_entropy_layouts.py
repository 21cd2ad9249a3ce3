"""Losses along columns: what PyTorch says along rows, for every target it takes."""

import pytest
import torch
import torch.nn.functional as F

from sharpfit.objective import CrossEntropy


def logits(count=200, classes=5):
    return torch.randn(count, classes, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("by_columns", [False, True])
@pytest.mark.parametrize("dtype", [torch.long, torch.uint8])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_class_numbers(by_columns, dtype, smoothing):
    outputs = logits().T.contiguous().T if by_columns else logits()
    targets = (torch.arange(200) % 5).to(dtype)
    found = CrossEntropy(label_smoothing=smoothing).values(outputs, targets)
    expected = F.cross_entropy(
        outputs.double(), targets, reduction="none", label_smoothing=smoothing
    )
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("by_columns", [False, True])
def test_probabilities_and_ignored_rows(by_columns):
    outputs = logits().T.contiguous().T if by_columns else logits()
    soft = logits().softmax(dim=1)
    expected = -(soft * outputs.log_softmax(dim=1)).sum(dim=1)
    torch.testing.assert_close(CrossEntropy().values(outputs, soft), expected)
    targets = torch.arange(200) % 5
    targets[::3] = -100
    found = CrossEntropy().values(outputs, targets)
    assert (found[::3] == 0).all()
    assert (found[1::3] > 0).all()


def test_layout_of_curvature():
    outputs, directions = logits(), logits().flip(0)
    targets = torch.arange(200) % 5
    exact = torch.einsum("nij,nj->ni", CrossEntropy().curvature(outputs, targets), directions)
    for turned in (outputs, outputs.T.contiguous().T):
        found = CrossEntropy().curvature_product(turned, targets, directions)
        torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-6)


def test_targets_of_another_length_are_refused_in_their_own_shape():
    with pytest.raises(ValueError, match=r"input batch_size \(200\)"):
        CrossEntropy().values(logits(), torch.zeros(3, dtype=torch.long))
