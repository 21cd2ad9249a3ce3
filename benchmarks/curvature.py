"""Curvature against its peers: ``python benchmarks/curvature.py [job ...]``.

One thread, float32, the same trained network, rows and chunks for everyone. Times are the
process's CPU seconds, so that other work on the machine does not count; each line is the ratio
of ours to a peer's, paired within one repetition: median [lower, upper quartile]. "Supported" is
the route of stacks of known layers, "general" that of any other network. With ``--times FILE``
the seconds are kept there: a later run with the same file adds repetitions and reports on all.
Peers: ``make bench`` installs curvlinops-for-pytorch, hessian-eigenthings, pyhessian and
backpack-for-pytorch.
"""

import argparse
import copy
import itertools
import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from _curvature_peers import (
    TOP,
    Curvlinops,
    Eigenthings,
    PyHessian,
    backpack_trace,
    kernel_eigenvalues,
    probed_traces,
)
from _curvature_problems import batched, problem
from torch import nn

from sharpfit.curvature import (
    ConjugateOperator,
    GaussNewtonOperator,
    HessianOperator,
    curvature_trace,
    exact_trace,
    hessian_spectrum,
)
from sharpfit.linalg import trace_estimate

LOSS = nn.CrossEntropyLoss()
CHUNK = {"mlp": 479, "cnn": 128, "resnet": 32}
GENERAL = {"supported": "auto", "general": "graph"}
IN_A_ROW = 5  # products of a repetition, as eigensolvers call them


class Stopwatch:
    """CPU seconds of candidates that take turns, a repetition at a time."""

    def __init__(self, repetitions, path=None):
        self.repetitions = repetitions
        self.path = path
        self.seconds = {}
        if path is not None and path.exists():
            for line in path.read_text().splitlines():
                record = json.loads(line)
                self.seconds.setdefault(record["job"], []).append(record["seconds"])

    def take(self, job, candidates):
        """Time all candidates, called with the number of the repetition."""
        done = self.seconds.setdefault(job, [])
        for _ in range(self.repetitions):
            done.append(self.repetition(candidates, len(done)))
            if self.path is not None:
                with self.path.open("a") as file:
                    file.write(json.dumps({"job": job, "seconds": done[-1]}) + "\n")

    def repetition(self, candidates, number):
        """Return the seconds of each candidate, once."""
        return {name: cpu_seconds(call, number) for name, call in candidates.items()}

    def report(self, job, ours, peers, bar=None):
        """Print the ratio of ours to the fastest of some peers."""
        times = {
            name: np.array([record[name] for record in self.seconds[job] if name in record])
            for name in (ours, *peers)
        }
        times = {name: values for name, values in times.items() if len(values)}
        if len(times) < 2:
            print(f"{job}, {ours}: no peer is right")
            return
        best = min(
            (name for name in times if name != ours), key=lambda name: np.median(times[name])
        )
        count = min(len(times[ours]), len(times[best]))
        low, middle, high = np.quantile(
            times[ours][-count:] / times[best][-count:], (0.25, 0.5, 0.75)
        )
        verdict = "" if bar is None else f", bar {bar} {'met' if high <= bar else 'missed'}"
        print(f"{job}, {ours}: {np.median(times[ours]):.4g} s / {best} {middle:.2f} "
              f"[{low:.2f}, {high:.2f}] of {count}{verdict}", flush=True)  # fmt: skip


def cpu_seconds(call, number=0):
    start = time.process_time()
    call(number)
    return time.process_time() - start


def product(watch):
    bars = {"mlp": {"supported": 0.9, "general": 1.0}, "cnn": {"supported": 0.8, "general": 0.9}}
    for name in ("mlp", "cnn"):
        module, inputs, targets = problem(name)
        vector = torch.randn(sum(p.numel() for p in module.parameters()))
        # Chunks of one size: hessian-eigenthings averages batches whatever their sizes.
        for size in (CHUNK[name], len(inputs)):
            batches = batched(inputs, targets, size)
            peers = [kind(copy.deepcopy(module), batches)
                     for kind in (Curvlinops, Eigenthings, PyHessian)]  # fmt: skip
            calls = {}
            for kind, route in GENERAL.items():
                operator = HessianOperator(
                    module, LOSS, inputs, targets, batch_size=size, route=route
                )
                ours = operator.matvec(vector)
                for peer in peers:
                    found = peer.product(vector)
                    assert torch.allclose(ours, found, rtol=1e-2, atol=1e-3 * ours.abs().max())
                calls[kind] = partial(_matvec, operator, vector)
            calls |= {peer.name: partial(_product, peer, vector) for peer in peers}
            job = f"product {name}, chunks of {size}"
            watch.take(job, calls)
            for kind in GENERAL:
                watch.report(job, kind, [peer.name for peer in peers], bars[name][kind])
                watch.report(job, kind, ["curvlinops"], {"supported": 0.4, "general": 0.5}[kind])


def _matvec(operator, vector, _=0):
    for _ in range(IN_A_ROW):
        operator.matvec(vector)


def _product(peer, vector, _=0):
    for _ in range(IN_A_ROW):
        peer.product(vector)


def top_mlp(watch):
    top(watch, "mlp")


def top_cnn(watch):
    top(watch, "cnn")


def top(watch, name):
    """Ten eigenvalues to 1e-3: peers tuned with the truth in hand, and at their defaults."""
    module, inputs, targets = problem(name)
    wide = copy.deepcopy(module).double(), LOSS, inputs.double(), targets
    exact = hessian_spectrum(*wide, n_eigenvalues=TOP, tol=1e-6, random_state=1).eigenvalues

    def right(values):
        return bool((np.abs(values - exact) <= 1e-3 * np.abs(exact)).all())

    calls = {}
    for kind, route in GENERAL.items():
        ours = partial(_spectrum, module, inputs, targets, batch_size=CHUNK[name], route=route)
        assert right(ours(0).eigenvalues)
        calls[kind] = ours
    tuned, defaults = [], []
    for kind in (Curvlinops, Eigenthings):
        peer = kind(copy.deepcopy(module), batched(inputs, targets, CHUNK[name]))
        best = next((s for s in kind.settings if right(peer.top(s))), None)
        if best is not None:
            tuned.append(f"{peer.name} at {best}")
            calls[tuned[-1]] = partial(_top, peer, best)
        if right(peer.top(None)):
            defaults.append(f"{peer.name} at defaults")
            calls[defaults[-1]] = partial(_top, peer, None)
        else:
            print(f"top {name}: {peer.name} is wrong at its defaults")
    job = f"top {TOP} {name}"
    watch.take(job, calls)
    for kind, bars in (("supported", (0.6, 0.45, 0.35)), ("general", (0.75, 0.5, 0.45))):
        watch.report(job, kind, tuned, bars[0])
        watch.report(job, kind, [peer for peer in tuned if "curvlinops" in peer], bars[1])
        watch.report(job, kind, defaults, bars[2])


def _spectrum(module, inputs, targets, number, **settings):
    return hessian_spectrum(
        module, LOSS, inputs, targets, n_eigenvalues=TOP, random_state=number, **settings
    )


def _top(peer, setting, _=0):
    return peer.top(setting)


def resnet(watch):
    """Time a product of a ResNet-18 with 11 million parameters."""
    module, inputs, targets = problem("resnet")
    vector = torch.randn(sum(p.numel() for p in module.parameters()))
    batches = batched(inputs, targets, CHUNK["resnet"])
    peers = [kind(copy.deepcopy(module), batches) for kind in (Curvlinops, Eigenthings)]
    operator = HessianOperator(module, LOSS, inputs, targets, batch_size=CHUNK["resnet"])
    ours = operator.matvec(vector)
    assert torch.allclose(ours, peers[1].product(vector), rtol=1e-2, atol=1e-3 * ours.abs().max())
    calls = {"general": partial(_matvec, operator, vector)}
    calls |= {peer.name: partial(_product, peer, vector) for peer in peers}
    watch.take("product ResNet-18", calls)
    watch.report("product ResNet-18", "general", [peer.name for peer in peers], 0.9)


def top_resnet(watch):
    """Ten eigenvalues of a ResNet-18; every run takes minutes, so this job runs when named."""
    module, inputs, targets = problem("resnet")
    ours = partial(_spectrum, module, inputs, targets, batch_size=CHUNK["resnet"])
    exact = ours(1, tol=1e-4).eigenvalues
    peer = Eigenthings(copy.deepcopy(module), batched(inputs, targets, CHUNK["resnet"]))
    errors = {n: np.abs(values / exact - 1).max() for n, values in peer.prefixes(80)}
    right = [steps for steps, error in errors.items() if error <= 1e-3]
    print(f"top {TOP} ResNet-18: off by {errors[40]:.1e} at 40 steps of {peer.name}, by "
          f"{errors[60]:.1e} at 60, right at {right[:1]}", flush=True)  # fmt: skip
    if not right:
        return
    steps = right[0]
    calls = {"general": ours, f"{peer.name} at {steps}": partial(_top, peer, steps)}
    watch.take("top 10 ResNet-18", calls)
    watch.report("top 10 ResNet-18", "general", [f"{peer.name} at {steps}"], 0.9)


def memory(_, count=1):
    """Peak memory beyond that of the loaded network of a short top 1 of the ResNet-18."""
    script = Path(__file__).with_name("_curvature_memory.py")
    # Side by side, since the long ones take minutes.
    runs = {
        who: subprocess.Popen(
            [sys.executable, script, who, str(count)], stdout=subprocess.PIPE, text=True
        )
        for who in ("ours", "hessian-eigenthings")
    }
    peaks = {who: int(run.communicate()[0]) for who, run in runs.items()}
    for who, peak in peaks.items():
        print(f"memory ResNet-18, top {count}, {who}: {peak / 2**20:.0f} MiB", flush=True)
    ratio = peaks["ours"] / peaks["hessian-eigenthings"]
    print(f"memory ResNet-18: ratio {ratio:.2f}, bar 1.2 {'met' if ratio <= 1.2 else 'missed'}")


def memory_top(watch):
    """Peak memory of the whole top 10; minutes, so this job runs when named."""
    memory(watch, TOP)


def trace(watch):
    for name in ("mlp", "cnn"):
        module, inputs, targets = problem(name)
        operator = HessianOperator(module, LOSS, inputs, targets)
        other = copy.deepcopy(module)
        expected = backpack_trace(other, inputs, targets)
        assert abs(exact_trace(operator).sum() / expected - 1) < 1e-3
        job = f"exact trace {name}"
        watch.take(job, {"ours": lambda _, operator=operator: exact_trace(operator),
                         "backpack": lambda _, other=other, inputs=inputs, targets=targets:
                         backpack_trace(other, inputs, targets)})  # fmt: skip
        watch.report(job, "ours", ["backpack"], 0.6)


def probes(watch):
    """Time the trace of a smooth network to 2 %, peers' probes counted with the truth in hand."""
    module, inputs, targets = problem("smooth")
    operator = HessianOperator(module, LOSS, inputs, targets, batch_size=479)
    exact = trace_estimate(operator, tol=1e-3, random_state=0).value
    calls = {
        kind: partial(_trace, module, inputs, targets, batch_size=479, route=route)
        for kind, route in GENERAL.items()
    }
    estimates = [calls["supported"](seed) for seed in range(8)]
    errors = np.array([estimate.value / exact - 1 for estimate in estimates])
    print(f"trace by probes: {exact:.4g}, our errors have a mean square of {_rms(errors):.3f}, "
          f"{estimates[0].n_products} products of the residual")  # fmt: skip
    peer = Curvlinops(copy.deepcopy(module), batched(inputs, targets, 479))
    names = []
    for name, function, counts in probed_traces(peer.operator):
        for count in counts:
            found = np.array([_seeded(function, count, seed) for seed in range(6)])
            if _rms(found / exact - 1) <= 0.02:
                names.append(f"{name}, {count} products")
                calls[names[-1]] = partial(_seeded, function, count)
                break
        else:
            print(f"trace by probes: {name} needs more than {counts[-1]} products")
    watch.take("trace by probes", calls)
    for kind in GENERAL:
        watch.report("trace by probes", kind, names, 1.0)


def _trace(module, inputs, targets, number, **settings):
    return curvature_trace(module, LOSS, inputs, targets, random_state=number, **settings)


def _rms(errors):
    return float(np.sqrt(np.mean(np.square(errors))))


def _seeded(function, count, seed):
    torch.manual_seed(seed)
    return float(function(count))


def conjugate(watch):
    """All non-zero eigenvalues of G with a million parameters, in float64."""
    torch.manual_seed(0)
    sizes = (64, 690, 690, 690, 10)
    layers = [
        layer for pair in itertools.pairwise(sizes) for layer in (nn.Linear(*pair), nn.Tanh())
    ]
    module = nn.Sequential(*layers[:-1]).double()
    for count in (50, 200):
        inputs, targets = torch.randn(count, 64).double(), torch.randint(0, 10, (count,))
        found, calls = {}, {}

        def ours(_, inputs=inputs, targets=targets, found=found):
            operator = ConjugateOperator(module, LOSS, inputs, targets)
            found["ours"] = torch.linalg.eigvalsh(operator.to_dense())

        def peer(_, inputs=inputs, found=found):
            found["peer"] = kernel_eigenvalues(module, inputs)

        calls = {"ours": ours, "NTK of torch.func, eigvalsh": peer}
        job = f"conjugate, n C = {10 * count}"
        watch.take(job, calls)
        difference = float((found["ours"] - found["peer"]).abs().max() / found["peer"].max())
        print(f"{job}: largest difference {difference:.1e} of the largest eigenvalue")
        watch.report(job, "ours", ["NTK of torch.func, eigvalsh"], 1.0)


def growth(watch):
    """Print the slopes of the time of a product in rows and in parameters."""
    module = problem("mlp")[0]
    sizes, times = (512, 2048, 8192, 51200), []
    for size in sizes:
        inputs, targets = torch.randn(size, 64), torch.randint(0, 10, (size,))
        times.append(_product_time(HessianOperator(module, LOSS, inputs, targets), watch))
    print(f"growth in rows, {sizes[0]} to {sizes[-1]}: slope {_slope(sizes, times):.2f}")
    counts, times = [], []
    for width in (128, 480, 1580):
        module = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
                               nn.Linear(width, 10))  # fmt: skip
        inputs, targets = torch.randn(1024, 64), torch.randint(0, 10, (1024,))
        operator = GaussNewtonOperator(module, LOSS, inputs, targets)
        counts.append(operator.size)
        times.append(_product_time(operator, watch))
    print(f"growth in parameters, {counts[0]} to {counts[-1]}: slope {_slope(counts, times):.2f}")


def _product_time(operator, watch):
    vector = torch.randn(operator.size)
    operator.matvec(vector)
    call = partial(_matvec, operator, vector)
    return np.median([cpu_seconds(call) for _ in range(watch.repetitions)])


def _slope(sizes, times):
    return np.polyfit(np.log(sizes), np.log(times), 1)[0]


JOBS = {"product": product, "top_mlp": top_mlp, "top_cnn": top_cnn, "resnet": resnet,
        "memory": memory, "trace": trace, "probes": probes, "conjugate": conjugate,
        "growth": growth, "top_resnet": top_resnet, "memory_top": memory_top}  # fmt: skip
LONG = ("top_resnet", "memory_top")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "jobs", nargs="*", default=[job for job in JOBS if job not in LONG], choices=list(JOBS)
    )
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--times", type=Path)
    settings = parser.parse_args()
    torch.set_num_threads(1)
    watch = Stopwatch(settings.repetitions, settings.times)
    for job in settings.jobs:
        JOBS[job](watch)
