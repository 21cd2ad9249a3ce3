"""How tight Lipschitz certificates are: product of norms, semidefinite, largest slope found.

    python benchmarks/certificates.py

Every network is trained with weight decay 1e-3 from three seeds. ``found`` is the largest Jacobian
norm met in a search (the sample, its surroundings, and climbs from the steepest points), a lower
bound on the Lipschitz constant; ``tightness`` is the semidefinite certificate divided by it.
``radius`` is the median certified radius of the correctly classified samples divided by what the
semidefinite certificate alone gives, the margin over its constant.
"""

import time
from collections.abc import Callable

import numpy as np
import torch
from sklearn.datasets import load_digits, make_moons
from torch import Tensor, nn

from sharpfit import NetworkClassifier
from sharpfit.jacobian import certified_radii, jacobian_norms, lipschitz_certificate

SEEDS = (0, 1, 2)


def moons(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two moons, 1000 rows."""
    return make_moons(1000, noise=0.1, random_state=seed)


def digits(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Handwritten digits, 1797 rows of 64 pixels in [0, 1]."""
    X, y = load_digits(return_X_y=True)
    return X / 16, y


def convolutional() -> nn.Module:
    """Two convolutions, pooling, and a dense head with a hidden layer of 64."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def steepest(module: nn.Module, inputs: Tensor, *, n_rounds: int = 30, n_best: int = 200) -> float:
    """Largest Jacobian norm found from the sample outwards; a lower bound on the constant."""
    generator = torch.Generator().manual_seed(0)
    points = inputs
    step = float(inputs.std())
    for _ in range(n_rounds):
        norms = jacobian_norms(module, points).spectral
        points = points[torch.as_tensor(norms).argsort(descending=True)[:n_best]]
        noise = torch.randn((3, *points.shape), generator=generator, dtype=points.dtype) * step
        points = torch.cat([points, (points + noise).flatten(end_dim=1)])
        step *= 0.85
    return float(torch.as_tensor(jacobian_norms(module, points).spectral).max())


def report(
    name: str, data: Callable[[int], tuple[np.ndarray, np.ndarray]], **settings: object
) -> None:
    """Train, certify and print one line a seed, and the median."""
    ratios = []
    for seed in SEEDS:
        X, y = data(seed)
        network = NetworkClassifier(
            optimizer__weight_decay=1e-3, random_state=seed, **settings
        ).fit(X, y)
        module = network.module_.eval()
        dtype = next(module.parameters()).dtype
        inputs, labels = torch.as_tensor(X, dtype=dtype), torch.as_tensor(y)
        product = lipschitz_certificate(module, tuple(inputs.shape[1:]))
        start = time.perf_counter()
        refined = lipschitz_certificate(module, tuple(inputs.shape[1:]), method="semidefinite")
        seconds = time.perf_counter() - start
        found = steepest(module, inputs)
        ratios.append(float(refined) / float(product))
        part, part_labels = inputs[:100], labels[:100]
        with torch.no_grad():
            logits = module(part).double()
        others = logits.scatter(1, part_labels[:, None], -torch.inf).amax(1)
        margins = logits.gather(1, part_labels[:, None])[:, 0] - others
        radii = certified_radii(module, part, part_labels)
        gain = (radii * refined.margin_constant / margins)[margins > 0].median()
        print(
            f"{name:26s} seed {seed}: accuracy {network.score(X, y):.3f}  "
            f"product {float(product):9.2f}  semidefinite {float(refined):9.2f} "
            f"({ratios[-1]:.3f})  found {found:8.2f}  tightness {refined.tightness(found):6.2f}  "
            f"margin {refined.margin_constant / product.margin_constant:.3f}  "
            f"radius x{gain:.2f}  {seconds:.2f} s"
        )
    print(f"{name:26s} semidefinite / product, median of seeds: {np.median(ratios):.3f}\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    report("moons, 2-64-64-2 ReLU", moons, module__hidden=(64, 64))
    report("moons, 2-64-64-2 tanh", moons, module__hidden=(64, 64), module__activation="tanh")
    report("digits, 64-128-128-10 ReLU", digits, module__hidden=(128, 128))
    report("digits, convolutional", digits, module=convolutional)
