"""Score every criterion on every trained suite and print how well it picks.

``python evaluate.py`` prints the development suites; ``--held-back`` adds the held-back ones;
``--write`` also writes results.csv and results.md. Of suites whose networks are not in the cache,
what results.csv says is kept.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from criteria import CRITERIA, Network, Rows
from scipy.stats import kendalltau
from suites import SUITES, Suite
from training import CACHE, N_FOLDS, SEEDS, member, tensors, trained

FOLDS, HOLD_OUT, OURS = "5-fold error", "20 % hold-out error", "selection_scorer"
N_BOOTSTRAP = 4000
RESULTS = Path(__file__).with_name("results.csv")
SMALLEST_GRID = 10
N_CANDIDATES = 50


def score(suite: Suite) -> pd.DataFrame:
    """One row for each network of the suite: test error, criteria and seconds."""
    data = [suite.data(seed) for seed in SEEDS]
    rows = [Rows.of(suite, each.X, tensors(suite, each)[1]) for each in data]
    table = []
    for index, configuration in enumerate(suite.configurations()):
        if not (CACHE / suite.name / f"{index:02d}.pt").exists():
            continue
        result = trained(suite, index, configuration)
        for position, seed in enumerate(SEEDS):
            network = Network.of(member(suite, result, position, data[position]), rows[position])
            test = result["test"][0, position].item()
            if not (np.isfinite(network.outputs).all() and np.isfinite(test)):
                continue  # diverged: a search drops it, whatever ranks the others
            start = time.process_time()
            with torch.no_grad():
                network.trained.module(rows[position].X)
            ours = CRITERIA[OURS](network, rows[position])
            seconds = time.process_time() - start
            held = np.nan_to_num(result["validation"][0, position].numpy(), nan=np.inf)
            values = {name: rank(network, rows[position]) for name, rank in CRITERIA.items()}
            table.append(
                {
                    "seed": seed,
                    "configuration": index,
                    "test": test,
                    FOLDS: held[1:].mean(),
                    HOLD_OUT: held[0],
                    **values,
                    OURS: ours,
                    "scoring": seconds,
                    "fit on a fold's rows": result["seconds"][1],
                }
            )
    return pd.DataFrame(table)


def judge(scores: pd.DataFrame) -> pd.DataFrame:
    """Kendall tau with the test error and regret of the pick, by criterion and seed."""
    found = []
    for seed, grid in scores.groupby("seed"):
        for name in [FOLDS, HOLD_OUT, *CRITERIA]:
            tau = kendalltau(grid[name], grid["test"]).statistic
            # A tie is broken at random: the expected regret.
            regret = grid["test"][grid[name] == grid[name].min()].mean() - grid["test"].min()
            found.append((seed, name, 0.0 if np.isnan(tau) else tau, regret, len(grid)))
    return pd.DataFrame(found, columns=["seed", "criterion", "tau", "regret", "networks"])


def cost(scores: pd.DataFrame) -> float:
    """Fits and scoring of 50 candidates over the fits of 5-fold cross-validation.

    The first candidate that is scored on some rows also pays for what all share. A fit on all rows
    is counted as 1 / 0.8 of a fit on a fold's rows: both kinds were trained in stacks, of different
    size, so their own times do not compare.
    """
    fold = scores["fit on a fold's rows"].mean()
    of_seeds = scores.groupby("seed")["scoring"]
    each = of_seeds.median().mean()
    shared = of_seeds.first().mean() - each
    ours = N_CANDIDATES * (fold * N_FOLDS / (N_FOLDS - 1) + each) + shared
    return float(ours / (N_CANDIDATES * N_FOLDS * fold))


def intervals(judged: pd.DataFrame, column: str) -> pd.DataFrame:
    """Mean, 90 % interval and interval of the difference to 5-fold, over suites and seeds."""
    cube = judged.pivot_table(index=["suite", "seed"], columns="criterion", values=column)
    suites = [group.to_numpy() for _, group in cube.groupby(level="suite")]
    rng = np.random.default_rng(0)
    means = []
    for _ in range(N_BOOTSTRAP):
        picked = [suites[i] for i in rng.integers(len(suites), size=len(suites))]
        means.append(
            np.mean([s[rng.integers(len(s), size=len(s))].mean(0) for s in picked], axis=0)
        )
    resampled = pd.DataFrame(means, columns=cube.columns)
    difference = resampled.sub(resampled[FOLDS], axis=0)
    return pd.DataFrame(
        {
            "mean": cube.groupby(level="suite").mean().mean(),
            "low": resampled.quantile(0.05),
            "high": resampled.quantile(0.95),
            "minus 5-fold, low": difference.quantile(0.05),
            "minus 5-fold, high": difference.quantile(0.95),
        }
    )


def report(judged: pd.DataFrame) -> str:
    """Tables in Markdown."""
    tau, regret = intervals(judged, "tau"), intervals(judged, "regret")
    lines = [
        "| criterion | mean tau [90 %] | tau minus 5-fold [90 %] "
        "| mean regret [90 %] | regret minus 5-fold [90 %] |",
        "|---|---|---|---|---|",
    ]
    for name in tau.sort_values("mean", ascending=False).index:
        t, r = tau.loc[name], regret.loc[name]
        lines.append(
            f"| {name} | {t.iloc[0]:.3f} [{t.iloc[1]:.3f}, {t.iloc[2]:.3f}] "
            f"| [{t.iloc[3]:+.3f}, {t.iloc[4]:+.3f}] "
            f"| {r.iloc[0]:.4f} [{r.iloc[1]:.4f}, {r.iloc[2]:.4f}] "
            f"| [{r.iloc[3]:+.4f}, {r.iloc[4]:+.4f}] |"
        )
    shown = [OURS, FOLDS, HOLD_OUT, "largest slope between neighbours", "training error"]
    lines += [
        "",
        "| suite (seeds, networks a seed) | cost | " + " | ".join(shown) + " |",
        "|---|---|" + "---|" * len(shown),
    ]
    for suite, group in judged.groupby("suite", sort=False):
        means = group.groupby("criterion")[["tau", "regret"]].mean()
        cells = [f"{means.tau[name]:.2f} / {means.regret[name]:.4f}" for name in shown]
        size = f"{group.seed.nunique()}, {round(group.networks.mean())}"
        lines.append(f"| {suite} ({size}) | {group.cost.mean():.3f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--held-back", action="store_true", help="show the held-back suites too")
    parser.add_argument("--write", action="store_true", help="write results.csv and results.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    before = pd.read_csv(RESULTS) if RESULTS.exists() else pd.DataFrame(columns=["suite"])
    judged = []
    for name, suite in SUITES.items():
        if suite.held_back and not arguments.held_back:
            continue
        trained_networks = list((CACHE / name).glob("*.pt"))
        if len(trained_networks) >= SMALLEST_GRID:
            scores = score(suite)
            found = judge(scores).assign(suite=name, cost=cost(scores))
        else:
            found = before[before.suite == name]
        if found.empty:
            print(f"{name}: {len(trained_networks)} networks are trained, left out")
            continue
        judged.append(found.assign(held_back=suite.held_back))
    table = pd.concat(judged)
    sections = ["# Selection from training rows", "## Development suites"]
    sections.append(report(table[~table.held_back]))
    if table.held_back.any():
        sections += ["## Held-back suites", report(table[table.held_back])]
    text = "\n\n".join(sections) + "\n"
    print(text)
    if arguments.write:
        table.round(5).to_csv(RESULTS, index=False)
        RESULTS.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
