"""Choose a network for the digits by its bound, then look at the winner. Run by `make demo`."""

import time
import warnings
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sharpfit import (
    BoundDisplay,
    GeneralisationBound,
    HalfFeatures,
    HessianSpectrum,
    JacobianDisplay,
    JacobianProfiler,
    NetworkClassifier,
    ResubstitutionSplit,
    SpectrumDisplay,
    make_bound_scorer,
)

OUTPUT = Path("demo-output")
GRID = {
    "networkclassifier__module__hidden": [(32,), (128, 128)],
    "networkclassifier__optimizer__weight_decay": [0, 1e-3, 1e-2],
}


def main():
    """Run the demo."""
    # Twenty epochs are few for some candidates; the search is there to find that out.
    warnings.filterwarnings("ignore", category=ConvergenceWarning)
    started = time.perf_counter()
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, train_size=1400, random_state=0)
    network = NetworkClassifier(lr=0.05, batch_size=64, max_epochs=20, random_state=0)
    features = HalfFeatures(make_pipeline(StandardScaler(), network))
    pipeline = make_pipeline(features, network)
    pipeline.fit(X, y)  # The first fit of a process loads parts of torch: not timed.

    print(f"Digits: {len(X)} rows to train on, {len(X_test)} to know the truth.")
    print("Features are learnt on a random half of the rows, the network on all of them.\n")

    def test_error(estimator, *_):
        return 1 - estimator.score(X_test, y_test)

    search = GridSearchCV(
        pipeline,
        GRID,
        scoring={"bound": make_bound_scorer(lipschitz="certified"), "test_error": test_error},
        refit="bound",
        cv=ResubstitutionSplit(),
    ).fit(X, y)
    report_candidates(search, len(y_test))

    folds = GridSearchCV(pipeline, GRID, cv=StratifiedKFold(5, shuffle=True, random_state=0))
    folds.fit(X, y)
    report_cost(search, folds)

    report_winner(search, X, y)
    print(f"\nDone in {time.perf_counter() - started:.0f} s.")


def report_candidates(search, n_test):
    """Print the candidates, best bound first."""
    bounds = -search.cv_results_["mean_test_bound"]
    errors = search.cv_results_["mean_test_test_error"]
    print("   hidden  weight decay  certified bound  test error (unseen by the search)")
    for index in np.argsort(bounds, kind="stable"):
        hidden, decay = search.cv_results_["params"][index].values()
        error = errors[index]
        spread = np.sqrt(error * (1 - error) / n_test)
        chosen = "  <- chosen" if index == search.best_index_ else ""
        print(
            f"{hidden!s:>9}  {decay:12}  {bounds[index]:15.3f}  {error:.3f} +- {spread:.3f}{chosen}"
        )


def report_cost(search, folds):
    """Print what the fits of the search took, against 5-fold cross-validation."""
    seconds, other = (
        each.n_splits_ * each.cv_results_["mean_fit_time"].sum() for each in (search, folds)
    )
    error = search.cv_results_["mean_test_test_error"][folds.best_index_]
    n_candidates = len(search.cv_results_["params"])
    print(f"\nFits of {n_candidates} candidates: {seconds:.1f} s, by 5-fold: {other:.1f} s.")
    print(f"5-fold picks a network with test error {error:.3f}.")


def report_winner(search, X, y):
    """Print what the analysers find in the winner and draw it."""
    bound = GeneralisationBound(search, lipschitz="certified").fit(X, y)
    spectrum = HessianSpectrum(search, trace=True, random_state=0).fit(X, y)
    profiler = JacobianProfiler(search).fit(X, y)
    spread = profiler.norms_.std(ddof=1) / np.sqrt(len(X))

    print("\nThe winner")
    print(f"  bound      {bound.statement()}")
    print(
        f"  sharpness  {spectrum.sharpness_:.4g} {error_bar(spectrum.error_bounds_[0])}, "
        f"{spectrum.gauss_newton_share_:.0%} of it Gauss-Newton; "
        f"trace {spectrum.trace_:.4g} {error_bar(spectrum.trace_std_error_)}"
    )
    print(
        f"  Jacobian   largest norm at a row {profiler.max_norm_:.4g} "
        f"{error_bar(profiler.norm_error_)}, mean {profiler.mean_norm_:.3f} {error_bar(spread)} "
        f"over rows; largest slope between rows {profiler.slope_bound_:.4g}"
    )

    OUTPUT.mkdir(exist_ok=True)
    displays = {
        "bound": BoundDisplay.from_estimator(bound),
        "spectrum": SpectrumDisplay.from_estimator(spectrum),
        "jacobian": JacobianDisplay.from_estimator(profiler, X, y),
    }
    print("\nFigures")
    for name, display in displays.items():
        path = OUTPUT / f"{name}.png"
        display.plot().figure_.savefig(path, dpi=120)
        plt.close("all")
        print(f"  {path}")


def error_bar(value):
    """Write an error bar; exact numbers have none."""
    return f"+- {value:.1g}" if value > 0 else "(exact)"


if __name__ == "__main__":
    main()
