"""Which epoch is kept: by the training rows, by 20 % of them set aside, the last, or the best.

Prints, and with ``--write`` stores in stopping.md, the test error that each leaves. Both callbacks
see all epochs and go back to the best; only the rows they need differ.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from skorch.callbacks import Callback, EarlyStopping
from skorch.dataset import ValidSplit
from suites import SUITES, Data, Suite
from training import SEEDS

from sharpfit import NetworkClassifier, NetworkRegressor, TrainingRowsStopping

NAMES = [
    "breast_cancer", "moons", "wine", "quantiles", "digits_noisy", "diabetes", "friedman1",
    "friedman2",
]  # fmt: skip
NETWORKS = {
    "small, SGD": {"module__hidden": (32,), "lr": 0.05, "optimizer__momentum": 0.9},
    "large, Adam": {
        "module__hidden": (128, 128),
        "optimizer": torch.optim.Adam,
        "lr": 0.003,
    },
}
N_EPOCHS = 80
WAYS = ["training rows", "20 % set aside", "last epoch", "best epoch (oracle)"]


class TestErrors(Callback):
    """Records the test error after every epoch; the training does not see it."""

    def __init__(self, suite: Suite, data: Data) -> None:
        self.suite = suite
        self.data = data

    def on_train_begin(self, net, **kwargs):
        """Start anew."""
        self.errors_ = []

    def on_epoch_end(self, net, **kwargs):
        """Record one error."""
        self.errors_.append(test_error(net, self.suite, self.data))


def test_error(net, suite: Suite, data: Data) -> float:
    """Share of wrong test rows, or mean squared error in units of the targets' variance."""
    predicted = net.predict(data.X_test)
    if suite.task == "regression":
        return float(np.mean((predicted - data.y_test) ** 2))
    return float(np.mean(predicted != data.y_test))


def compare(suite: Suite, seed: int, settings: dict) -> dict[str, float]:
    """Train once on all rows and once on 80 %, and return the test errors."""
    data = suite.data(seed)
    regression = suite.task == "regression"
    kind = NetworkRegressor if regression else NetworkClassifier
    y = data.y.astype(np.float32) if regression else data.y
    common = {"max_epochs": N_EPOCHS, "batch_size": 32, "random_state": seed, **settings}
    callbacks = [("stopping", TrainingRowsStopping()), ("test", TestErrors(suite, data))]
    all_rows = kind(callbacks=callbacks, **common).fit(data.X, y)
    errors = dict(all_rows.callbacks_)["test"].errors_
    split = ValidSplit(0.2, stratified=not regression, random_state=seed)
    stopping = EarlyStopping(patience=N_EPOCHS, load_best=True, sink=lambda message: None)
    part = kind(callbacks=[("stopping", stopping)], train_split=split, **common).fit(data.X, y)
    kept = [
        test_error(all_rows, suite, data),
        test_error(part, suite, data),
        errors[-1],
        min(errors),
    ]
    return dict(zip(WAYS, kept, strict=True))


def report(found: pd.DataFrame) -> str:
    """Tables in Markdown; intervals are 90 %, by bootstrap over suites and seeds."""
    by_suite = found.groupby("suite", sort=False)[WAYS].mean()
    lines = ["| suite | " + " | ".join(WAYS) + " |", "|---" * (len(WAYS) + 1) + "|"]
    for name, row in by_suite.iterrows():
        lines.append(f"| {name} | " + " | ".join(f"{value:.4f}" for value in row) + " |")
    relative = (found["training rows"] / found["20 % set aside"]).groupby(found["suite"])
    groups = [np.log(group.to_numpy()) for _, group in relative]
    rng = np.random.default_rng(0)
    means = []
    for _ in range(4000):
        picked = [groups[i] for i in rng.integers(len(groups), size=len(groups))]
        means.append(np.mean([rng.choice(group, len(group)).mean() for group in picked]))
    low, high = np.exp(np.quantile(means, [0.05, 0.95]))
    ratio = np.exp(np.mean([group.mean() for group in groups]))
    lines += [
        "",
        f"Test error, training rows over 20 % set aside (geometric mean over suites): {ratio:.3f} "
        f"[{low:.3f}, {high:.3f}].",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", nargs="*", default=NAMES)
    parser.add_argument("--write", action="store_true", help="write stopping.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    found = []
    for name in arguments.suites:
        for seed in SEEDS:
            for settings in NETWORKS.values():
                found.append({"suite": name, **compare(SUITES[name], seed, settings)})
        print(found[-1], flush=True)
    text = report(pd.DataFrame(found))
    print(text)
    if arguments.write:
        title = f"# Keeping an epoch ({len(SEEDS)} seeds, {len(NETWORKS)} networks a suite)\n\n"
        (Path(__file__).parent / "stopping.md").write_text(title + text + "\n")


if __name__ == "__main__":
    main()
