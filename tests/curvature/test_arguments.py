"""Arguments that do not fit are named, with their value and the remedy."""

import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from sharpfit.curvature import hessian_spectrum
from sharpfit.linalg import top_eigenpairs

INPUTS = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
CLASSES = torch.arange(20) % 3
REAL = torch.ones(20, 2)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


@pytest.mark.parametrize(
    ("criterion", "targets", "message"),
    [
        (nn.CrossEntropyLoss(), CLASSES.float(), "dtype torch.float32.*class numbers of shape"),
        (nn.CrossEntropyLoss(), CLASSES.int(), "dtype torch.int32.*and dtype torch.int64"),
        (nn.CrossEntropyLoss(), CLASSES > 1, "dtype torch.bool.*class numbers of shape"),
        (nn.CrossEntropyLoss(), nn.functional.one_hot(CLASSES, 3), r"\(8, 3\).*real probabilities"),
        (nn.CrossEntropyLoss(), CLASSES[:, None], r"\(8, 1\).*class numbers of shape \(n,\)"),
        (nn.CrossEntropyLoss(weight=torch.ones(3)), CLASSES + 1, r"targets\[2\] is 3"),
        (nn.CrossEntropyLoss(weight=torch.ones(4)), CLASSES, r"weight tensor of shape: \[4\]"),
        (nn.MSELoss(), REAL, r"outputs of shape \(8, 3\).*real numbers of the outputs' shape"),
        (nn.MSELoss(), CLASSES, "torch.int64.*real numbers of the outputs' shape"),
        (nn.BCEWithLogitsLoss(), REAL, "real numbers from 0 to 1"),
        (nn.PoissonNLLLoss(), REAL, r"RowwiseLoss\(PoissonNLLLoss\(\)\) does not take"),
    ],
)
def test_targets_that_the_loss_does_not_take(criterion, targets, message):
    with pytest.raises(ValueError, match=message):
        hessian_spectrum(network(), criterion, INPUTS, targets)


@pytest.mark.parametrize("targets", [CLASSES.numpy(), CLASSES.tolist()])
def test_targets_that_are_no_tensor(targets):
    with pytest.raises(TypeError, match=r"targets must be a Tensor, got .*torch\.as_tensor"):
        hessian_spectrum(network(), nn.CrossEntropyLoss(), INPUTS, targets)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"parameters": network().parameters()}, TypeError, "got generator of Parameter; names"),
        ({"parameters": list(network().parameters())}, TypeError, "got list of Parameter"),
        ({"parameters": re.compile("0")}, TypeError, "a regular expression as str.*got Pattern"),
        ({"parameters": network()[0]}, TypeError, "got Linear"),
        ({"parameters": 0}, TypeError, "got int"),
        ({"parameters": "0(["}, ValueError, r"parameters='0\(\[' is no regular expression"),
        ({"weight_decay": "1"}, ValueError, "weight_decay must be .* got '1'"),
        ({"memory_budget": "1GB"}, ValueError, "memory_budget must be .* bytes, got '1GB'"),
        ({"memory_budget": 0.5}, ValueError, "memory_budget must be .* bytes, got 0.5"),
        ({"sample_weight": "balanced"}, TypeError, "sample_weight must be .* got 'balanced'"),
        ({"tol": "1"}, ValueError, "tol='1'"),
        ({"n_eigenvalues": "all"}, ValueError, "n_eigenvalues must be an int .* got 'all'"),
        ({"max_products": 20.5}, TypeError, "max_products must be an int, got 20.5"),
        ({"verbose": "yes"}, ValueError, "verbose must be an int .* got 'yes'"),
        ({"n_jobs": 0}, ValueError, "n_jobs must be None or an int other than 0, got 0"),
        ({"n_jobs": "all"}, ValueError, "n_jobs must be None or an int .* got 'all'"),
        ({"start": np.ones(53)}, TypeError, "start must be a Tensor, got ndarray"),
        ({"batchsize": 3}, TypeError, "no setting 'batchsize'; did you mean 'batch_size'"),
        ({"colour": 3}, TypeError, "no setting 'colour'; it has .*'memory_budget'"),
    ],
)
def test_settings(change, error, message):
    with pytest.raises(error, match=message):
        hessian_spectrum(network(), nn.CrossEntropyLoss(), INPUTS, CLASSES, **change)


def test_whole_numbers_of_other_kinds_are_taken():
    plain, other = (
        hessian_spectrum(
            network(), nn.CrossEntropyLoss(), INPUTS, CLASSES, random_state=0, **settings
        ).eigenvalues
        for settings in (
            {"batch_size": 7, "memory_budget": 10**6, "sample_weight": torch.ones(20)},
            {
                "batch_size": np.int64(7),
                "memory_budget": 1e6,
                "sample_weight": [1.0] * 20,
                "weight_decay": torch.tensor(0.0),
                "max_products": 1e3,
            },
        )
    )
    np.testing.assert_array_equal(plain, other)


def test_modules_of_torchscript():
    with pytest.raises(TypeError, match=r"a TorchScript .* pass the module it was made from"):
        hessian_spectrum(torch.jit.ScriptModule(), nn.CrossEntropyLoss(), INPUTS, CLASSES)


@pytest.mark.parametrize("matrix", [torch.eye(3), np.eye(3)])
def test_matrices_are_no_operators(matrix):
    with pytest.raises(TypeError, match=r"becomes one by DenseOperator\(torch\.as_tensor"):
        top_eigenpairs(matrix, 1)


DATA = TensorDataset(INPUTS, CLASSES)


@pytest.mark.parametrize(
    "drawn",
    [
        {"sampler": SubsetRandomSampler(range(10))},
        {"sampler": WeightedRandomSampler([1.0] * 20, 20)},
        {"sampler": RandomSampler(DATA, num_samples=7)},
        {"sampler": DistributedSampler(DATA, num_replicas=2, rank=0)},
        {"batch_sampler": [[0, 1], [2, 3]]},
        {"batch_sampler": BatchSampler(SubsetRandomSampler(range(5)), 2, drop_last=False)},
        {"sampler": SequentialSampler(range(5))},
    ],
)
def test_loaders_that_draw_other_rows(drawn):
    with pytest.raises(ValueError, match=r"DataLoader that draws rows by .*Subset\(dataset"):
        hessian_spectrum(network(), nn.CrossEntropyLoss(), DataLoader(DATA, **drawn))


def test_loaders_that_shuffle_and_drop_have_the_rows_of_their_data():
    loaders = (
        DataLoader(DATA, batch_size=3, shuffle=True, drop_last=True),
        DataLoader(DATA, batch_size=3, sampler=range(20)),
        DataLoader(DATA, batch_sampler=BatchSampler(RandomSampler(DATA), 3, drop_last=False)),
    )
    first, *others = (
        hessian_spectrum(network(), nn.CrossEntropyLoss(), *rows, random_state=0).eigenvalues
        for rows in ((INPUTS, CLASSES), *((loader,) for loader in loaders))
    )
    for found in others:
        np.testing.assert_allclose(found, first, rtol=1e-5)
