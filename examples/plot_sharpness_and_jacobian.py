"""
=================================
Where sharpness and Jacobian part
=================================

The claim (MacDonald, Valmadre and Lucey, 2023): sharpness and the Jacobian of the network are tied
by the curvature of the loss and by the other factors of a layer's derivative, so that they move
together *unless* one of those factors moves. Two cases are shown on handwritten digits.
With cross-entropy the loss curvature vanishes as the network becomes certain; label smoothing keeps
it up. And between the curvature of the first layer and the Jacobian lies the first layer's weight.

:ref:`progressive_sharpening` has the full experiments, with MNIST and intervals over seeds.
"""

# %%
# Label smoothing
# ===============
#
# Full-batch descent far below the stability limit, at three levels of smoothing. The monitor
# records the factors of every dense layer. Their product is, up to the number of outputs, the trace
# of the layer's block of the Gauss-Newton matrix.

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from torch import nn

from sharpfit import NetworkClassifier, SharpnessMonitor
from sharpfit.curvature import layer_terms
from sharpfit.networks import MultilayerPerceptron

X, y = load_digits(return_X_y=True)
X = X - X.mean(axis=0)
X, y = (X / X.std())[:300].astype(np.float32), y[:300]


def watched(n_updates, **settings):
    """Return the measurements of a full-batch descent."""
    network = NetworkClassifier(
        module__activation="tanh",
        optimizer__momentum=0.0,
        batch_size=-1,
        max_epochs=n_updates,
        random_state=0,
        callbacks=[("monitor", SharpnessMonitor(every=n_updates // 30))],
        **settings,
    ).partial_fit(X, y)
    return SharpnessMonitor.records_of(network.history)


def column(records, name):
    """Return one value of all measurements, of the first layer if it belongs to layers."""
    return np.array([{**record, **record["layers"]["0"]}[name] for record in records])


levels = (0.0, 0.05, 0.5)
runs = {
    level: watched(600, lr=0.2, module__hidden=(64, 64), criterion__label_smoothing=level)
    for level in levels
}

fig, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained", sharex=True)
for level, records in runs.items():
    updates = column(records, "update")
    for ax, name in zip(axes, ("sharpness", "jacobian_mean", "loss_curvature"), strict=True):
        ax.plot(updates, column(records, name), label=f"smoothing {level}")
for ax, name in zip(axes, ("sharpness", "mean Jacobian norm", "loss curvature"), strict=True):
    ax.set(yscale="log", xlabel="update", ylabel=name)
axes[0].legend(fontsize="small")
fig.suptitle("The Jacobian grows; whether sharpness does depends on the loss curvature")
plt.show()

# %%
# In the last half of the training, sharpness goes against the Jacobian without smoothing and with
# it at much smoothing. The product of the factors follows sharpness either way.

factors = ("loss_curvature", "backward_energy", "feature_energy", "alignment")
print(f"{'smoothing':>10} {'rank correlation of sharpness with':>36}   last half multiplied by")
print(f"{'':10} {'Jacobian':>18} {'factors':>17}   sharpness factors  loss curvature  backward")
for level, records in runs.items():
    late = records[len(records) // 2 :]
    product = np.prod([column(late, name) for name in factors], axis=0)
    sharpness = column(late, "sharpness")
    growth = [
        values[-1] / values[0]
        for values in (sharpness, product, *(column(late, name) for name in factors[:2]))
    ]
    print(
        f"{level:10} {spearmanr(sharpness, column(late, 'jacobian_mean')).statistic:18.2f} "
        f"{spearmanr(sharpness, product).statistic:17.2f}   {growth[0]:9.2f} {growth[1]:7.2f} "
        f"{growth[2]:15.2f} {growth[3]:9.2f}"
    )

# %%
# Width and the first layer's weight
# ==================================
#
# The derivative of the outputs in the first layer's weight holds every factor of the input
# Jacobian *except* that weight. So the ratio of both should follow the weight. Networks of three
# widths, with first layers scaled by 1/2, 1 and 2 at the start, are trained to the same loss.

inputs, targets = torch.tensor(X), torch.tensor(np.eye(10, dtype=np.float32)[y])
criterion = nn.MSELoss()
points = []
for width in (16, 64, 256):
    for scale in (0.5, 1.0, 2.0):
        torch.manual_seed(0)
        module = MultilayerPerceptron(64, 10, hidden=(width, width), activation="tanh")
        with torch.no_grad():
            module[0].weight *= scale
        optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
        loss = criterion(module(inputs), targets)
        while loss > 0.03:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss = criterion(module(inputs), targets)
        (terms,) = layer_terms(
            module, criterion, inputs, targets, parameters=["0.weight", "0.bias"]
        )
        weight = module[0].weight.detach()
        gain, norm = weight.square().sum() / width, torch.linalg.matrix_norm(weight, 2) ** 2
        points.append((width, terms.mean_jacobian / terms.trace, float(gain), float(norm)))
        assert terms.mean_jacobian <= terms.mean_bound  # a theorem

fig, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained", sharey=True)
labels = ("mean square gain of the first weight", "squared spectral norm of the first weight")
widths, ratio, *candidates = np.transpose(points)
for ax, label, values in zip(axes, labels, candidates, strict=True):
    for width in np.unique(widths):
        ax.loglog(values[widths == width], ratio[widths == width], "o", label=f"width {width:.0f}")
    ends = np.array([values.min(), values.max()])
    ax.loglog(ends, ends, color="0.5", linewidth=1, label="equal")
    ax.set_xlabel(label)
    spread = np.std(np.log(ratio / values))
    ax.set_title(f"left over: {spread:.2f} (of {np.std(np.log(ratio)):.2f})", fontsize="medium")
axes[0].set_ylabel("Jacobian energy / first-layer trace")
axes[0].legend(fontsize="small")
plt.show()

# %%
# The ratio is the first weight's: its mean square gain, the squared Frobenius norm over the width,
# accounts for most of how it varies. The spectral norm, which is what the inequality needs, is an
# upper bound and grows with the width, where the ratio does not.
