"""Margins in units of how far the classes spread in the features."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from sharpfit.measures.margins import margin_ratio
from sharpfit.measures.trained_network import TrainedNetwork


def negative_variance_normalised_margin(network: TrainedNetwork) -> float:
    r"""Minus the median margin in units of the spread of the classes (`k`-variance).

    The median of :math:`m_i / (\bar V\,|\nabla_h m_i|)`, where `h` are the features that
    enter the second layer with weights and :math:`\bar V` is the mean over classes, weighted
    by frequency, of their `k`-variance: the expected mean distance between two random halves
    of the class's rows under their best matching. Source: Chuang et al. 2021, the
    gradient-normalised variant at a shallow layer, with one random halving. Invariances:
    rescaling of the logits and of any layer. Cost: about as many backward passes as classes,
    and one assignment problem a class.
    """
    margins, layers = network.margins, network.layer_jacobians
    spread = class_spread(layers.hidden, network.labels.cpu().numpy(), network.random_state)
    return -float(np.median(margin_ratio(margins, layers.margin_gradient * spread)))


def class_spread(
    features: NDArray[np.float64], labels: NDArray[np.int64], random_state: int
) -> float:
    """Mean `k`-variance of the classes, weighted by their frequency, from one random halving.

    Parameters
    ----------
    features : ndarray of shape (n, d)
        Rows.
    labels : ndarray of shape (n,)
        Their classes.
    random_state : int
        Seed of the halves.

    Returns
    -------
    float
    """
    generator = np.random.default_rng(random_state)
    spread = 0.0
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        half = len(members) // 2
        if half:
            distances = cdist(features[members[:half]], features[members[half : 2 * half]])
            matched = distances[linear_sum_assignment(distances)].mean()
            spread += len(members) / len(labels) * float(matched)
    return spread
