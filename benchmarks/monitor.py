"""What watching costs: products, gradient evaluations and overhead of `SharpnessMonitor`.

Run with ``OMP_NUM_THREADS=1 python benchmarks/monitor.py``; each part prints medians and quartiles.
Times are process times, so that other load on the machine changes them little.
"""

import time
import warnings

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from sharpfit import NetworkClassifier, SharpnessMonitor

REPETITIONS = 5


def quartiles(values):
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{median:.3g} (quartiles {low:.3g} to {high:.3g})"


class Convolutional(nn.Module):
    """The network of the other benchmarks, on 8 x 8 digits."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(128, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )

    def forward(self, images):  # noqa: D102
        return self.layers(images)


def overhead(name, X, y, **settings):
    ratios, counts = [], []
    for seed in range(REPETITIONS):
        times = {}
        monitor = SharpnessMonitor(every="auto", max_overhead=0.15)
        for kind, callbacks in (("plain", []), ("watched", [("monitor", monitor)])):
            net = NetworkClassifier(random_state=seed, callbacks=callbacks, **settings)
            start = time.process_time()
            net.fit(X, y)
            times[kind] = time.process_time() - start
        ratios.append(times["watched"] / times["plain"] - 1)
        counts.append(len(monitor.records_))
    print(f"{name}: overhead {quartiles(ratios)}, bar 0.18; {np.median(counts):.0f} measurements")


def full_batch(X, y):
    monitor = SharpnessMonitor(every=1, n_jacobian_rows=1)
    net = NetworkClassifier(
        module__hidden=(128, 128),
        batch_size=-1,
        lr=0.5,
        optimizer__momentum=0.0,
        max_epochs=40,
        random_state=0,
        callbacks=[("monitor", monitor)],
    ).fit(X, y)
    products = [record["n_products"] for record in monitor.records_[1:]]
    print(
        f"every update, MLP: products {quartiles(products)}, bar 5; "
        f"95 % at {np.quantile(products, 0.95):.0f}, bar 8"
    )
    module, criterion = net.module_, nn.CrossEntropyLoss()
    inputs, targets = net.input_tensor(X), net.target_tensor(y)
    ratios = []
    watcher = SharpnessMonitor(n_jacobian_rows=1)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    watcher.update(module, criterion, (inputs, targets), optimizer)
    for _ in range(4 * REPETITIONS):
        start = time.process_time()
        optimizer.zero_grad()
        criterion(module(inputs), targets).backward()
        gradient = time.process_time() - start
        optimizer.step()
        start = time.process_time()
        watcher.update(module, criterion, (inputs, targets), optimizer)
        ratios.append((time.process_time() - start) / gradient)
    print(f"every update, MLP: gradient evaluations {quartiles(ratios)}, bar 6")


def main():
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    full_batch(X, y)
    settings = {"batch_size": 32, "max_epochs": 60}
    overhead("MLP, batches of 32", X, y, module__hidden=(128, 128), **settings)
    images = X.reshape(-1, 1, 8, 8)
    overhead("CNN, batches of 32", images, y, module=Convolutional, **settings)


if __name__ == "__main__":
    main()
