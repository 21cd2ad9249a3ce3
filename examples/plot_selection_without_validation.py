"""
===========================================
Selecting a network without validation rows
===========================================

A validation set costs rows, cross-validation costs fits. ``selection_scorer`` needs neither: it
ranks networks that were fitted on **all** rows by those same rows, one fit each. It is an
*estimate* made for ranking and certifies nothing; how well it picks is an empirical matter. Here
it is put beside 5-fold cross-validation and a hold-out set of 20 % of the rows, on several draws of
the data, so that the differences come with intervals.

:class:`~sharpfit.TrainingRowsStopping` applies the same criterion to the epochs of one training.
"""

# %%
# Data
# ====
#
# 300 handwritten digits to train on, one label in ten of them redrawn at random, so that candidates
# which memorise are not the best ones. The other rows, with their true labels, tell the truth.

import time
import warnings

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import kendalltau, t
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, KFold, ShuffleSplit, train_test_split
from skorch.callbacks import Callback

from sharpfit import (
    NetworkClassifier,
    ResubstitutionSplit,
    TrainingRowsStopping,
    selection_scorer,
)

# Some candidates are stopped early on purpose; the search is there to find out which.
warnings.filterwarnings("ignore", category=ConvergenceWarning)

digits, truth = load_digits(return_X_y=True)
digits = digits / 16


def draw(seed):
    """Return noisy training rows and clean test rows."""
    X, X_test, y, y_test = train_test_split(digits, truth, train_size=300, random_state=seed)
    rng = np.random.default_rng(seed)
    return X, np.where(rng.random(300) < 0.1, rng.integers(10, size=300), y), X_test, y_test


# %%
# One grid, three ways to search it
# =================================

GRID = {
    "module__hidden": [(16,), (64, 64)],
    "optimizer__weight_decay": [0, 1e-2],
    "max_epochs": [10, 25],
}
WAYS = {
    "selection_scorer": {"scoring": selection_scorer, "cv": ResubstitutionSplit()},
    "5-fold": {"scoring": "accuracy", "cv": KFold(5, shuffle=True, random_state=0)},
    "20 % hold-out": {
        "scoring": "accuracy",
        "cv": ShuffleSplit(1, test_size=0.2, random_state=0),
    },
}
SEEDS = range(3)


def all_test_errors(X, y, X_test, y_test):
    """Test error of every candidate, fitted on all rows."""

    def error(network, *_):
        return 1 - network.score(X_test, y_test)

    search = GridSearchCV(network(), GRID, scoring=error, cv=ResubstitutionSplit(), refit=False)
    return search.fit(X, y).cv_results_["mean_test_score"]


def network():
    """Return the network whose hyper-parameters are searched."""
    return NetworkClassifier(lr=0.05, optimizer__momentum=0.9, batch_size=32, random_state=0)


errors = {name: [] for name in [*WAYS, "best in the grid"]}
taus = {name: [] for name in WAYS}
seconds = {name: [] for name in WAYS}
for seed in SEEDS:
    X, y, X_test, y_test = draw(seed)
    candidates = all_test_errors(X, y, X_test, y_test)
    errors["best in the grid"].append(candidates.min())
    for name, settings in WAYS.items():
        start = time.perf_counter()
        search = GridSearchCV(network(), GRID, refit=False, **settings).fit(X, y)
        seconds[name].append(time.perf_counter() - start)
        scores = search.cv_results_["mean_test_score"]
        errors[name].append(candidates[search.best_index_])
        taus[name].append(kendalltau(-scores, candidates).statistic)
        if seed == 0 and name == "selection_scorer":
            first = -scores, candidates


def interval(values):
    """Return mean and half width of a 90 % t interval over the draws."""
    values = np.asarray(values)
    half = t.ppf(0.95, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return values.mean(), half


print(f"{'':18}{'test error of the pick':>26}{'Kendall tau':>18}{'seconds':>12}")
for name in WAYS:
    (error, error_half), (tau, tau_half) = interval(errors[name]), interval(taus[name])
    print(
        f"{name:18}{error:16.3f} ± {error_half:.3f}{tau:14.2f} ± {tau_half:.2f}"
        f"{np.mean(seconds[name]):10.1f}"
    )
difference, half = interval(np.subtract(errors["selection_scorer"], errors["5-fold"]))
print(f"\nselection_scorer minus 5-fold: {difference:+.3f} ± {half:.3f} (90 %)")

# %%
# The criterion is not an error rate, but it orders the candidates much as their test errors do.
# Bars are 90 % intervals over three draws of the rows; three are few, and an interval that
# overlaps another one decides nothing.

fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
left.plot(*first, "o", color="C0")
left.set(
    xlabel="selection criterion, from training rows",
    ylabel="test error",
    title=f"{len(candidates)} candidates, first draw",
)
for position, values in enumerate(errors.values()):
    mean, half = interval(values)
    right.errorbar(mean, position, xerr=half, fmt="o", capsize=4, color=f"C{position}")
right.set_yticks(range(len(errors)), errors)
right.invert_yaxis()
right.set(xlabel="test error of the pick", title=f"{len(SEEDS)} draws, mean and 90 % interval")
plt.show()

# %%
# Which epoch to keep
# ===================
#
# A large network is trained for long on the same noisy rows. ``TrainingRowsStopping`` judges every
# epoch by the rows it trains on and goes back to the best one when training ends.


class TestErrors(Callback):
    """Record the test error of every epoch, for the figure only."""

    def on_train_begin(self, net, **kwargs):
        self.errors_ = []

    def on_epoch_end(self, net, **kwargs):
        self.errors_.append(1 - net.score(X_test, y_test))


X, y, X_test, y_test = draw(0)
large = NetworkClassifier(
    module__hidden=(128, 128),
    lr=0.05,
    optimizer__momentum=0.9,
    batch_size=32,
    max_epochs=60,
    random_state=0,
    callbacks=[("stopping", TrainingRowsStopping()), ("test", TestErrors())],
).fit(X, y)
fitted = dict(large.callbacks_)
kept = fitted["stopping"].best_epoch_
by_epoch = fitted["test"].errors_
print(f"epoch {kept} kept: test error {by_epoch[kept - 1]:.3f}")
print(f"last epoch:    test error {by_epoch[-1]:.3f}")
print(f"best epoch:    test error {min(by_epoch):.3f} (nobody knows it)")

fig, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
epochs = np.arange(1, len(by_epoch) + 1)
ax.plot(epochs, by_epoch, label="test error")
ax.plot(epochs, large.history[:, "selection_criterion"], label="selection criterion")
ax.axvline(kept, color="grey", linestyle=":", label=f"kept: epoch {kept}")
ax.set(xlabel="epoch", ylabel="share of rows, or probability", title="Judged by training rows")
ax.legend()
plt.show()
