"""
==================================
How far a network can be relied on
==================================

A Lipschitz certificate bounds how much the logits can change when an input moves, for **every**
input. It is a theorem about the trained weights, not an estimate from data. The simplest one, the
product of the layers' constants, is pessimistic: it assumes that all layers stretch the same
direction at once.

This example certifies a small network on two moons, compares the certificates with the steepest
slope that can be found, and draws around each row the ball in which its class provably stays.
"""

# %%
# Certificates
# ============
#
# ``method="semidefinite"`` treats the dense layers and their activations together. The result is
# proved by one matrix inequality, whose positive semi-definiteness is verified in spite of
# floating-point rounding.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import make_moons

from sharpfit import NetworkClassifier
from sharpfit.jacobian import certified_radii, jacobian_norms, lipschitz_certificate

X, y = make_moons(400, noise=0.1, random_state=0)
network = NetworkClassifier(
    module__hidden=(64, 64), optimizer__weight_decay=1e-3, lr=0.05, random_state=0
).fit(X, y)
module = network.module_.eval()
dtype = next(module.parameters()).dtype

product = lipschitz_certificate(module, (2,))
semidefinite = lipschitz_certificate(module, (2,), method="semidefinite")
for rule in semidefinite.rules:
    print(f"{rule.name:24s} {rule.kind:12s} {rule.constant:8.3f}  {rule.rule}")

# %%
# How tight they are
# ==================
#
# The largest Jacobian norm at any point is a lower bound on the true constant. Here it is taken
# over a fine grid. ``tightness`` is the ratio of the two; 1 would be perfect.

axis = torch.linspace(-2.5, 3.5, 200, dtype=dtype)
grid = torch.cartesian_prod(axis, axis)
found = float(np.max(np.asarray(jacobian_norms(module, grid).spectral)))
print(f"steepest slope found      {found:6.1f}")
for certificate in (product, semidefinite):
    tightness = certificate.tightness(found)
    print(f"{certificate.method:24s}  {float(certificate):6.1f}  tightness {tightness:.2f}")

# %%
# Certified radii
# ===============
#
# A row whose margin is ``m`` keeps its class within ``m`` over the constant of the margin. Around
# a given row more can be proved: most neurons cannot change sign in a small ball.
# :func:`~sharpfit.jacobian.certified_radii` uses that.

inputs = torch.as_tensor(X, dtype=dtype)
labels = torch.as_tensor(y)
radii = certified_radii(module, inputs, labels).numpy()
with torch.no_grad():
    logits = module(inputs).double().numpy()
margins = logits[np.arange(len(y)), y] - logits[np.arange(len(y)), 1 - y]
by_constant = np.maximum(margins, 0) / semidefinite.margin_constant
right = margins > 0
print(f"median certified radius   {np.median(radii[right]):.3f}")
print(f"from the constant alone   {np.median(by_constant[right]):.3f}")

# %%
# No input inside a ball is misclassified. Every eighth row is drawn with its ball; a ball that
# touches the decision boundary could not be larger.

fig, (left_ax, right_ax) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
with torch.no_grad():
    values = module(grid)
score = (values[:, 1] - values[:, 0]).reshape(200, 200).T.numpy()
left_ax.contourf(axis, axis, score > 0, levels=1, colors=["#f6e3d7", "#dbe7f3"])
left_ax.contour(axis, axis, score, levels=[0], colors="black", linewidths=1)
colours = np.where(y, "tab:blue", "tab:orange")
for row, colour, radius in zip(X[::8], colours[::8], radii[::8], strict=True):
    left_ax.add_patch(plt.Circle(row, radius, fill=False, edgecolor=colour, alpha=0.5))
left_ax.scatter(*X[::8].T, c=colours[::8], s=10)
left_ax.set(xlim=(-1.6, 2.6), ylim=(-1.3, 1.8), title="Balls in which the class is certified")
left_ax.set_aspect("equal")

bins = np.linspace(0, radii.max(), 40)
right_ax.hist(radii[right], bins, alpha=0.7, label="certified on the ball")
right_ax.hist(by_constant[right], bins, alpha=0.7, label="margin / certified constant")
right_ax.set(xlabel="certified radius", ylabel="rows", title="What the local proof adds")
right_ax.legend()
plt.show()
