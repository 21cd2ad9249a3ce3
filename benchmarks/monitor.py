"""What watching costs: products, gradient evaluations, overhead and memory of `SharpnessMonitor`.

Run with ``OMP_NUM_THREADS=1 python benchmarks/monitor.py [part ...]``; each part prints medians and
quartiles. Times are process times, so that other load on the machine changes them little.
"""

import resource
import subprocess
import sys
import time
import warnings

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from sharpfit import NetworkClassifier, SharpnessMonitor
from sharpfit.curvature import HessianOperator
from sharpfit.linalg import top_eigenpairs
from sharpfit.monitoring import EigenvalueTracker
from sharpfit.monitoring.observer import Observer

REPETITIONS = 5
MEMORY_REPETITIONS = 7
FIRST_REPETITIONS = 16
UPDATES = 100
BUDGET = 2**25
ALONE = {"n_jacobian_rows": 0, "history": ("sharpness",)}


def quartiles(values):
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{median:.3g} (quartiles {low:.3g} to {high:.3g})"


class Convolutional(nn.Module):
    """The network of the other benchmarks, on 8 x 8 digits."""

    def __init__(self, seed=None):
        super().__init__()
        if seed is not None:
            torch.manual_seed(seed)
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


def data():
    X, y = load_digits(return_X_y=True)
    return (X / 16).astype(np.float32), y


def perceptron(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def descend(module, rate, every=1):
    """Yield the optimiser, the data and the time of a gradient before every measured update."""
    inputs, targets = map(torch.as_tensor, data())
    optimizer = torch.optim.SGD(module.parameters(), lr=rate)
    for update in range(UPDATES * every):
        start = time.process_time()
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(inputs), targets).backward()
        gradient = time.process_time() - start
        if update % every == 0:
            yield optimizer, (inputs, targets), gradient
        optimizer.step()


def products():
    """Products of a measurement, and its time in gradients, over full-batch trajectories."""
    for rate, every in ((0.5, 1), (0.1, 1), (0.5, 10)):
        for name, settings in (("sharpness alone", ALONE), ("everything", {})):
            module, monitor = perceptron(), SharpnessMonitor(**settings)
            counts, ratios = [], []
            for optimizer, rows, gradient in descend(module, rate, every):
                start = time.process_time()
                record = monitor.update(module, nn.CrossEntropyLoss(), rows, optimizer)
                ratios.append((time.process_time() - start) / gradient)
                counts.append(record["n_products"])
            print(
                f"lr {rate}, every {every}, {name}: products {quartiles(counts[1:])}, bar 5; "
                f"95 % at {np.quantile(counts[1:], 0.95):.0f}, bar 8; gradient evaluations "
                f"{quartiles(ratios[1:])}, bar 6"
            )


def watch_costs(name, X, y, epochs, **settings):
    ratios, shares, counts = [], [], []
    for seed in range(REPETITIONS):
        times = {"plain": 0.0, "watched": 0.0}
        monitor = SharpnessMonitor(every="auto", max_overhead=0.15)
        # Each twice, in turns against drifts of the machine's speed.
        for kind in ("plain", "watched", "watched", "plain"):
            callbacks = [("monitor", monitor)] if kind == "watched" else []
            net = NetworkClassifier(
                random_state=seed, callbacks=callbacks, batch_size=32, max_epochs=epochs, **settings
            )
            start = time.process_time()
            net.fit(X, y)
            spent = time.process_time() - start
            times[kind] += spent
            if kind == "watched":
                measuring = sum(record["seconds"] for record in monitor.records_)
                shares.append(measuring / (spent - measuring))
                counts.append(len(monitor.records_))
        ratios.append(times["watched"] / times["plain"] - 1)
    print(
        f"{name}, batches of 32, {epochs} epochs: overhead {quartiles(ratios)}, bar 0.18; "
        f"measurements took {quartiles(shares)} of the rest, {np.median(counts):.0f} of them",
        flush=True,
    )


def overhead():
    """Time of training with the interval chosen by measuring, over that without."""
    X, y = data()
    NetworkClassifier(max_epochs=2, random_state=0).fit(X, y)  # loads what is loaded once
    for epochs in (20, 60):
        watch_costs("MLP", X, y, epochs, module__hidden=(128, 128))
        watch_costs("CNN", X.reshape(-1, 1, 8, 8), y, epochs, module=Convolutional)


def first():
    """Error of the first measurement, and of eight products that start from noise."""
    X, labels = map(torch.as_tensor, data())
    loss = nn.CrossEntropyLoss()
    for name, make, inputs in (
        ("MLP", perceptron, X),
        ("CNN", Convolutional, X.reshape(-1, 1, 8, 8)),
    ):
        for updates in (0, 60):
            errors = {"first measurement": [], "from noise": []}
            beyond = 0
            for seed in range(FIRST_REPETITIONS):
                module = make(seed)
                optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
                for _ in range(updates):
                    optimizer.zero_grad()
                    loss(module(inputs), labels).backward()
                    optimizer.step()
                record = Observer(inputs, labels, n_jacobian_rows=0, random_state=seed).measure(
                    module, loss, quick=True
                )
                operator = HessianOperator(module, loss, inputs, labels)
                noise = EigenvalueTracker(random_state=seed, max_products=8)
                value = float(noise.measure(operator, operator.gradient()).values[0])
                exact = float(top_eigenpairs(operator, 1, which="largest", tol=1e-4).values[0])
                errors["first measurement"].append(abs(record["sharpness"] / exact - 1))
                errors["from noise"].append(abs(value / exact - 1))
                beyond += abs(record["sharpness"] - exact) > record["sharpness_error"]
            for kind, found in errors.items():
                print(f"{name}, {updates} updates, {kind}: error {quartiles(found)}", end="; ")
            print(f"{beyond} of {FIRST_REPETITIONS} beyond the stated error", flush=True)


def eigsh_of_curvlinops(module, rows):
    from curvlinops import HessianLinearOperator
    from scipy.sparse.linalg import eigsh

    operator = HessianLinearOperator(
        module, nn.CrossEntropyLoss(), list(module.parameters()), [rows], check_deterministic=False
    ).to_scipy()
    start = np.random.default_rng(0).standard_normal(operator.shape[0]).astype(np.float32)
    return eigsh(operator, 1, which="LA", tol=1e-2, v0=start, ncv=6)[0][0]


def lanczos_of_eigenthings(module, rows):
    from hessian_eigenthings import HessianOperator, lanczos, supervised_loss

    loss = supervised_loss(nn.functional.cross_entropy)
    operator = HessianOperator(module, [rows], loss)
    # The fewest steps that reach 1 % on most of these matrices; the default takes more.
    result = lanczos(operator, k=1, max_iter=8, which="LA", seed=0)
    return float(np.max(np.asarray(result.eigenvalues)))


def power_iteration_of_pyhessian(module, rows):
    from pyhessian import hessian

    operator = hessian(module, nn.CrossEntropyLoss(), data=rows, cuda=False)
    return operator.eigenvalues(maxIter=100, tol=1e-2)[0][0]


def peers():
    """Time of a measurement every ten updates against that of peers called afresh."""
    calls = (eigsh_of_curvlinops, lanczos_of_eigenthings, power_iteration_of_pyhessian)
    module, monitor = perceptron(), SharpnessMonitor(**ALONE)
    truth = SharpnessMonitor(**ALONE, tol=1e-5)
    times = {call.__name__: [] for call in calls}
    errors = {name: [] for name in ("monitor", *times)}
    for step, (optimizer, rows, _) in enumerate(descend(module, 0.5, 10)):
        start = time.process_time()
        record = monitor.update(module, nn.CrossEntropyLoss(), rows, optimizer)
        own = time.process_time() - start
        if step % 5 != 3:
            continue
        exact = truth.update(module, nn.CrossEntropyLoss(), rows)["sharpness"]
        errors["monitor"].append(abs(record["sharpness"] / exact - 1))
        for call in calls:
            start = time.process_time()
            value = call(module, rows)
            times[call.__name__].append(own / (time.process_time() - start))
            errors[call.__name__].append(abs(value / exact - 1))
    for name, found in errors.items():
        ratio = (
            f"; monitor's time over its {quartiles(times[name])}, bar 0.5" if name in times else ""
        )
        print(f"{name}: error {quartiles(found)}, largest {max(found):.2g}{ratio}")


def peak(kind):
    """Train in this process and print its peak memory, less what libraries take."""
    X, y = data()
    first = SharpnessMonitor(every=1, memory_budget=BUDGET)  # loads what a monitor needs
    NetworkClassifier(max_epochs=1, callbacks=[("monitor", first)]).fit(X[:64], y[:64])
    X, y = np.tile(X, (8, 1)), np.tile(y, 8)
    monitor = SharpnessMonitor(every=200, memory_budget=BUDGET)
    NetworkClassifier(
        module__hidden=(256, 256),
        batch_size=-1 if kind.endswith("full") else 32,
        max_epochs=5 if kind.endswith("full") else 1,
        random_state=0,
        callbacks=[("monitor", monitor)] if kind.startswith("watched") else [],
    ).fit(X, y)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def memory():
    """Peak memory of training with the monitor against that without, each in a process."""
    for batches in ("full", "small"):
        peaks = {}
        for kind in ("plain", "watched"):
            command = [sys.executable, "-W", "ignore", __file__, "peak", f"{kind} {batches}"]
            found = [int(subprocess.check_output(command)) for _ in range(MEMORY_REPETITIONS)]
            peaks[kind] = np.array(found) / 2**20
        more = peaks["watched"] - np.median(peaks["plain"])
        print(
            f"{batches} batches: peak {quartiles(peaks['plain'])} MiB, when watched "
            f"{quartiles(more)} MiB more, bar {BUDGET / 2**20:.0f} MiB"
        )


PARTS = {
    "products": products,
    "overhead": overhead,
    "first": first,
    "peers": peers,
    "memory": memory,
}


def main():
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["peak"]:
        peak(sys.argv[2])
        return
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main()
