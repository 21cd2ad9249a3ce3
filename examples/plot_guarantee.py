"""
==============================================
What can be guaranteed without held-out rows
==============================================

A bound on the error that needs no held-out rows is most useful where rows are few. This example
computes several on handwritten digits, at the same confidence of 95 %, and puts them beside the
one that needs held-out rows: the binomial limit. Where that one wins, the figure shows it.
"""

# %%
# A certified bound
# =================
#
# Between raw pixels, rows of one class are nearly as far apart as rows of different classes: no
# network gets a useful bound from such distances. ``floor`` says so before any training.
# Distances between the softmax outputs of a network are another matter, but that network must not
# have seen the rows to which the distances are applied. ``HalfFeatures`` trains it on a random half
# of the rows; the head behind it is trained on all rows.

import warnings

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sharpfit import (
    GeneralisationBound,
    HalfFeatures,
    NetworkClassifier,
    ResubstitutionSplit,
    make_bound_scorer,
)
from sharpfit.measures.initialisation import initial_module
from sharpfit.measures.perturbation import outputs_at, parameter_vector
from sharpfit.theory import (
    held_out_bound,
    logit_margins,
    pac_bayes_bound,
    spectral_margin_bound,
)

warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed number of epochs

X, y = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(X))
X, y = X[order] / 4, y[order]
X_train, y_train, X_test, y_test = X[:1400], y[:1400], X[1400:], y[1400:]


def network(**settings):
    defaults = {"module__hidden": (128, 128), "max_epochs": 80, "random_state": 0}
    return NetworkClassifier(**{**defaults, **settings})


head = NetworkClassifier(module__hidden=(), lr=0.3, max_epochs=40, random_state=0)
search = GridSearchCV(
    make_pipeline(HalfFeatures(network()), head),
    {"networkclassifier__optimizer__weight_decay": [1e-3, 1e-2]},
    scoring=make_bound_scorer(lipschitz="certified"),
    cv=ResubstitutionSplit(),
).fit(X_train, y_train)
certified = GeneralisationBound(search, lipschitz="certified").fit(X_train, y_train)
print(certified.statement())
for name, assumption in certified.assumptions_.items():
    print(f"  {name}: {assumption}")

# %%
# The terms against the radius: points of the other half that lie within the radius of no point of
# the reference half count as errors, and so do those that depend on a point without this radius.

certified.plot(form="exceptions")

# %%
# Other bounds for a network on all rows
# ======================================
#
# The same architecture trained on all rows, without the split: its bound between raw pixels, the
# spectral-margin bound, and a PAC-Bayes bound. The latter is on a *randomised* network, drawn from
# a Gaussian around the trained weights; its prior is a Gaussian around the initial weights.

whole = network().fit(X_train, y_train)
raw = GeneralisationBound(whole, lipschitz="certified").fit(X_train, y_train)
print(raw.floor_statement())

module = whole.module_.eval()
inputs = torch.as_tensor(X_train, dtype=next(module.parameters()).dtype)
with torch.no_grad():
    logits = module(inputs).double().numpy()
weights = [p.detach().double().numpy() for p in module.parameters() if p.ndim == 2]
spectral = spectral_margin_bound(logit_margins(logits, y_train), weights, X_train)

trained = parameter_vector(module)
start = parameter_vector(initial_module(whole, X_train, y_train))
distance = float((trained - start).norm()) ** 2
generator = torch.Generator().manual_seed(0)
widths, n_draws = (0.02, 0.05, 0.1, 0.2), 20
pac_bayes = []
for width in widths:
    draws = [
        trained + width * torch.randn(trained.shape, generator=generator, dtype=trained.dtype)
        for _ in range(n_draws)
    ]
    errors = [np.mean(outputs_at(module, inputs, v).argmax(1).numpy() != y_train) for v in draws]
    # The widths were tried one after the other: each gets its share of the 5 %.
    divergence = distance / (2 * width**2)
    pac_bayes.append(
        float(pac_bayes_bound(np.mean(errors), divergence, 1400, delta=0.05 / len(widths)))
    )

# %%
# Rows set aside
# ==============
#
# With a fifth of the rows held out and two candidates, the binomial limit is tighter than anything
# above. It costs 280 rows of training, and it grows with the number of candidates; the certified
# bound does not.

held = network().fit(X_train[:1120], y_train[:1120])
n_errors = int(np.sum(held.predict(X_train[1120:]) != y_train[1120:]))
binomial = float(held_out_bound(n_errors, 280, n_candidates=2))
many = float(held_out_bound(n_errors, 280, n_candidates=1000))

rows = {
    "this package, certified, half features": (certified.bound_, search),
    "this package, certified, raw pixels": (raw.bound_, whole),
    "spectral margin (all rows)": (spectral, whole),
    "PAC-Bayes (all rows, randomised)": (min(pac_bayes), whole),
    "held-out 20 %, 2 candidates": (binomial, held),
    "held-out 20 %, 1000 candidates": (many, held),
}
for name, (bound, model) in rows.items():
    error = np.mean(model.predict(X_test) != y_test)
    print(f"{name:42s} bound {bound:10.3f}   error on {len(y_test)} fresh rows {error:.3f}")

# %%
# The figure shows bounds above 1, which say nothing, on a logarithmic scale.

figure, ax = plt.subplots(figsize=(7.5, 3.8), layout="constrained")
names = list(rows)[::-1]
bounds = [rows[name][0] for name in names]
errors = [np.mean(rows[name][1].predict(X_test) != y_test) for name in names]
colours = ["tab:blue" if "package" in name else "0.6" for name in names]
ax.barh(names, bounds, color=colours)
ax.plot(errors, names, "k|", markersize=16, markeredgewidth=2, label="error on fresh rows")
ax.axvline(1, color="tab:red", linewidth=1, label="vacuous from here on")
ax.set_xscale("log")
ax.set_xlim(0.01, 3 * max(bounds))
for name, bound in zip(names, bounds, strict=True):
    ax.text(1.1 * bound, name, f"{bound:.2g}", va="center")
ax.set_xlabel("bound on the error, 95 % confidence")
ax.set_title("Digits, 1400 rows: certified bounds and what they cost")
ax.legend(loc="lower right", fontsize="small")
plt.show()
