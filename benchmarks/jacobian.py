"""Jacobian norms and slopes against forming the Jacobians, and against numpy and SciPy.

    python benchmarks/jacobian.py            # all tables
    python benchmarks/jacobian.py mlp slopes # some of them

Every repetition runs all competitors once, in turn, on one thread. Times are CPU seconds of the
process, which another load on the machine disturbs less than wall time; a ratio is the median over
repetitions of (ours / theirs) with its quartiles. Peers get the best of their chunk sizes. Peak
memory is what the job adds to the resident memory of a fresh process.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.spatial import cKDTree
from scipy.spatial.distance import pdist
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from sharpfit.jacobian import jacobian_norms, slopes

PEER_CHUNKS = {"mlp": (64, 128, 256, 512, 1024), "cnn": (32, 64, 128), "resnet": (8, 16, 32)}


def mlp() -> tuple[nn.Module, Tensor]:
    """MLP 64-128-128-10, 1024 rows."""
    torch.manual_seed(0)
    layers = [nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)]
    return nn.Sequential(*layers).eval(), torch.randn(1024, 64)


def cnn() -> tuple[nn.Module, Tensor]:
    """Two convolutions, pooling and two dense layers, 512 images of 1x28x28."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1568, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    return net.eval(), torch.randn(512, 1, 28, 28)


class Block(nn.Module):
    """Two convolutions with batch norm around a shortcut."""

    def __init__(self, inner: int, outer: int, stride: int):
        super().__init__()
        self.first = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(outer)
        self.second = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(outer)
        self.shortcut = nn.Identity()
        if stride > 1 or inner != outer:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        inner = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(self.second_norm(self.second(inner)) + self.shortcut(x))


def resnet() -> tuple[nn.Module, Tensor]:
    """ResNet-18 layout of width 16, batch norm in evaluation mode, 64 images of 3x32x32."""
    torch.manual_seed(0)
    blocks: list[nn.Module] = []
    inner = 16
    for outer, stride in ((16, 1), (32, 2), (64, 2), (128, 2)):
        blocks += [Block(inner, outer, stride), Block(outer, outer, 1)]
        inner = outer
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, 10),
    )
    return net.eval(), torch.randn(64, 3, 32, 32)


NETS = {"mlp": mlp, "cnn": cnn, "resnet": resnet}


def whole_jacobians(net: nn.Module) -> Callable[[Tensor], Tensor]:
    """Form Jacobians with torch.func, parameters held constant."""
    constants = {name: value.detach() for name, value in net.state_dict().items()}

    def one(row: Tensor) -> Tensor:
        return functional_call(net, constants, (row.unsqueeze(0),))[0]

    def several(rows: Tensor) -> Tensor:
        return vmap(jacrev(one))(rows).flatten(2)

    return several


def peer_norms(net: nn.Module, inputs: Tensor, chunk: int, how: str) -> Tensor:
    """Spectral norms from formed Jacobians, by singular values or Gram matrices."""
    form = whole_jacobians(net)
    found = []
    with torch.no_grad():
        for rows in inputs.split(chunk):
            jacobians = form(rows)
            if how == "svdvals":
                found.append(torch.linalg.svdvals(jacobians)[:, 0])
            else:
                gram = jacobians @ jacobians.mT
                found.append(torch.linalg.eigvalsh(gram)[:, -1].clamp_min(0).sqrt())
    return torch.cat(found)


def compare(jobs: dict[str, Callable[[], object]], repetitions: int) -> dict[str, np.ndarray]:
    """Run all jobs in turn, several times; CPU seconds of each."""
    for job in jobs.values():
        job()
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repetitions):
        for name, job in jobs.items():
            start = time.process_time()
            job()
            seconds[name].append(time.process_time() - start)
    return {name: np.array(values) for name, values in seconds.items()}


def line(job: str, ours: np.ndarray, peer: str, theirs: np.ndarray, bar: str) -> None:
    """Print one ratio with its quartiles."""
    low, middle, high = np.quantile(ours / theirs, [0.25, 0.5, 0.75])
    print(
        f"{job:<42} {1e3 * np.median(ours):9.2f} ms  {peer:<28} {1e3 * np.median(theirs):9.2f} ms"
        f"  ratio {middle:.3f} [{low:.3f}, {high:.3f}]  bar {bar}"
    )


def best_chunk(name: str, how: str) -> int:
    """Find the chunk size at which the peer is fastest."""
    net, inputs = NETS[name]()
    jobs = {
        str(chunk): lambda chunk=chunk: peer_norms(net, inputs, chunk, how)
        for chunk in PEER_CHUNKS[name]
    }
    seconds = compare(jobs, 7 if name == "mlp" else 1)
    return int(min(seconds, key=lambda chunk: np.median(seconds[chunk])))


def norms_table(name: str, repetitions: int) -> None:
    """Spectral norms against both peers; all features against the spectral norms alone."""
    net, inputs = NETS[name]()
    chunks = {how: best_chunk(name, how) for how in ("svdvals", "gram")}
    peers = {how: (lambda how=how: peer_norms(net, inputs, chunks[how], how)) for how in chunks}
    jobs = {
        "ours": lambda: jacobian_norms(net, inputs),
        "features": lambda: jacobian_norms(net, inputs, margins=True),
        **peers,
    }
    difference = np.abs(jacobian_norms(net, inputs).spectral - peers["svdvals"]().numpy())
    print(f"-- {name}: {NETS[name].__doc__} largest difference {difference.max():.1e}")
    seconds = compare(jobs, repetitions)
    bars = {"svdvals": "0.4", "gram": "1.0, aim 0.7"} if name == "mlp" else {}
    for how in ("svdvals", "gram"):
        peer = f"jacrev + {how}, chunk {chunks[how]}"
        line("spectral norms", seconds["ours"], peer, seconds[how], bars.get(how, "0.95, aim 0.8"))
    line("all features", seconds["features"], "spectral norms alone", seconds["ours"], "1.3")


def memory_table(name: str) -> None:
    """Peak memory against the unchunked peer, each in a fresh process."""
    megabytes = {}
    for side in ("ours", "peer"):
        command = [sys.executable, __file__, "--peak", name, side]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        megabytes[side] = float(output)
    print(
        f"{'peak memory':<42} {megabytes['ours']:9.1f} MB  {'jacrev + gram, unchunked':<28} "
        f"{megabytes['peer']:9.1f} MB  ratio {megabytes['ours'] / megabytes['peer']:.3f}  bar 0.25"
    )


def peak(name: str, side: str) -> None:
    """Print the megabytes that one job adds to this process."""
    net, inputs = NETS[name]()
    net(inputs[:2])
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = _status("VmRSS")
    if side == "ours":
        jacobian_norms(net, inputs)
    else:
        peer_norms(net, inputs, len(inputs), "gram")
    print((_status("VmHWM") - before) / 1024)


def _status(key: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(row.split()[1]) for row in file if row.startswith(key))


def wide_table(repetitions: int) -> None:
    """Norms of 1000 outputs of 3072 inputs, to one part in a thousand."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(3072, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 1000)
    ).eval()
    inputs = torch.randn(16, 3072)
    form = whole_jacobians(net)
    found, truth = jacobian_norms(net, inputs), peer_norms(net, inputs, 4, "gram").numpy()
    error = np.abs(found.spectral / truth - 1).max()
    print(f"-- wide: MLP 3072-512-512-1000, 16 rows; method {found.method}, error {error:.1e}")
    jobs = {
        "ours": lambda: jacobian_norms(net, inputs),
        "every class": lambda: jacobian_norms(net, inputs, output="margin", margins="all"),
        "forming": lambda: [form(rows) for rows in inputs.split(4)],
        "gram": lambda: peer_norms(net, inputs, 4, "gram"),
    }
    seconds = compare(jobs, repetitions)
    line("spectral norms to 1e-3", seconds["ours"], "jacrev alone", seconds["forming"], "0.2")
    line("spectral norms to 1e-3", seconds["ours"], "jacrev + gram", seconds["gram"], "0.2")
    line(
        "largest margin gradients", seconds["every class"], "jacrev alone", seconds["forming"], "-"
    )


def slopes_table(repetitions: int) -> None:
    """Slopes over all pairs and to 10 neighbours, 5000 rows."""
    generator = np.random.default_rng(0)
    points, values = generator.normal(size=(5000, 64)), generator.normal(size=(5000, 10))

    def scipy_pairs() -> tuple[float, float]:
        found = pdist(values) / pdist(points)
        return found.max(), np.median(found)

    def scipy_neighbours() -> float:
        distances, neighbours = cKDTree(points).query(points, k=11)
        gaps = np.linalg.norm(values[:, None] - values[neighbours[:, 1:]], axis=2)
        return (gaps / distances[:, 1:]).max()

    def numpy_neighbours() -> float:
        squares = np.square(points).sum(axis=1)
        distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * points @ points.T, 0))
        np.fill_diagonal(distances, np.inf)
        neighbours = np.argpartition(distances, 10, axis=1)[:, :10]
        gaps = np.linalg.norm(values[:, None] - values[neighbours], axis=2)
        return (gaps / np.take_along_axis(distances, neighbours, axis=1)).max()

    assert np.isclose(slopes(values, points).largest, scipy_pairs()[0])
    assert np.isclose(slopes(values, points, n_neighbours=10).largest, scipy_neighbours())
    print("-- slopes: 5000 rows of 64 features, 10 outputs; largest, per row and quantiles")
    jobs = {
        "pairs": lambda: slopes(values, points),
        "scipy pairs": scipy_pairs,
        "neighbours": lambda: slopes(values, points, n_neighbours=10),
        "scipy neighbours": scipy_neighbours,
        "numpy neighbours": numpy_neighbours,
    }
    seconds = compare(jobs, repetitions)
    line("all pairs", seconds["pairs"], "scipy pdist", seconds["scipy pairs"], "1")
    for peer in ("scipy neighbours", "numpy neighbours"):
        line("10 neighbours", seconds["neighbours"], peer, seconds[peer], "1")


TABLES: dict[str, Callable[[], None]] = {
    "mlp": lambda: norms_table("mlp", 151),
    "cnn": lambda: (norms_table("cnn", 9), memory_table("cnn")),
    "resnet": lambda: (norms_table("resnet", 7), memory_table("resnet")),
    "wide": lambda: wide_table(5),
    "slopes": lambda: slopes_table(5),
}


def main() -> None:
    """Print the tables that were asked for."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", choices=[[], *TABLES], default=[])
    parser.add_argument("--peak", nargs=2, metavar=("NET", "SIDE"))
    arguments = parser.parse_args()
    if arguments.peak:
        peak(*arguments.peak)
        return
    for name in arguments.tables or TABLES:
        TABLES[name]()


if __name__ == "__main__":
    main()
