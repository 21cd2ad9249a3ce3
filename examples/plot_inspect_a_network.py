"""
====================
Inspecting a network
====================

How sharply is the loss of a trained network curved, how steep is the network at its training
rows, and how steep between them? Two networks of one architecture are
compared on handwritten digits: one trained on the right labels, one made to memorise labels of
which 15 % are wrong.
"""

# %%
# Two networks
# ============

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sharpfit import (
    HessianSpectrum,
    JacobianProfiler,
    NetworkClassifier,
    SpectrumDisplay,
)

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, train_size=500, random_state=0)

generator = np.random.default_rng(0)
noisy = np.where(generator.random(500) < 0.15, generator.integers(10, size=500), y_train)

labels = {"right labels": y_train, "noisy labels": noisy}
networks = {
    name: make_pipeline(
        StandardScaler(),
        NetworkClassifier(
            module__hidden=(128, 128), lr=0.05, batch_size=64, max_epochs=100, random_state=0
        ),
    ).fit(X_train, targets)
    for name, targets in labels.items()
}
for name, network in networks.items():
    training_error = 1 - network.score(X_train, labels[name])
    test_error = 1 - network.score(X_test, y_test)
    print(f"{name}: training error {training_error:.3f}, test error {test_error:.3f}")

# %%
# Curvature
# =========
#
# The largest eigenvalues of the Hessian of the training loss. Error bars are the residual norms of
# the eigenpairs: an eigenvalue lies within that distance.

spectra = {}
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", sharey=True)
for ax, (name, network) in zip(axes, networks.items(), strict=True):
    spectrum = HessianSpectrum(network, trace=True, random_state=0).fit(X_train, labels[name])
    spectra[name] = spectrum
    SpectrumDisplay.from_estimator(spectrum).plot(ax=ax)
    ax.set_title(name)
    print(
        f"{name}: sharpness {spectrum.sharpness_:.3g} +- {spectrum.error_bounds_[0]:.1g}, "
        f"trace {spectrum.trace_:.3g} +- {spectrum.trace_std_error_:.1g}, "
        f"{spectrum.gauss_newton_share_:.0%} Gauss-Newton, {spectrum.n_products_} products"
    )
plt.show()

# %%
# Which rows make it sharp?
# =========================
#
# The largest eigenvalue is exactly a sum over the rows. The rows whose wrong labels were memorised
# are few, and carry much of it.

shares = spectra["noisy labels"].attribution(by="sample")["share"]
wrong = noisy != y_train
print(f"{np.sum(wrong)} of 500 rows have wrong labels and carry {shares[wrong].sum():.0%}")

figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", sharey=True)
for ax, (name, spectrum) in zip(axes, spectra.items(), strict=True):
    spectrum.plot(ax, kind="attribution", by="sample")
    ax.set_title(name)
plt.show()

# %%
# Did the layers grow, or line up?
# ================================
#
# The Jacobian of the logits is a product over the layers. Its norm is at most the product of their
# norms, and reaches it only where their strongest directions line up. The network that memorised
# has the larger Jacobian because its layers are larger: they line up no better.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", sharey=True)
for ax, (name, spectrum) in zip(axes, spectra.items(), strict=True):
    display = spectrum.plot(ax, kind="attribution", by="alignment")
    ax.set_title(f"{name}: median alignment {display.table['alignment'].median():.2f}")
plt.show()

# %%
# Jacobian
# ========
#
# How fast do the class probabilities change with the input? The norms at the rows are exact. The
# largest slope between two rows, the dashed line, is a lower bound on the Lipschitz constant. Both
# networks are certain at their rows and turn around between them, so that the slope exceeds the
# norm at any row. The one that memorised wrong labels had to become steeper at the rows too.

figure, ax = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
for colour, (name, network) in zip(("C0", "C1"), networks.items(), strict=True):
    profiler = JacobianProfiler(network, output="probabilities").fit(X_train, labels[name])
    ax.ecdf(profiler.norms_, color=colour, label=f"{name}: norms at the rows")
    ax.axvline(profiler.slope_bound_, color=colour, linestyle="--", label=f"{name}: largest slope")
    print(
        f"{name}: norm at a row, largest {profiler.max_norm_:.3f}, mean {profiler.mean_norm_:.3f}; "
        f"largest slope between rows {profiler.slope_bound_:.3f}; around the rows the norm reaches "
        f"{profiler.local_variation_:.1f} times the largest at the rows"
    )
ax.set(
    xscale="log",
    xlim=(1e-5, 2),
    xlabel="Jacobian norm of the probabilities (1 / standard deviation of a pixel)",
    ylabel="share of the rows",
    title="Flat at the rows, steep between them",
)
ax.legend(fontsize="small", loc="upper left")
plt.show()

# %%
# What it says about new rows
# ===========================
#
# The distance from a row to the decision boundary is, to first order, its margin over the size of
# the margin's gradient. Test rows that the network gets wrong lie close to the boundary.

profiler = JacobianProfiler(networks["noisy labels"]).fit(X_train)
distance = profiler.transform(X_test)[:, -1]
wrong = networks["noisy labels"].predict(X_test) != y_test

figure, ax = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
bins = np.linspace(0, np.quantile(distance, 0.99), 40)
ax.hist(distance[~wrong], bins, density=True, alpha=0.6, label=f"{np.sum(~wrong)} right")
ax.hist(distance[wrong], bins, density=True, alpha=0.6, label=f"{np.sum(wrong)} wrong")
ax.set(
    xlabel="distance to the boundary, to first order (standard deviations of a pixel)",
    ylabel="density of the test rows",
    title="Wrong predictions lie close to the boundary",
)
ax.legend()
plt.show()
