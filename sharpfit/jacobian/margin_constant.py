"""The smallest Lipschitz constant of the margin that the sample does not contradict."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sharpfit.jacobian.pairs import pair_blocks
from sharpfit.jacobian.sample_slopes import as_labels, as_points, check_neighbours


@dataclass(frozen=True)
class MarginConstant:
    """Empirical Lipschitz constant of the margin and what it comes from.

    Attributes
    ----------
    value : float
        The largest of the three below: an estimate, never above the true constant.
    gradient : float
        Largest norm of a margin gradient at a sample; 0 if none were given.
    same_class_slope : float
        Largest ``|m_i - m_j| / |x_i - x_j|`` over pairs of one class.
    cross_class_slope : float
        Largest ``max(m_i + m_j, 0) / |x_i - x_j|`` over pairs of different classes.
    contradicts_gradients : bool
        Whether a pair of samples has a larger slope than any gradient: the Jacobian at the
        samples then understates the margin's variation between them.
    """

    value: float
    gradient: float
    same_class_slope: float
    cross_class_slope: float

    @property
    def contradicts_gradients(self) -> bool:
        """Whether the pairs show more variation than the gradients at the samples."""
        return self.value > self.gradient

    def __float__(self) -> float:
        return self.value


def empirical_margin_constant(
    margins: ArrayLike,
    labels: ArrayLike,
    inputs: ArrayLike,
    margin_gradients: ArrayLike | None = None,
    *,
    n_neighbours: int | None = None,
    verbose: int = 0,
) -> MarginConstant:
    r"""Estimate the Lipschitz constant of the classification margin from a sample.

    Let :math:`\Lambda` be a Lipschitz constant of :math:`x \mapsto m(x, y)` for every class
    :math:`y`, with :math:`m(x, y) = f_y(x) - \max_{k \ne y} f_k(x)`. Then
    :math:`|\nabla m| \le \Lambda` wherever the gradient exists,
    :math:`|m_i - m_j| \le \Lambda |x_i - x_j|` for samples of one class, and
    :math:`m_i + m_j \le \Lambda |x_i - x_j|` for samples of different classes (because
    :math:`m(x, y) + m(x, y') \le 0` for :math:`y \ne y'`). The estimate is the smallest
    value that satisfies all of these on the sample. Equal rows are left out.

    Parameters
    ----------
    margins : array-like of shape (n,)
        Margins :math:`m_i = m(x_i, y_i)` of the true classes, in logit units.
    labels : array-like of shape (n,)
        True classes.
    inputs : array-like of shape (n, ...)
        Samples; distances are Euclidean.
    margin_gradients : array-like of shape (n,), optional
        Norms of the margin gradients, see `JacobianNorms.margin_gradient`. At correctly classified
        samples that to any other class counts, see `JacobianNorms.largest_margin_gradient`: there
        the difference is the margin of the other class.
    n_neighbours : int, optional
        Look at each row's nearest neighbours only; all pairs by default.
    verbose : int, default=0
        Print one line per this many blocks of rows.

    Returns
    -------
    MarginConstant
        Converts to float.

    Raises
    ------
    ValueError
        If lengths differ, a value is not finite, or `n_neighbours` is not below n.

    Examples
    --------
    >>> from sharpfit.jacobian import empirical_margin_constant
    >>> constant = empirical_margin_constant([1.0, 2.0], [0, 1], [[0.0], [2.0]], [1.0, 1.0])
    >>> float(constant), constant.contradicts_gradients
    (1.5, True)
    """
    margin, points = as_points(margins, "margins"), as_points(inputs, "inputs")
    classes = np.unique(as_labels(labels), return_inverse=True)[1].reshape(-1)
    gradients = None if margin_gradients is None else as_points(margin_gradients, "gradients")
    lengths = {
        "margins": margin.size,
        "labels": len(classes),
        "margin_gradients": len(points) if gradients is None else gradients.size,
    }
    for name, length in lengths.items():
        if length != len(points):
            raise ValueError(f"{name} has {length} entries, inputs has {len(points)} rows")
    check_neighbours(n_neighbours, len(points))
    margin = margin[:, 0]
    same_class = cross_class = 0.0
    for block in pair_blocks(
        points, n_neighbours, name="empirical_margin_constant", verbose=verbose
    ):
        distances = np.sqrt(block.squared_distances)
        first, second = margin[block.rows], margin[block.columns]
        same = classes[block.rows] == classes[block.columns]
        slopes = np.where(same, np.abs(first - second), first + second) / distances
        same_class = max(same_class, float(slopes.max(where=same, initial=0.0)))
        cross_class = max(cross_class, float(slopes.max(where=~same, initial=0.0)))
    gradient = 0.0 if gradients is None else float(gradients.max())
    return MarginConstant(
        value=max(gradient, same_class, cross_class),
        gradient=gradient,
        same_class_slope=same_class,
        cross_class_slope=cross_class,
    )
