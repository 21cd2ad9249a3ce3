"""How often a watched eigenvalue is further off than its stated error, against dense Hessians.

    python benchmarks/stated_errors.py [--every N] [--eigenvalues K] [--seed S]

Perceptrons of 32 to 234 parameters learn random rows, digits and wine: with ReLU and tanh, by full
batches, batches of 16 and Adam, at three learning rates up to unstable ones. Every trajectory has
60 updates. The truth is the spectrum of the dense Hessian in float64.
"""

import argparse
from itertools import product

import numpy as np
import torch
from sklearn.datasets import load_digits, load_wine
from torch import nn
from torch.func import functional_call, hessian

from sharpfit import SharpnessMonitor

UPDATES = 60
LOSS = nn.CrossEntropyLoss()
WAYS = {
    "full batches": (torch.optim.SGD, None, (0.1, 0.5, 3.0)),
    "batches of 16": (torch.optim.SGD, 16, (0.1, 0.5, 3.0)),
    "Adam": (torch.optim.Adam, None, (0.003, 0.03, 0.1)),
}


def problems():
    """Yield rows, labels and the width of the hidden layer."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(30, 3, generator=generator, dtype=torch.float64)
    yield rows, (rows[:, 0] * rows[:, 1] > 0).long(), 5
    for load, columns, width in ((load_digits, slice(2, 12), 8), (load_wine, slice(None), 13)):
        X, y = load(return_X_y=True)
        X = X[:100, columns] if load is load_digits else X
        rows = torch.tensor((X - X.mean(0)) / (X.std(0) + 1e-6))
        yield rows, torch.tensor(y[: len(X)]), width


def spectrum(module, rows, labels):
    names, values = zip(*module.named_parameters(), strict=True)
    sizes = [value.numel() for value in values]

    def loss(vector):
        parts = vector.split(sizes)
        weights = {n: p.view_as(v) for n, p, v in zip(names, parts, values, strict=True)}
        return LOSS(functional_call(module, weights, (rows,)), labels)

    point = nn.utils.parameters_to_vector(module.parameters()).detach()
    return torch.linalg.eigvalsh(hessian(loss)(point)).flip(0).numpy()


def trajectory(data, activation, way, rate, settings):
    """Yield for every measurement which eigenvalues were off, and its products."""
    rows, labels, width = data
    kind, batch, _ = WAYS[way]
    torch.manual_seed(settings.seed)
    classes = int(labels.max()) + 1
    module = nn.Sequential(
        nn.Linear(rows.shape[1], width), activation(), nn.Linear(width, classes)
    ).double()
    optimizer = kind(module.parameters(), lr=rate)
    count = settings.eigenvalues
    monitor = SharpnessMonitor(
        n_eigenvalues=count, n_jacobian_rows=0, history=(), random_state=settings.seed
    )
    names = ["sharpness", *(f"eigenvalue_{place}" for place in range(2, count + 1))]
    for update in range(UPDATES):
        if update % settings.every == 0:
            # Without the optimiser: Adam's own matrix would add products of its own.
            record = monitor.update(module, LOSS, (rows, labels))
            found = np.array([record[name] for name in names])
            stated = np.array([record[f"{name}_error"] for name in names])
            errors = np.abs(found - spectrum(module, rows, labels)[:count])
            yield errors > stated, record["n_products"]
        optimizer.zero_grad()
        chosen = torch.randperm(len(rows))[:batch] if batch else slice(None)
        LOSS(module(rows[chosen]), labels[chosen]).backward()
        optimizer.step()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--eigenvalues", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    settings = parser.parse_args()
    torch.set_num_threads(1)
    for way, (_, _, rates) in WAYS.items():
        off, products = [], []
        for data, activation, rate in product(list(problems()), (nn.ReLU, nn.Tanh), rates):
            for wrong, spent in trajectory(data, activation, way, rate, settings):
                off.append(wrong)
                products.append(spent)
        beyond = ", ".join(f"{count}" for count in np.sum(off, axis=0))
        print(
            f"{way}: of {len(off)} measurements beyond the stated error, by eigenvalue: {beyond}; "
            f"products {np.median(products):.0f}, 95 % at {np.quantile(products, 0.95):.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
