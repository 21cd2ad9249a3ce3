"""
=====================================
Sharpening up to the stability limit
=====================================

The claim (Cohen et al., 2021; MacDonald, Valmadre and Lucey, 2023): while full-batch gradient
descent lowers the loss, the Jacobian of the network is forced up and the sharpness with it, until
it meets the stability limit of the optimiser, :math:`2 / \\eta` at learning rate :math:`\\eta`.
There it stays, although the loss goes on falling. Under Adam the same happens to the
*preconditioned* sharpness.

Here this is watched on handwritten digits. :ref:`progressive_sharpening` has the full experiments,
with more learning rates, MNIST, and intervals over seeds.
"""

# %%
# Descent at several learning rates
# =================================
#
# ``batch_size=-1`` makes every epoch one update on all rows. The targets are one-hot, the loss is
# the squared error: with cross-entropy the loss curvature vanishes in the end and sharpness with
# it, which is the subject of :ref:`sphx_glr_auto_examples_plot_sharpness_and_jacobian.py`.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits

from sharpfit import NetworkRegressor, SharpeningDisplay, SharpnessMonitor
from sharpfit.monitoring import diagnose

X, digit = load_digits(return_X_y=True)
X = X - X.mean(axis=0)
X = (X / X.std())[:500].astype(np.float32)
Y = np.eye(10, dtype=np.float32)[digit[:500]]


def trained(n_updates, **settings):
    """Return a network trained on all rows at once, watched all the while."""
    network = NetworkRegressor(
        module__hidden=(64, 64),
        module__activation="tanh",
        batch_size=-1,
        max_epochs=n_updates,
        random_state=0,
        callbacks=[("monitor", SharpnessMonitor(every=n_updates // 30))],
        **settings,
    )
    return network.partial_fit(X, Y)  # fit would say that training could go on


rates = (0.6, 1.2, 2.0)
networks = {lr: trained(round(800 / lr), lr=lr, optimizer__momentum=0.0) for lr in rates}

for lr, network in networks.items():
    print(f"lr {lr}:")
    for statement in diagnose(network).statements:
        print("   ", statement)

# %%
# Over *time*, learning rate times updates, the runs agree until each meets its own limit. The
# smallest learning rate does not meet it: it shows how far sharpness goes when nothing holds it.

fig, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained", sharex=True)
for colour, (lr, network) in zip(("C0", "C1", "C2"), networks.items(), strict=True):
    frame = SharpeningDisplay.from_estimator(network).frame()
    time = frame.index * lr
    axes[0].semilogy(time, frame["loss"], color=colour, label=f"learning rate {lr}")
    axes[1].plot(time, frame["sharpness"], color=colour)
    axes[1].axhline(2 / lr, color=colour, linestyle="--", linewidth=1)
    axes[2].plot(time, frame["jacobian_max"], color=colour)
axes[0].set(ylabel="loss", xlabel="learning rate x updates")
axes[1].set(ylabel="sharpness", xlabel="learning rate x updates", ylim=(0, 3.6))
axes[2].set(ylabel="largest Jacobian norm", xlabel="learning rate x updates")
axes[1].set_title("Sharpness is held at 2 / lr (dashed), the Jacobian is not", fontsize="medium")
axes[0].legend(fontsize="small")
plt.show()

# %%
# One run in full: :class:`~sharpfit.SharpeningDisplay` shades the measurements at the edge.

SharpeningDisplay.from_estimator(networks[1.2]).plot()
plt.show()

# %%
# Adam
# ====
#
# Adam divides the gradient by a running estimate of its size. What its stability limit concerns is
# the Hessian between the inverse roots of these divisors, and the limit is
# :math:`(2 + 2 \beta_1) / ((1 - \beta_1) \eta)` (Cohen et al., 2022). The monitor reads both off
# the optimiser. Sharpness itself is far below :math:`2 / \eta`, which means nothing here.

fig, ax = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
for beta in (0.0, 0.5, 0.9):
    network = trained(500, lr=0.003, optimizer=torch.optim.Adam, optimizer__betas=(beta, 0.999))
    frame = SharpeningDisplay.from_estimator(network).frame().iloc[1:]
    ratio = frame["trained_sharpness"] / frame["stability_limit"]
    ax.plot(frame.index, ratio, label=rf"$\beta_1$ = {beta}")
    print(
        f"beta1 {beta}: limit {frame['stability_limit'].iloc[-1]:.0f}, preconditioned sharpness "
        f"{ratio.iloc[-10:].mean():.2f} of it in the last ten measurements; sharpness "
        f"{frame['sharpness'].iloc[-1]:.2g}, where 2 / lr is {2 / 0.003:.0f}"
    )
ax.axhline(1, color="0.4", linestyle="--", linewidth=1)
ax.set(
    xlabel="update",
    ylabel="preconditioned sharpness / limit",
    title="Full-batch Adam trains at its own edge",
    ylim=(0, 1.4),
)
ax.legend()
plt.show()

# %%
# Held here: sharpness and Jacobian rose together, sharpness stopped at the limit of each optimiser,
# and the Jacobian went on. One seed and one data set show that it happens; how reliably is in
# :ref:`progressive_sharpening`.
