"""
=====================================
Batch size: equal updates or epochs?
=====================================

Large batches are said to end in sharp minima that generalise worse. Trained for equally many
*epochs* a large batch takes fewer updates, so that two things change at once. Here the comparison
is made both ways, on three draws of the rows; :doc:`/evidence` has the study with convolutional
networks.
"""

# %%
# Networks by batch size
# ======================

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

from sharpfit import NetworkClassifier, compare_models

# After equally many epochs the largest batches have not converged, which is the point here.
warnings.filterwarnings("ignore", category=ConvergenceWarning)

digits, labels = load_digits(return_X_y=True)
digits = (digits / 16).astype("float32")
BATCH_SIZES = [10, 30, 100, 300]
N_EPOCHS = 40
MEASURES = ["sharpness", "largest_jacobian"]


def comparison(seed, equal):
    """Compare the batch sizes on one draw of 300 training rows."""
    X, X_test, y, y_test = train_test_split(digits, labels, train_size=300, random_state=seed)
    networks = [
        NetworkClassifier(
            module__hidden=(64, 64),
            lr=0.05,
            batch_size=size,
            max_epochs=N_EPOCHS,
            random_state=seed,
        )
        for size in BATCH_SIZES
    ]
    terms = {"equal": "updates", "at": N_EPOCHS * 10} if equal == "updates" else {}
    return compare_models(networks, X, y, X_test, y_test, gap="loss", measures=MEASURES, **terms)


results = {equal: [comparison(seed, equal) for seed in range(3)] for equal in ("epochs", "updates")}
for equal, comparisons in results.items():
    print(f"equal {equal}: {comparisons[0]}")

# %%
# Sharpness, Jacobian and gap
# ===========================
#
# Lines are means over the draws, points single runs.

figure, axes = plt.subplots(2, 4, figsize=(11, 5), layout="constrained", sharex=True)
for row, (equal, comparisons) in zip(axes, results.items(), strict=True):
    for ax, name in zip(row, [*MEASURES, "training", "gap"], strict=True):
        values = np.array([comparison.frame()[name] for comparison in comparisons])
        ax.plot(BATCH_SIZES, values.T, "o", color="C0", alpha=0.5, markersize=4)
        ax.plot(BATCH_SIZES, values.mean(axis=0), color="C0")
        ax.set(xscale="log", xlabel="batch size")
        label = {"training": "training loss", "gap": "test minus training loss"}
        ax.set_title(label.get(name, name.replace("_", " ")), fontsize="medium")
    row[0].set_ylabel(f"equal {equal}")
plt.show()

# %%
# After equally many epochs the large batches have taken few updates: their training loss is high,
# and Jacobian and gap are small because little has been learned. After equally many updates the
# batch size makes far less of a difference to either.
