"""Curvature against its peers: ``python benchmarks/curvature.py [job ...]``.

One thread, float32, the same trained network, rows and chunks for everyone. Times are the
process's CPU seconds, so that other work on the machine does not count; each line is the ratio
of ours to a peer's, paired within one repetition: median [lower, upper quartile].
Jobs: product, top, resnet, trace, conjugate, growth. Peers: ``pip install`` curvlinops-for-pytorch,
hessian-eigenthings, pyhessian and backpack-for-pytorch.
"""

import argparse
import copy
import itertools
import time
from functools import partial

import numpy as np
import torch
from _curvature_peers import (
    TOP,
    Curvlinops,
    Eigenthings,
    PyHessian,
    backpack_trace,
    kernel_eigenvalues,
)
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy, interpolate

from sharpfit.curvature import (
    ConjugateOperator,
    GaussNewtonOperator,
    HessianOperator,
    exact_trace,
    hessian_spectrum,
)


def mlp():
    return nn.Sequential(
        *(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    )


def cnn():
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(1568, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


class Block(nn.Module):  # noqa: D101
    def __init__(self, width, following, stride):
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(width, following, 3, stride, 1, bias=False), nn.BatchNorm2d(following)),
            nn.ReLU(),
            *(nn.Conv2d(following, following, 3, 1, 1, bias=False), nn.BatchNorm2d(following)),
        )
        self.skip = nn.Identity()
        if stride != 1 or width != following:
            self.skip = nn.Sequential(
                nn.Conv2d(width, following, 1, stride, bias=False), nn.BatchNorm2d(following)
            )

    def forward(self, inputs):  # noqa: D102
        return torch.relu(self.body(inputs) + self.skip(inputs))


def resnet18(width=64):
    layers = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    current = width
    for factor, stride in ((1, 1), (1, 1), (2, 2), (2, 1), (4, 2), (4, 1), (8, 2), (8, 1)):
        layers.append(Block(current, factor * width, stride))
        current = factor * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(current, 10))


def problem(name, n_rows=None):
    """Return a briefly trained network and its rows."""
    torch.manual_seed(0)
    digits = load_digits()
    inputs = torch.tensor(digits.data, dtype=torch.float32) / 16
    targets = torch.tensor(digits.target)
    if name == "mlp":
        module, inputs, targets = mlp(), inputs[:1437], targets[:1437]
    elif name == "cnn":
        images = inputs[:1024].view(-1, 1, 8, 8)
        module, inputs, targets = cnn(), interpolate(images, 28, mode="bilinear"), targets[:1024]
    else:
        module = resnet18()
        inputs, targets = torch.randn(64, 3, 32, 32), torch.randint(0, 10, (64,))
    if n_rows is not None:
        inputs, targets = inputs[:n_rows], targets[:n_rows]
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3 if name == "resnet" else 40):
        optimizer.zero_grad()
        cross_entropy(module(inputs), targets).backward()
        optimizer.step()
    return module.eval(), inputs, targets


def batched(inputs, targets, size):
    return list(zip(inputs.split(size), targets.split(size), strict=True))


def seconds(function):
    start = time.process_time()
    function()
    return time.process_time() - start


def paired(ours, peers, repetitions):
    """Return for every peer the ratios of our time to its, and our median time."""
    times = {name: [] for name in ("ours", *peers)}
    for _ in range(repetitions):
        for name, function in (("ours", ours), *peers.items()):
            times[name].append(seconds(function))
    own = np.array(times["ours"])
    return {name: own / np.array(times[name]) for name in peers}, float(np.median(own))


def report(job, ratios, own):
    for peer, values in ratios.items():
        low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
        print(f"{job:38s} {own:9.4f} s  / {peer:34s} {middle:5.2f} [{low:.2f}, {high:.2f}]")


def product(repetitions):
    for name in ("mlp", "cnn"):
        module, inputs, targets = problem(name)
        # Chunks of one size: hessian-eigenthings averages batches whatever their sizes.
        for size in (479, len(inputs)) if name == "mlp" else (128, len(inputs)):
            batches = batched(inputs, targets, size)
            peers = [kind(copy.deepcopy(module), batches) for kind in (Curvlinops, Eigenthings,
                                                                       PyHessian)]  # fmt: skip
            vector = torch.randn(sum(p.numel() for p in module.parameters()))
            calls = {peer.name: partial(peer.product, vector) for peer in peers}
            for route in ("closed_form", "traced", "graph"):
                operator = HessianOperator(
                    module, nn.CrossEntropyLoss(), inputs, targets, batch_size=size, route=route
                )
                ours = operator.matvec(vector)
                for peer in peers:
                    found = peer.product(vector)
                    assert torch.allclose(ours, found, rtol=1e-2, atol=1e-3 * ours.abs().max())
                ratios, own = paired(partial(operator.matvec, vector), calls, repetitions)
                report(f"product {name}, chunks {size}, {route}", ratios, own)


def top(repetitions):
    for name in ("mlp", "cnn"):
        module, inputs, targets = problem(name)
        exact = hessian_spectrum(
            *(module.double(), nn.CrossEntropyLoss(), inputs.double(), targets),
            n_eigenvalues=TOP, tol=1e-7, random_state=1,
        ).eigenvalues  # fmt: skip
        module = module.float()
        size = 479 if name == "mlp" else 128
        batches = batched(inputs, targets, size)

        def right(values, exact=exact):
            return bool((np.abs(values - exact) <= 1e-3 * np.abs(exact)).all())

        calls = {}
        for kind in (Curvlinops, Eigenthings):
            peer = kind(copy.deepcopy(module), batches)
            best = next((s for s in kind.settings if right(peer.top(s))), "none right")
            if best != "none right":
                calls[f"{peer.name} (setting {best})"] = partial(peer.top, best)
            if right(peer.top(None)):
                calls[f"{peer.name} (defaults)"] = partial(peer.top, None)
            else:
                print(f"top {name}: {peer.name} is wrong at its defaults")
        for route in ("auto", "traced", "graph"):
            settings = {"n_eigenvalues": TOP, "batch_size": size, "route": route, "random_state": 0}
            ours = partial(
                hessian_spectrum, module, nn.CrossEntropyLoss(), inputs, targets, **settings
            )
            result = ours()
            assert right(result.eigenvalues), result.eigenvalues / exact - 1
            ratios, own = paired(ours, calls, repetitions)
            report(f"top {TOP} {name}, {route} ({result.n_products} products)", ratios, own)


def resnet(repetitions):
    module, inputs, targets = problem("resnet")
    vector = torch.randn(sum(p.numel() for p in module.parameters()))
    batches = batched(inputs, targets, 32)
    peers = [kind(copy.deepcopy(module), batches) for kind in (Curvlinops, Eigenthings)]
    calls = {peer.name: partial(peer.product, vector) for peer in peers}
    operator = HessianOperator(module, nn.CrossEntropyLoss(), inputs, targets, batch_size=32)
    ours = operator.matvec(vector)
    assert torch.allclose(ours, peers[0].product(vector), rtol=1e-2, atol=1e-3 * ours.abs().max())
    ratios, own = paired(partial(operator.matvec, vector), calls, repetitions)
    report("product ResNet-18 (11M)", ratios, own)
    state = sum(line.state_bytes() for line in operator.linearisations())
    print(f"  state kept between products: {state / 2**20:.0f} MiB")


def trace(repetitions):
    for name in ("mlp", "cnn"):
        module, inputs, targets = problem(name)
        operator = HessianOperator(module, nn.CrossEntropyLoss(), inputs, targets)
        other = copy.deepcopy(module)
        expected = backpack_trace(other, inputs, targets)
        assert abs(exact_trace(operator).sum() / expected - 1) < 1e-3
        ratios, own = paired(
            partial(exact_trace, operator),
            {"backpack": partial(backpack_trace, other, inputs, targets)},
            repetitions,
        )
        report(f"exact trace {name}", ratios, own)


def conjugate(repetitions):
    """All non-zero eigenvalues of G with n C = 2000 and a million parameters, in float64."""
    torch.manual_seed(0)
    sizes = (64, 690, 690, 690, 10)
    layers = [
        layer for pair in itertools.pairwise(sizes) for layer in (nn.Linear(*pair), nn.Tanh())
    ]
    module = nn.Sequential(*layers[:-1]).double()
    inputs, targets = torch.randn(200, 64).double(), torch.randint(0, 10, (200,))

    def ours():
        operator = ConjugateOperator(module, nn.CrossEntropyLoss(), inputs, targets)
        return torch.linalg.eigvalsh(operator.to_dense())

    peer = partial(kernel_eigenvalues, module, inputs)
    found, expected = ours(), peer()
    difference = float((found - expected).abs().max() / expected.max())
    print(f"conjugate: largest difference {difference:.1e} of the largest eigenvalue")
    ratios, own = paired(ours, {"NTK of torch.func, eigvalsh": peer}, repetitions)
    report("conjugate, all eigenvalues", ratios, own)


def growth(repetitions):
    """Print the slopes of the time of a product in rows and in parameters."""
    module = mlp()
    sizes, times = (512, 2048, 8192, 51200), []
    for size in sizes:
        inputs, targets = torch.randn(size, 64), torch.randint(0, 10, (size,))
        operator = HessianOperator(module, nn.CrossEntropyLoss(), inputs, targets)
        times.append(_product_time(operator, repetitions))
    print(f"growth in rows, 512 to 51200: slope {_slope(sizes, times):.2f}")
    counts, times = [], []
    for width in (128, 384, 1280):
        module = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
                               nn.Linear(width, 10))  # fmt: skip
        inputs, targets = torch.randn(1024, 64), torch.randint(0, 10, (1024,))
        operator = GaussNewtonOperator(module, nn.CrossEntropyLoss(), inputs, targets)
        counts.append(operator.size)
        times.append(_product_time(operator, repetitions))
    print(f"growth in parameters, {counts[0]} to {counts[-1]}: slope {_slope(counts, times):.2f}")


def _product_time(operator, repetitions):
    vector = torch.randn(operator.size)
    operator.matvec(vector)
    return np.median([seconds(partial(operator.matvec, vector)) for _ in range(repetitions)])


def _slope(sizes, times):
    return np.polyfit(np.log(sizes), np.log(times), 1)[0]


JOBS = {"product": product, "top": top, "resnet": resnet, "trace": trace, "conjugate": conjugate,
        "growth": growth}  # fmt: skip

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("jobs", nargs="*", default=list(JOBS), choices=list(JOBS))
    parser.add_argument("--repetitions", type=int, default=5)
    settings = parser.parse_args()
    torch.set_num_threads(1)
    for job in settings.jobs:
        JOBS[job](settings.repetitions)
