"""
===========================================
Which rows does the network get wrong?
===========================================

Where a network is steep, or the decision boundary is near, its answer is fragile. Do the four
features of :class:`~sharpfit.JacobianProfiler` tell which held-out rows are misclassified, and do
they tell it better than the usual baseline, the largest softmax probability?
"""

# %%
# A detector
# ==========
#
# The network is trained on 500 digits. Rows that it has not seen are split in two: on one half a
# logistic regression learns, from the profiler's features, where the network errs; on the other
# half it is judged by the area under the ROC curve.
#
# The profiler is a step of the detector's pipeline. ``FrozenEstimator`` keeps the trained network
# from being cloned, and ``use_targets=False`` tells the profiler that the targets of this pipeline
# (right or wrong) are not the network's. The detector must not be fitted on the network's own
# training rows: it hardly errs there.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import RocCurveDisplay, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sharpfit import JacobianProfiler, NetworkClassifier

X, y = load_digits(return_X_y=True)


def split_and_train(seed, noise):
    """Train on 500 rows, with a share of the labels redrawn; halve the others."""
    X_train, X_rest, y_train, y_rest = train_test_split(X, y, train_size=500, random_state=seed)
    generator = np.random.default_rng(seed)
    redrawn = generator.random(500) < noise
    y_train = np.where(redrawn, generator.integers(10, size=500), y_train)
    network = make_pipeline(
        StandardScaler(),
        NetworkClassifier(module__hidden=(128, 128), lr=0.05, random_state=seed),
    ).fit(X_train, y_train)
    halves = train_test_split(X_rest, y_rest, train_size=0.5, random_state=seed)
    return network, *halves


def fit_detector(network, X_half, wrong):
    """Learn from the Jacobian where the network errs."""
    profiler = JacobianProfiler(FrozenEstimator(network), use_targets=False)
    return make_pipeline(profiler, StandardScaler(), LogisticRegression()).fit(X_half, wrong)


network, X_half, X_test, y_half, y_test = split_and_train(seed=0, noise=0.15)
wrong = network.predict(X_test) != y_test
detector = fit_detector(network, X_half, network.predict(X_half) != y_half)
print(f"test error {wrong.mean():.3f}")
for feature, weight in zip(detector[0].get_feature_names_out(), detector[-1].coef_[0], strict=True):
    print(f"{feature:<22} {weight:+.2f}")

# %%
# The coefficients are those of standardised features: an error is likelier where the normalised
# margin, the first-order distance to the decision boundary, is small.

figure, ax = plt.subplots(figsize=(5, 4.5), layout="constrained")
scores = {
    "Jacobian features": detector.predict_proba(X_test)[:, 1],
    "largest softmax probability": 1 - network.predict_proba(X_test).max(axis=1),
}
for name, score in scores.items():
    RocCurveDisplay.from_predictions(wrong, score, name=name, ax=ax)
ax.set_title("Detecting errors on held-out digits (one split)")
ax.set_xlabel("share of right answers flagged")
ax.set_ylabel("share of errors flagged")

# %%
# Over several splits
# ===================
#
# One split has a few dozen errors, so its curve says little. Four splits, with the right labels and
# with 15 % of the training labels redrawn:

rows = []
for noise in (0.0, 0.15):
    for seed in range(4):
        network, X_half, X_test, y_half, y_test = split_and_train(seed, noise)
        wrong = network.predict(X_test) != y_test
        detector = fit_detector(network, X_half, network.predict(X_half) != y_half)
        rows.append(
            {
                "labels": f"{100 * noise:.0f} % redrawn",
                "Jacobian features": roc_auc_score(wrong, detector.predict_proba(X_test)[:, 1]),
                "largest softmax probability": roc_auc_score(
                    wrong, -network.predict_proba(X_test).max(axis=1)
                ),
            }
        )
table = pd.DataFrame(rows)
table["difference"] = table["Jacobian features"] - table["largest softmax probability"]
summary = table.groupby("labels").agg(["mean", "sem"])
print(summary.round(3).to_string())

# %%

figure, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
settings = sorted(set(table["labels"]))
for place, labels in enumerate(settings):
    group = table[table["labels"] == labels]
    ax.plot(group["difference"], np.full(len(group), place), "o", color="C0", alpha=0.6)
    ax.errorbar(
        group["difference"].mean(), place, xerr=2 * group["difference"].sem(), fmt="D", color="C3"
    )
ax.axvline(0, color="black", linewidth=0.8)
ax.set_yticks(range(2), settings)
ax.set_ylim(-0.5, 1.5)
ax.set_ylabel("training labels")
ax.set_xlabel("area under the curve: Jacobian features minus softmax probability")
ax.set_title("Four splits each, with mean and two standard errors")

# %%
# The features predict the network's errors well, and about as well as the largest softmax
# probability does: with right labels that much simpler baseline is even slightly ahead, with
# redrawn ones the difference is within its error. What the Jacobian adds here is not a better
# detector but a reason: the flagged rows lie close to the decision boundary, in units of the input.

plt.show()
