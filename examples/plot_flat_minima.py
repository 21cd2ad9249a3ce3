"""
===========================================
Weight decay, learning rate and flat minima
===========================================

Do networks in flat minima generalise better, or those with a small input-output Jacobian?
MacDonald, Valmadre and Lucey (2023) argue that flatness matters *because* it goes with a small
Jacobian, so that where the two part the Jacobian is the better guide. Weight decay and learning
rate move both. Here sixteen networks differ in nothing else; the full study, with more networks and
seeds, is in :doc:`/evidence`.
"""

# %%
# Sixteen networks
# ================
#
# 300 handwritten digits to train on, the others to measure the gap. ``compare_models`` trains every
# network for the same number of updates, measures it and says how many runs count.

from itertools import product

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sharpfit import ComparisonDisplay, NetworkClassifier, compare_models

digits, labels = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(
    (digits / 16).astype("float32"), labels, train_size=300, random_state=0
)

settings = list(product([0.02, 0.05, 0.1, 0.2], [0.0, 1e-3, 3e-3, 1e-2]))
networks = [
    NetworkClassifier(
        module__hidden=(64, 64),
        lr=lr,
        optimizer__weight_decay=weight_decay,
        batch_size=50,
        random_state=0,
    )
    for lr, weight_decay in settings
]
comparison = compare_models(
    networks,
    X,
    y,
    X_test,
    y_test,
    equal="updates",
    at=400,
    measures=[
        "sharpness",
        "adaptive_sharpness",
        "largest_jacobian",
        "mean_probability_jacobian",
        "negative_jacobian_normalised_margin",
        "squared_norm",
        "selection_criterion",
    ],
    hyperparameters={
        "learning rate": [lr for lr, _ in settings],
        "weight decay": [weight_decay for _, weight_decay in settings],
    },
)
print(comparison)

# %%
# Sharpness and Jacobian against the gap
# ======================================

figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained", sharey=True)
display = ComparisonDisplay(comparison)
for ax, measure in zip(axes, ["sharpness", "largest_jacobian"], strict=True):
    display.plot(measure, colour_by="weight decay", ax=ax)
plt.show()

# %%
# Sharpness and Jacobian order these networks differently: the flattest ones trained fast and
# without weight decay, and they have the largest Jacobians. Sixteen runs on one draw of the rows
# do not say which order is that of the gap.
#
# Within each hyper-parameter
# ===========================
#
# A measure that only tracks the learning rate says little. ``tau within`` is Kendall's tau over
# runs that differ in the hyper-parameter of the panel only.

display.plot_panels("largest_jacobian")
plt.show()

# %%
# All measures
# ============

display.plot_correlations()
plt.show()

# %%
# Does sharpness tell anything that the Jacobian does not?

table = comparison.correlations(given="largest_jacobian")
print(table[["measure", "value", "low", "high"]].to_string(index=False))
