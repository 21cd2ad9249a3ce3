r"""Measures of this library: the generalisation bound with its terms, the selection criterion.

The bound is that of :class:`~sharpfit.GeneralisationBound` with its default settings, whose
constant is empirical: an estimate here, not a certificate. Its value is
:math:`c\,R + T + D` of a capacity, usually 1, and the three terms.
"""

from sharpfit.measures.trained_network import TrainedNetwork
from sharpfit.model_selection.selection import SelectionCriterion


def bound(network: TrainedNetwork) -> float:
    r"""Generalisation bound on the error probability.

    :math:`c\,R + T + D`, the smallest over forms and scales. Source: this library, after
    MacDonald, Valmadre, Lucey 2023. Invariances: rescaling of the logits, and of one layer up
    and another down. Cost: pairwise distances of the rows, shared by all networks trained on
    them, and the margins.
    """
    return network.bound.value


def bound_empirical_risk(network: TrainedNetwork) -> float:
    r"""Term of the bound that the network answers for.

    :math:`R`: the mean ramp loss of the training rows, or in a covering form the frequency of
    what its exceptions spoil. Source: this library. Invariances: those of the bound. Cost:
    that of the bound.
    """
    return network.bound.capacity * network.bound.empirical_risk


def bound_geometry_cost(network: TrainedNetwork) -> float:
    r"""Term of the bound that the distances between rows answer for.

    :math:`T`: the transport cost between two halves of the rows at the scale that the slope
    of the network calls for, or the frequency of uncovered points. Source: this library.
    Invariances: those of the bound. Cost: that of the bound.
    """
    return network.bound.geometry_cost


def bound_deviation(network: TrainedNetwork) -> float:
    r"""Term of the bound that the finite sample answers for.

    :math:`D`, of the form and scale that the network selects. Source: this library.
    Invariances: those of the bound. Cost: that of the bound.
    """
    return network.bound.deviation


def bound_lipschitz_constant(network: TrainedNetwork) -> float:
    r"""Lipschitz constant of the margins that the bound takes.

    :math:`\max_{ij} |m(x_i) - m(x_j)| / |x_i - x_j|` and the largest gradient, an estimate
    from below. Source: this library. Invariances: rescaling one layer up and another down.
    Cost: that of the bound.
    """
    constant = network.bound.lipschitz_constant
    if constant is None:
        raise ValueError("this form of the bound takes certified radii and no constant")
    return constant


def selection_criterion(network: TrainedNetwork) -> float:
    r"""Estimate of the error on fresh rows that `selection_scorer` ranks networks by.

    The mean error :math:`\frac1m \sum_j e(f(z_j), r(z_j))` against a kernel regression `r`, at the
    rows and at rows moved by differences of their neighbours. Source: this library. Invariances:
    rescaling of the logits, and of one layer up and another down. Cost: five passes over the
    rows, and a neighbour search and a regression that networks on the same rows share.
    """
    return SelectionCriterion(network.problem)(network.module)
