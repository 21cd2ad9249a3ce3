"""
==============================================
Changing the Jacobian, and what sharpness does
==============================================

That sharpness and Jacobian rise together is a correlation: anything that moves both would show it.
The claim (MacDonald, Valmadre and Lucey, 2023) is that one bears on the other. So one is changed
here and the other is watched. Networks of one seed, on the same handwritten digits, differ in the
intervention only:

- :class:`~sharpfit.JacobianPenalty` lowers the Jacobian explicitly,
- a penalty on the spectral norms of the weights lowers what the Jacobian is made of,
- :class:`~sharpfit.SharpnessAwareMinimisation` lowers sharpness, to see the other direction.

:ref:`progressive_sharpening` has the full experiment, with several strengths, MNIST and intervals.
"""

# %%
# An intervention of one's own
# ============================
#
# The first and the third come with sharpfit. The second is a few lines: an
# :class:`~sharpfit.networks.interventions.Intervention` changes what is minimised.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits

from sharpfit import (
    JacobianPenalty,
    NetworkRegressor,
    SharpnessAwareMinimisation,
    SharpnessMonitor,
)
from sharpfit.networks.interventions import Intervention


class SpectralPenalty(Intervention):
    """Penalise the squared spectral norms of all weight matrices."""

    def __init__(self, strength=0.01):
        self.strength = strength

    def objective(self, module, objective, inputs, targets, loss):
        value, outputs = objective(inputs, targets, loss)
        weights = [p for p in module.parameters() if p.ndim == 2]
        norms = torch.stack([torch.linalg.matrix_norm(weight, 2) for weight in weights])
        return value + self.strength * norms.square().sum(), outputs


# %%
# The same descent under each of them
# ===================================
#
# The learning rate is far below the stability limit, which would hold sharpness otherwise. Measured
# are always the data loss and its sharpness, without the penalty.

X, digit = load_digits(return_X_y=True)
X = X - X.mean(axis=0)
X = (X / X.std())[:200].astype(np.float32)
Y = np.eye(10, dtype=np.float32)[digit[:200]]

interventions = {
    "none": None,
    "Jacobian penalty": JacobianPenalty(0.1, n_projections=None),
    "spectral penalty": SpectralPenalty(0.003),
    "sharpness-aware": SharpnessAwareMinimisation(0.2),
}
N_UPDATES = 450

records = {}
for name, intervention in interventions.items():
    network = NetworkRegressor(
        module__hidden=(48, 48),
        module__activation="tanh",
        lr=0.8,
        optimizer__momentum=0.0,
        batch_size=-1,
        max_epochs=N_UPDATES,
        intervention=intervention,
        random_state=0,
        callbacks=[("monitor", SharpnessMonitor(every=15))],
    ).partial_fit(X, Y)
    records[name] = SharpnessMonitor.records_of(network.history)


def column(name, quantity):
    """Return one value of all measurements under an intervention."""
    return np.array([record[quantity] for record in records[name]])


# %%
# Compared at equal loss
# ======================
#
# An intervention slows the descent, and sharpness is lower earlier in training anyway. A fair
# comparison is therefore at equal *loss*, read from right to left.

fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", sharex=True)
for ax, quantity in zip(axes, ("jacobian_mean", "sharpness"), strict=True):
    for name in records:
        ax.plot(column(name, "loss"), column(name, quantity), label=name)
axes[0].set(xscale="log", xlabel="data loss", ylabel="mean Jacobian norm")
axes[0].invert_xaxis()
axes[1].set(xlabel="data loss", ylabel="sharpness")
axes[1].legend(fontsize="small")
plt.show()


def at_loss(name, quantity, loss):
    """Return a value where the loss first comes down to a level."""
    return column(name, quantity)[np.argmax(column(name, "loss") <= loss)]


common = max(column(name, "loss")[-1] for name in records)
print(f"at a data loss of {common:.3g}, relative to no intervention:")
for name in interventions:
    ratios = [
        at_loss(name, quantity, common) / at_loss("none", quantity, common)
        for quantity in ("jacobian_mean", "sharpness")
    ]
    print(f"{name:>17}: Jacobian {ratios[0]:.2f}, sharpness {ratios[1]:.2f}")

# %%
# Here the penalty takes half of the Jacobian and leaves sharpness as it is, while the other two
# lower both, in very different proportions. So the tie is not one number to another: it runs
# through the factors of the layers. On these digits the first layer, which shares most of its
# factors with the Jacobian, holds about a third of the top curvature. On MNIST, where it holds
# most, sharpness goes down with the penalised Jacobian; see :ref:`progressive_sharpening`.
