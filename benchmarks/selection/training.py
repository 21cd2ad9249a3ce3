"""Train every configuration of a suite on all rows, on 80 % of them and on five folds; cached."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import KFold
from stacked import PlainNetwork, StackedNetwork
from suites import Data, Suite
from torch import Tensor, nn
from torch.nn import functional

CACHE = Path(__file__).parent / "cache"
N_FOLDS = 5
SEEDS = (0, 1, 2)


def network_of(suite: Suite, configuration: dict[str, Any], members: int, data: Data) -> Any:
    """Build the stack of a configuration."""
    shape = {
        key: configuration[key]
        for key in (
            "width", "depth", "activation", "dropout", "normalised", "residual", "convolutional",
            "recurrent",
        )
        if key in configuration
    }  # fmt: skip
    return StackedNetwork(
        members, data.X.shape[1], n_outputs(suite, data), image=suite.image, **shape
    )


def n_outputs(suite: Suite, data: Data) -> int:
    """Width of the head."""
    if suite.task == "regression" or suite.one_logit:
        return 1
    return int(max(data.y.max(), data.y_test.max())) + 1


def losses(suite: Suite, outputs: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean loss of every member, (E, B, C) to (E,)."""
    if suite.task == "regression":
        return ((outputs[..., 0] - targets) ** 2).mean(1)
    if suite.one_logit:
        values = functional.binary_cross_entropy_with_logits(
            outputs[..., 0], targets.to(outputs.dtype), reduction="none"
        )
        return values.mean(1)
    values = functional.cross_entropy(
        outputs.transpose(1, 2), targets, label_smoothing=smoothing, reduction="none"
    )
    return values.mean(1)


def errors(suite: Suite, outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of wrong rows, or mean squared error in units of the targets' variance."""
    if suite.task == "regression":
        return ((outputs[..., 0] - targets) ** 2).double().mean(1)
    predicted = (outputs[..., 0] > 0).long() if suite.one_logit else outputs.argmax(2)
    return (predicted != targets).double().mean(1)


def fit(
    suite: Suite, configuration: dict[str, Any], network: nn.Module, X: Tensor, y: Tensor, seed: int
) -> None:
    """Train a stack on its rows, X (E, n, d) and y (E, n), with batches of its own per member."""
    generator = torch.Generator().manual_seed(seed)
    settings = configuration["optimisation"]
    decay = configuration["weight_decay"]
    if settings["optimiser"] == "sgd":
        optimiser: torch.optim.Optimizer = torch.optim.SGD(
            network.parameters(),
            lr=settings["lr"],
            momentum=settings["momentum"],
            weight_decay=decay,
        )
    else:
        optimiser = torch.optim.AdamW(network.parameters(), lr=settings["lr"], weight_decay=decay)
    members, n = y.shape
    member = torch.arange(members).unsqueeze(1)
    size = configuration["batch_size"]
    network.train()
    for _ in range(configuration["epochs"]):
        order = torch.rand(members, n, generator=generator).argsort(1)
        X_epoch, y_epoch = X[member, order], y[member, order]
        for start in range(0, n, size):
            batch = slice(start, start + size)
            if configuration.get("normalised") and n - start == 1:
                continue  # batch norm cannot train on a single row
            optimiser.zero_grad()
            outputs = network(X_epoch[:, batch])
            smoothing = configuration.get("label_smoothing", 0.0)
            losses(suite, outputs, y_epoch[:, batch], smoothing).sum().backward()
            optimiser.step()
    network.eval()


def splits(n: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Hold-out (20 %) first, then the folds."""
    folds = KFold(N_FOLDS, shuffle=True, random_state=seed)
    hold_out = next(iter(KFold(N_FOLDS, shuffle=True, random_state=seed + 1000).split(range(n))))
    return [hold_out, *folds.split(range(n))]


def tensors(suite: Suite, data: Data) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows as tensors."""
    kind = np.float32 if suite.task == "regression" else np.int64
    return (
        torch.from_numpy(data.X),
        torch.from_numpy(data.y.astype(kind)),
        torch.from_numpy(data.X_test),
        torch.from_numpy(data.y_test.astype(kind)),
    )


@torch.no_grad()
def _evaluate(suite: Suite, network: nn.Module, X: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    outputs = network(X)
    return errors(suite, outputs, y), losses(suite, outputs, y).double()


def train(suite: Suite, index: int, configuration: dict[str, Any], path: Path) -> None:
    """Train one configuration for all seeds and store what the evaluation needs."""
    torch.manual_seed(index)
    data = [suite.data(seed) for seed in SEEDS]
    rows = [tensors(suite, each) for each in data]
    start = time.process_time()
    full = network_of(suite, configuration, len(SEEDS), data[0])
    X, y = torch.stack([r[0] for r in rows]), torch.stack([r[1] for r in rows])
    fit(suite, configuration, full, X, y, index)
    full_seconds = time.process_time() - start

    start = time.process_time()
    parts = [splits(suite.n, seed) for seed in SEEDS]
    owner = [s for s in range(len(SEEDS)) for _ in parts[s]]
    train_rows = [torch.from_numpy(split[0]) for part in parts for split in part]
    valid_rows = [torch.from_numpy(split[1]) for part in parts for split in part]
    network = network_of(suite, configuration, len(owner), data[0])
    X_part = torch.stack([X[s, r] for s, r in zip(owner, train_rows, strict=True)])
    y_part = torch.stack([y[s, r] for s, r in zip(owner, train_rows, strict=True)])
    fit(suite, configuration, network, X_part, y_part, index)
    X_valid = torch.stack([X[s, r] for s, r in zip(owner, valid_rows, strict=True)])
    y_valid = torch.stack([y[s, r] for s, r in zip(owner, valid_rows, strict=True)])
    valid = torch.stack(_evaluate(suite, network, X_valid, y_valid)).reshape(2, len(SEEDS), -1)
    part_seconds = time.process_time() - start

    test = torch.stack(
        _evaluate(suite, full, torch.stack([r[2] for r in rows]), torch.stack([r[3] for r in rows]))
    )
    result = {
        "configuration": configuration,
        "state": full.state_dict(),
        "test": test,  # (error and loss, seeds)
        "validation": valid,  # (error and loss, seeds, hold-out and folds)
        "seconds": (full_seconds / len(SEEDS), part_seconds / len(owner)),  # of one fit
    }
    temporary = path.with_suffix(f".{os.getpid()}")
    torch.save(result, temporary)
    temporary.replace(path)


def trained(suite: Suite, index: int, configuration: dict[str, Any]) -> dict[str, Any]:
    """Return the stored result of one configuration, training it where it is missing."""
    path = CACHE / suite.name / f"{index:02d}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        train(suite, index, configuration, path)
    return torch.load(path)


def member(suite: Suite, result: dict[str, Any], seed_position: int, data: Data) -> nn.Module:
    """Return the network trained on all rows of one seed, in evaluation mode."""
    network = network_of(suite, result["configuration"], 1, data)
    network.load_state_dict(
        {key: value[seed_position : seed_position + 1] for key, value in result["state"].items()}
    )
    return PlainNetwork(network)
