"""Bounds on data whose error is known: winners of searches, and the worst network allowed."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.datasets import make_moons

from sharpfit.theory import fit_geometry, generalisation_bound, logit_margins

N_CANDIDATES = 50
WIDTH = 16
STEPS = 60
N_FRESH = 4000


def mixture(n, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    centres = np.array([[0.0, 0.0], [2.5, 0.0], [0.0, 2.5]])
    return centres[labels] + 0.6 * rng.normal(size=(n, 2)), labels


def noisy_moons(n, seed):
    rng = np.random.default_rng(seed)
    features, labels = make_moons(n, noise=0.1, random_state=seed)
    flipped = rng.random(n) < 0.1
    return features, np.where(flipped, 1 - labels, labels)


def sphere_image(n, seed):
    """Points of a 2-sphere in 20 dimensions, two caps of different classes."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    frame = np.linalg.qr(np.random.default_rng(0).normal(size=(20, 3)))[0]
    return points @ frame.T, (points[:, 2] > 0.2).astype(int)


def hypercube_image(n, seed):
    """A square, bent into 20 dimensions, whose quadrants alternate between the classes."""
    rng = np.random.default_rng(seed)
    corners = rng.random((n, 2))
    frequencies = np.random.default_rng(0).normal(size=(2, 10))
    waves = corners @ frequencies
    labels = (corners[:, 0] > 0.5) ^ (corners[:, 1] > 0.5)
    return np.concatenate([np.sin(waves), np.cos(waves)], axis=1), labels.astype(int)


DISTRIBUTIONS = {
    "mixture": mixture,
    "moons with label noise": noisy_moons,
    "sphere": sphere_image,
    "hypercube": hypercube_image,
}


@dataclass
class Networks:
    """Many two-layer ReLU networks at once: first axis is the candidate."""

    first: np.ndarray
    bias: np.ndarray
    second: np.ndarray

    def logits(self, features):
        hidden = np.maximum(features @ self.first + self.bias[:, None], 0.0)
        return hidden @ self.second

    def margin_constants(self):
        """Product certificate: norm of the first layer, largest difference of head columns."""
        first = np.linalg.norm(self.first, ord=2, axis=(1, 2))
        columns = self.second.transpose(0, 2, 1)
        differences = columns[:, :, None] - columns[:, None]
        return first * np.linalg.norm(differences, axis=-1).max(axis=(1, 2))


def train(features, labels, seed):
    """Gradient descent on the cross-entropy, with a different weight decay and rate for each."""
    rng = np.random.default_rng(seed)
    d, classes = features.shape[1], labels.max() + 1
    shape = (N_CANDIDATES, d, WIDTH)
    nets = Networks(
        rng.normal(size=shape) / np.sqrt(d),
        0.1 * rng.normal(size=(N_CANDIDATES, WIDTH)),
        rng.normal(size=(N_CANDIDATES, WIDTH, classes)) / np.sqrt(WIDTH),
    )
    rate = rng.choice([0.3, 1.0], size=(N_CANDIDATES, 1, 1))
    decay = rng.choice([0.0, 1e-3, 1e-2], size=(N_CANDIDATES, 1, 1))
    targets = np.eye(classes)[labels]
    for _ in range(STEPS):
        hidden = np.maximum(features @ nets.first + nets.bias[:, None], 0.0)
        logits = hidden @ nets.second
        logits -= logits.max(axis=2, keepdims=True)
        probabilities = np.exp(logits)
        probabilities /= probabilities.sum(axis=2, keepdims=True)
        error = (probabilities - targets) / len(features)
        back = (error @ nets.second.transpose(0, 2, 1)) * (hidden > 0)
        nets.second -= rate * (hidden.transpose(0, 2, 1) @ error + decay * nets.second)
        nets.first -= rate * (features.T @ back + decay * nets.first)
        nets.bias -= rate[:, 0] * back.sum(axis=1)
    return nets


def empirical_constant(features, labels, margins):
    """Largest slope of the margin between rows: what an estimate would use."""
    distances = cdist(features, features)
    same = labels[:, None] == labels[None, :]
    variation = np.where(
        same, np.abs(margins[:, None] - margins), np.maximum(margins[:, None] + margins, 0.0)
    )
    positive = distances > 0
    return (variation[positive] / distances[positive]).max()


@dataclass(frozen=True)
class Outcome:
    """Bound and error of the winner of one search, for one way to get the constant."""

    bound: float
    error: float


def search(distribution, n, seed, confidence=0.95):
    """Choose the best of 50 networks by bound; return what the bound said and what is true."""
    features, labels = DISTRIBUTIONS[distribution](n, seed)
    fresh, fresh_labels = DISTRIBUTIONS[distribution](N_FRESH, seed + 10**6)
    nets = train(features, labels, seed)
    logits = nets.logits(features)
    margins = np.array([logit_margins(candidate, labels) for candidate in logits])
    errors = (nets.logits(fresh).argmax(axis=2) != fresh_labels).mean(axis=1)
    geometry = fit_geometry(features, labels, scales=2.0 ** np.arange(-4, 8))
    constants = {
        "certified": nets.margin_constants(),
        "empirical": [empirical_constant(features, labels, row) for row in margins],
    }
    outcomes = {}
    for kind, values in constants.items():
        bounds = [
            generalisation_bound(geometry, value, margins=row, confidence=confidence).value
            for value, row in zip(values, margins, strict=True)
        ]
        winner = int(np.argmin(bounds))
        outcomes[kind] = Outcome(bounds[winner], errors[winner])
    return outcomes


N_ATOMS = 100
WORST_FORMS = ("one_sided", "variance", "covering", "exceptions")


def worst_network(n, seed, confidence):
    """Bound, by every form on its own, a network that is as bad as the forms leave room for.

    Rows fall on the integers 0 to 99, each with a class of its own. The network is a piecewise
    linear function that is right, with margin 1, at the atoms of the reference half and wrong by
    1 at all others, so its Lipschitz constant is 2 and its error the mass of those others. The
    reference half is given, so the bound has one scale and one radius, and nothing but the
    deviation separates it from the truth.
    """
    rng = np.random.default_rng(seed)
    atoms = rng.integers(0, N_ATOMS, n)
    labels = rng.integers(0, 2, N_ATOMS)[atoms]
    reference = np.arange(n) < n // 2
    known = np.isin(np.arange(N_ATOMS), atoms[reference])
    geometry = fit_geometry(
        atoms[:, None],
        labels,
        reference=reference,
        scales=[2.0],
        capacities=[np.inf],
        radii=[0.5],
    )
    margins = np.where(known[atoms], 1.0, -1.0)
    return {
        form: Outcome(
            generalisation_bound(
                geometry, 2.0, margins=margins, method=form, confidence=confidence
            ).value,
            1.0 - known.mean(),
        )
        for form in WORST_FORMS
    }
