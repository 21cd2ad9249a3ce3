"""
===============================
Choosing a network by its bound
===============================

A search usually pays for its choice in rows: a hold-out set leaves fewer to train on, and
cross-validation fits every candidate once per fold. A bound on the error is computed from the
rows that a network was trained on, so that each candidate is fitted **once, on all rows**, and
the winner comes with a guarantee.

Here one grid is searched on handwritten digits by the bound, by 5-fold cross-validation and by a
hold-out set of 20 % of the rows. What each search picks is compared by its test error and by the
time that its fits took.
"""

# %%
# Data
# ====
#
# 700 rows to train on, the remaining 1097 to know the truth. Rows are float64 and labels are
# strings; the pipeline takes them as they are.

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, ShuffleSplit, StratifiedKFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sharpfit import (
    GeneralisationBound,
    HalfFeatures,
    NetworkClassifier,
    ResubstitutionSplit,
    make_bound_scorer,
    selection_scorer,
)

X, digits = load_digits(return_X_y=True)
names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
y = np.array(names)[digits]
X_train, X_test, y_train, y_test = train_test_split(X, y, train_size=700, random_state=0)

# %%
# Pipeline and grid
# =================
#
# A bound needs a metric in which the classes lie apart, and pixels are none. So the pipeline
# begins with :class:`~sharpfit.HalfFeatures`, which trains a small network on a random half of
# the rows; its class probabilities are the metric. The network behind it is trained on *all*
# rows, and its hyper-parameters are what is searched.

network = NetworkClassifier(lr=0.05, batch_size=64, max_epochs=20, random_state=0)
pipeline = make_pipeline(HalfFeatures(make_pipeline(StandardScaler(), network)), network)
grid = {
    "networkclassifier__module__hidden": [(), (64, 64)],
    "networkclassifier__optimizer__weight_decay": [0, 1e-2, 1e-1],
}

# %%
# Three searches
# ==============
#
# :class:`~sharpfit.ResubstitutionSplit` gives the fit all rows and the scorer the same rows. Two
# columns ride along in that search: ``selection_scorer``, an estimate made for ranking, and, for
# our eyes only, the test error of every candidate. Twenty epochs are few, and candidates with
# strong weight decay do not converge: finding that out is what the searches are for.

warnings.filterwarnings("ignore", category=ConvergenceWarning)


def test_error(estimator, *_):
    """Return the share of the test rows that a fitted estimator gets wrong."""
    return 1 - estimator.score(X_test, y_test)


pipeline.fit(X_train, y_train)  # The first fit of a process loads parts of torch: not timed.

by_bound = GridSearchCV(
    pipeline,
    grid,
    scoring={
        "bound": make_bound_scorer(lipschitz="certified"),
        "selection": selection_scorer,
        "test_error": test_error,
    },
    refit="bound",
    cv=ResubstitutionSplit(),
).fit(X_train, y_train)
by_folds = GridSearchCV(pipeline, grid, cv=StratifiedKFold(5, shuffle=True, random_state=0))
by_folds.fit(X_train, y_train)
by_hold_out = GridSearchCV(pipeline, grid, cv=ShuffleSplit(1, test_size=0.2, random_state=0))
by_hold_out.fit(X_train, y_train)

# %%
# What each search picked
# =======================

candidates = by_bound.cv_results_["params"]
bounds = -by_bound.cv_results_["mean_test_bound"]
selection = -by_bound.cv_results_["mean_test_selection"]
folds = 1 - by_folds.cv_results_["mean_test_score"]
errors = by_bound.cv_results_["mean_test_test_error"]
standard_errors = np.sqrt(errors * (1 - errors) / len(y_test))

print("  hidden  decay  bound  selection  5-fold error  test error")
for index, candidate in enumerate(candidates):
    hidden, decay = candidate.values()
    print(
        f"{hidden!s:>8}  {decay:5}  {bounds[index]:5.3f}  {selection[index]:9.3f}"
        f"  {folds[index]:12.3f}  {errors[index]:.3f} +- {standard_errors[index]:.3f}"
    )


def fit_seconds(search):
    """Return the time that the fits of all candidates took, the refit of the winner excluded."""
    return search.n_splits_ * search.cv_results_["mean_fit_time"].sum()


picks = {
    "bound": (by_bound.best_index_, fit_seconds(by_bound)),
    "selection score": (int(np.argmin(selection)), fit_seconds(by_bound)),
    "20 % hold-out": (by_hold_out.best_index_, fit_seconds(by_hold_out)),
    "5-fold": (by_folds.best_index_, fit_seconds(by_folds)),
}
print()
for name, (index, seconds) in picks.items():
    print(f"{name:>15}: test error {errors[index]:.3f}, all fits {seconds:4.1f} s")

# %%
# Error bars are two binomial standard errors over the test rows. The picks do not differ by more
# than that; the costs do, by one fit per candidate against five.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained", sharey=True)
chosen = [index for index, _ in picks.values()]
colours = ["C0", "C2", "0.6", "0.6"]
left.barh(
    list(picks),
    100 * errors[chosen],
    xerr=200 * standard_errors[chosen],
    color=colours,
    capsize=3,
)
left.axvline(100 * errors.min(), color="black", linestyle=":", label="best of the grid")
left.set(xlabel="test error of the pick (%)", title="What was picked")
left.legend(loc="lower left", framealpha=1, fontsize="small")
left.invert_yaxis()
right.barh(list(picks), [seconds for _, seconds in picks.values()], color=colours)
right.set(xlabel="time of all fits (s)", title=f"What {len(candidates)} candidates cost")
plt.show()

# %%
# The guarantee
# =============
#
# The bound holds for all networks at once, so it holds for the winner of this search, whatever
# the grid. Its terms are stacked over the radius within which rows are matched.

bound = GeneralisationBound(by_bound, lipschitz="certified").fit(X_train, y_train)
assert bound.bound_ == -by_bound.best_score_
print(f"certified: {bound.certified_}, with confidence {bound.confidence:.0%}")
print(f"bound {bound.bound_:.3f}, test error {errors[by_bound.best_index_]:.3f}")
for name, assumption in bound.assumptions_.items():
    print(f"  {name}: {assumption.status}")

bound.plot()
plt.show()

# %%
# What it costs
# =============
#
# Features from half of the rows are not as good as features from all of them. A pipeline without
# the split makes fewer errors, and in its metric, the pixels, the bound is above one: it is
# **vacuous**. It still is a number by which a search can rank, but for ranking such pipelines
# ``selection_scorer`` is the better tool, and where a test set can be spared, the binomial limit
# on its errors is the better guarantee.

plain = make_pipeline(StandardScaler(), network).fit(X_train, y_train)
bound = GeneralisationBound(plain, lipschitz="certified").fit(X_train, y_train)
print(f"without HalfFeatures: test error {test_error(plain):.3f}, bound {bound.bound_:.2f}")
