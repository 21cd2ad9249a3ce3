"""
========================================
Regularisers, sharpness and the Jacobian
========================================

Six regularisers and an explicit penalty on the Jacobian, each in rising strength. Do they make
minima flatter? Do they make the Jacobian smaller? Which of the two does the generalisation gap
follow? A penalty on the Jacobian is an intervention: it shows what a correlation over networks
cannot. The full study, with more networks and seeds, is in :doc:`/evidence`.
"""

# %%
# Augmentation as an intervention
# ===============================
#
# Label smoothing, weight decay and dropout are parameters of the network. Sharpness-aware
# minimisation, mixup and the Jacobian penalty are interventions of this library. Shifting images
# by a pixel is one of our own: it changes what the loss is computed on.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sharpfit import NetworkClassifier, compare_models
from sharpfit.networks.interventions import (
    Intervention,
    JacobianPenalty,
    Mixup,
    SharpnessAwareMinimisation,
)


class PixelShift(Intervention):
    """Train on images moved by up to a pixel, with a given probability."""

    def __init__(self, probability=0.5):
        self.probability = probability

    def objective(self, module, objective, inputs, targets, loss):
        images = inputs.reshape(-1, 8, 8)
        if torch.rand(()) < self.probability:
            down, right = (torch.randint(3, (2,)) - 1).tolist()
            images = images.roll((down, right), dims=(1, 2))
        return objective(images.reshape(inputs.shape), targets, loss)


WAYS = {
    "label smoothing": [{"criterion__label_smoothing": s} for s in (0.05, 0.1, 0.3)],
    "weight decay": [{"optimizer__weight_decay": s} for s in (1e-3, 3e-3, 1e-2)],
    "sharpness-aware": [{"intervention": SharpnessAwareMinimisation(s)} for s in (0.05, 0.1, 0.2)],
    "mixup": [{"intervention": Mixup(s)} for s in (0.1, 0.3, 1.0)],
    "pixel shifts": [{"intervention": PixelShift(s)} for s in (0.2, 0.5, 0.8)],
    "dropout": [{"module__dropout": s} for s in (0.1, 0.3, 0.5)],
    "Jacobian penalty": [{"intervention": JacobianPenalty(s)} for s in (1e-4, 1e-3, 1e-2)],
}

# %%
# Networks trained for equally many updates
# =========================================

digits, labels = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(
    (digits / 16).astype("float32"), labels, train_size=300, random_state=0
)
base = {"module__hidden": (64, 64), "lr": 0.05, "batch_size": 50, "random_state": 0}
networks = {"none": NetworkClassifier(**base)}
for way, strengths in WAYS.items():
    for i, changes in enumerate(strengths):
        networks[f"{way}, {['weak', 'medium', 'strong'][i]}"] = NetworkClassifier(**base, **changes)
comparison = compare_models(
    networks,
    X,
    y,
    X_test,
    y_test,
    equal="updates",
    at=400,
    measures=["sharpness", "largest_jacobian", "mean_probability_jacobian"],
)
print(comparison)
table = comparison.frame().set_index("run")
print(table[["training", "test", "sharpness", "largest_jacobian"]].to_string(float_format="%.3g"))

# %%
# From no regularisation to the strongest
# =======================================
#
# Each line starts at the network without regulariser, the star, and goes to the strongest. One seed
# is one draw of rows and weights: errors may be off by a point.

figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained", sharey=True)
for ax, measure in zip(axes, ["sharpness", "largest_jacobian"], strict=True):
    for colour, way in enumerate(WAYS):
        rows = ["none", *(name for name in networks if name.startswith(f"{way},"))]
        path = table.loc[rows, [measure, "gap"]].to_numpy()
        ax.plot(*path.T, "o-", color=f"C{colour}", markersize=4, label=way)
    ax.plot(*table.loc["none", [measure, "gap"]], "k*", markersize=12)
    ax.set(xscale="log", xlabel=measure.replace("_", " "))
    ax.xaxis.set_minor_formatter("")
axes[0].set_ylabel("test minus training error")
axes[1].legend(fontsize="small")
plt.show()

# %%
# The two part. Label smoothing, weight decay, mixup and the Jacobian penalty make the Jacobian
# smaller and the minimum *sharper*: with smaller logits the network is less certain of its rows,
# and the curvature of cross-entropy does not vanish there. Sharpness-aware minimisation and
# dropout make it flatter and leave the Jacobian much as it was. Most of them make the gap
# smaller.
#
# Over all of them:

correlations = comparison.correlations()
print(correlations[["measure", "value", "low", "high"]].to_string(index=False))
print(
    "sharpness with the largest Jacobian:",
    f"{np.corrcoef(np.log(table['sharpness']), np.log(table['largest_jacobian']))[0, 1]:.2f}",
    "(correlation of logarithms)",
)
