"""
==================================
Progressive sharpening by formulas
==================================

In a deep linear network with one neuron a layer, :math:`f(x) = w_L \\cdots w_1 x = p\\, x`, with
the mean squared error, everything the theory talks about has a formula. So the claims can be
checked against them, and so can the library. The data are real: zeros and ones of the
handwritten digits, along their first principal component.
"""

# %%
# Formulas
# ========
#
# Let :math:`s` be the mean of :math:`x^2` and :math:`c` that of :math:`x y`. The Jacobian is
# :math:`p`; the Gauss-Newton matrix is :math:`2 s p^2 u u^\top` with :math:`u_k = 1 / w_k`. The
# curvature of layer :math:`k`, :math:`2 s p^2 / w_k^2`, is thus the squared Jacobian *without* the
# weight of that layer. Every minimiser has the Jacobian :math:`p = c / s`, to which the loss forces
# it. Their sharpness differs, the balanced one, with all :math:`|w_k|` equal, being the flattest.
# Gradient flow keeps all :math:`w_k^2 - w_j^2`, and so finds another one from unbalanced weights.

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.optimize import brentq
from sklearn.datasets import load_digits
from torch import nn

from sharpfit import SharpnessMonitor
from sharpfit.monitoring import diagnose

pixels, labels = load_digits(return_X_y=True)
pixels, signs = pixels[labels < 2], np.where(labels[labels < 2] == 1, 1.0, -1.0)
x = np.linalg.svd(pixels - pixels.mean(axis=0), full_matrices=False)[0][:, 0]
x *= np.sign(x @ signs) / (2 * x.std())
s, c = np.mean(x**2), np.mean(x * signs)

start = np.array([0.3, 1.5, 0.7, 1.6])
depth, target = len(start), c / s


def curvature(weights):
    """Return the largest eigenvalue of the Gauss-Newton matrix."""
    return 2 * s * np.prod(weights) ** 2 * np.sum(weights**-2.0)


shift = brentq(lambda t: np.prod(start**2 + t) - target**2, 0, target**2 + 1)
flow = curvature(np.sqrt(start**2 + shift))
flattest = 2 * s * depth * target ** (2 - 2 / depth)
print(f"Jacobian of every minimiser {target:.3f}")
print(f"sharpness of the flattest minimiser {flattest:.3f}, of gradient flow's {flow:.3f}")

# %%
# Descent
# =======
#
# Three learning rates, with :math:`2 / \eta` above the sharpness of the flow's minimiser, between
# the two, and below that of the flattest one. The loop is written by hand; the monitor is a plain
# object whose ``update`` measures.

inputs, targets = torch.tensor(x)[:, None], torch.tensor(signs)[:, None]
criterion = nn.MSELoss()


def descended(limit, n_updates=150):
    """Return the measurements of a descent with this stability limit, and the weights."""
    module = nn.Sequential(*(nn.Linear(1, 1, bias=False, dtype=torch.float64) for _ in start))
    with torch.no_grad():
        for layer, weight in zip(module, start, strict=True):
            layer.weight.fill_(weight)
    optimizer = torch.optim.SGD(module.parameters(), lr=2 / limit)
    monitor = SharpnessMonitor(tol=1e-6, n_jacobian_rows=len(x))
    path = []
    for _ in range(n_updates + 1):
        monitor.update(module, criterion, (inputs, targets), optimizer)
        path.append([layer.weight.item() for layer in module])
        optimizer.zero_grad()
        criterion(module(inputs), targets).backward()
        optimizer.step()
    return monitor.records_, np.array(path)


limits = {
    "2 / lr above the flow's minimiser": 2 * flow,
    "between the minimisers": (flow + flattest) / 2,
    "below the flattest minimiser": 0.9 * flattest,
}
runs = {name: descended(limit) for name, limit in limits.items()}

fig, axes = plt.subplots(1, 3, figsize=(10, 3.3), layout="constrained", sharey=True)
for ax, (name, (records, path)) in zip(axes, runs.items(), strict=True):
    updates = [record["update"] for record in records]
    ax.plot(updates, [record["sharpness"] for record in records], label="sharpness")
    ax.plot(updates, [curvature(w) for w in path], ":", color="C1", label="formula (Gauss-Newton)")
    ax.axhline(limits[name], color="C3", linestyle="--", label="2 / lr")
    ax.axhline(flattest, color="0.5", linewidth=1, label="flattest minimiser")
    ax.axhline(flow, color="0.5", linewidth=1, linestyle="-.", label="flow's minimiser")
    ax.set(xlabel="update", ylim=(0, 2.2 * flow))
    ax.set_title(name, fontsize="medium")
axes[0].set_ylabel("sharpness")
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
plt.show()

# %%
# With :math:`2 / \eta` between the two, descent passes the flow's minimiser by and ends at one *at*
# the limit, with the same Jacobian. Below the flattest one there is nowhere to stay.

for name, (records, _) in runs.items():
    last = records[-1]
    print(
        f"{name}: sharpness {last['sharpness']:.4f}, 2 / lr {limits[name]:.4f}, "
        f"Jacobian {last['jacobian_max']:.4f}"
    )
print(diagnose(runs["between the minimisers"][0]).statements[0])

# %%
# The missing factor, exactly
# ===========================
#
# Squared Jacobian over the curvature of the first layer is :math:`w_1^2 / (2 s)`, at every
# measurement.

records, path = runs["between the minimisers"]
factors = [record["layers"]["0"] for record in records]
curvatures = [
    record["loss_curvature"] * f["feature_energy"] * f["backward_energy"] * f["alignment"]
    for record, f in zip(records, factors, strict=True)
]
ratio = np.array([record["jacobian_max"] ** 2 for record in records]) / curvatures
print(f"largest relative deviation: {np.max(np.abs(ratio / (path[:, 0] ** 2 / (2 * s)) - 1)):.1g}")
