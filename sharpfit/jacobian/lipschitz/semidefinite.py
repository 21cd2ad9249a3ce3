"""Constants of the dense end of a network by semidefinite relaxation."""

from dataclasses import dataclass

from sharpfit.jacobian.lipschitz.chain import DenseChain
from sharpfit.jacobian.lipschitz.ellipsoids import best_ellipsoids
from sharpfit.jacobian.lipschitz.linear_matrix_inequality import ChainInequality
from sharpfit.jacobian.lipschitz.rounding import product_up, root_up

# More pairs of outputs than these share the bound of the whole output.
_MAX_PAIRS = 1000


@dataclass(frozen=True)
class ChainConstants:
    """Proved constants of a dense chain, from its start.

    Attributes
    ----------
    constant : float
        Of all outputs together.
    margin_constant : float
        Of the differences of two outputs; for a single output, of that one.
    """

    constant: float
    margin_constant: float


def chain_constants(chain: DenseChain) -> ChainConstants:
    """Bound the Lipschitz constants of a dense chain below the product of norms.

    Parameters
    ----------
    chain : DenseChain
        With one stage at least.

    Returns
    -------
    ChainConstants
        Infinite where the inequality found could not be proved in floating-point arithmetic.
    """
    ellipsoids = best_ellipsoids(chain.stages, chain.head.matrix)
    inequality = ChainInequality(chain.stages, ellipsoids.diagonals)
    constant = inequality.prove(chain.head, ellipsoids.squared_constant)
    n_outputs = len(chain.head.matrix)
    if n_outputs == 1:
        return ChainConstants(constant, constant)
    margin_constant = product_up(root_up(2.0), constant)
    if n_outputs * (n_outputs - 1) // 2 <= _MAX_PAIRS:
        pairs = chain.head.row_differences()
        ellipsoids = best_ellipsoids(chain.stages, pairs.matrix, each_row=True)
        inequality = ChainInequality(chain.stages, ellipsoids.diagonals)
        proved = max(
            inequality.prove(pairs.row(index), ellipsoids.squared_constant)
            for index in range(len(pairs.matrix))
        )
        margin_constant = min(margin_constant, proved)
    return ChainConstants(constant, margin_constant)
