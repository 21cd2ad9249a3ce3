"""Norms of Jacobians that are too large to form, from their products with vectors."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from sharpfit.jacobian.krylov import LargestSingularValues, largest_singular_values
from sharpfit.jacobian.linearisation import Linearisation, check_finite


class JacobianProducts(Protocol):
    """Products with one matrix of shape (C, d) for each row of a chunk.

    Attributes
    ----------
    n_outputs, n_features : int
        Shape of the matrices.
    like : Tensor of shape (n, ...)
        Tells number of rows, dtype and device.
    """

    n_outputs: int
    n_features: int
    like: Tensor

    def push(self, tangents: Tensor) -> Tensor:
        """Multiply by vectors of shape (n, d)."""

    def pull(self, cotangents: Tensor) -> Tensor:
        """Multiply the transposes by vectors of shape (n, C)."""


class OutputProducts:
    """Jacobians of logits or of probabilities at a chunk of rows.

    Parameters
    ----------
    linearisation : Linearisation
    probabilities : bool
        Whether the outputs are followed by the softmax (one logit: the sigmoid).
    """

    def __init__(self, linearisation: Linearisation, probabilities: bool):
        self._linearisation = linearisation
        self._probabilities = probabilities
        self.like = linearisation.inputs
        self.n_outputs = linearisation.outputs.shape[1]
        self.n_features = self.like[0].numel()

    def push(self, tangents: Tensor) -> Tensor:
        """Multiply by vectors of shape (n, d)."""
        pushed = self._linearisation.product(tangents.view_as(self.like))
        return self._squash(pushed)

    def pull(self, cotangents: Tensor) -> Tensor:
        """Multiply the transposes by vectors of shape (n, C)."""
        return self._linearisation.transposed_product(self._squash(cotangents)).flatten(1)

    def _squash(self, vectors: Tensor) -> Tensor:
        if not self._probabilities:
            return vectors
        return probability_product(self._linearisation.outputs, vectors.unsqueeze(2)).squeeze(2)


class DifferenceProducts:
    """Differences of the Jacobians at two chunks of rows."""

    def __init__(self, first: JacobianProducts, second: JacobianProducts):
        self._first, self._second = first, second
        self.like = first.like
        self.n_outputs, self.n_features = first.n_outputs, first.n_features

    def push(self, tangents: Tensor) -> Tensor:
        """Multiply by vectors of shape (n, d)."""
        return self._first.push(tangents) - self._second.push(tangents)

    def pull(self, cotangents: Tensor) -> Tensor:
        """Multiply the transposes by vectors of shape (n, C)."""
        return self._first.pull(cotangents) - self._second.pull(cotangents)


def iterated_spectral_norms(
    products: JacobianProducts, generator: torch.Generator, *, tol: float, max_products: int
) -> LargestSingularValues:
    """Largest singular values, by Lanczos iteration on the smaller side.

    Parameters
    ----------
    products : JacobianProducts
    generator : torch.Generator
        Draws the start vectors.
    tol : float
        Relative error at which a value counts as found.
    max_products : int
        Most steps.

    Returns
    -------
    LargestSingularValues
    """
    directions: list[Callable[[Tensor], Tensor]] = [products.pull, products.push]
    there, back = directions if products.n_outputs <= products.n_features else directions[::-1]
    units: Tensor | None = None  # squares of tiny or huge norms leave the range of the dtype

    def gram_product(vectors: Tensor) -> Tensor:
        nonlocal units
        image = there(vectors)
        if units is None:
            units = _power_of_two(image)
        return back(image / units) / units

    start = _draw(products, generator)
    found = largest_singular_values(gram_product, start, tol=tol, max_products=max_products)
    assert units is not None
    scale = units.double().squeeze(1)
    return LargestSingularValues(found.values * scale, found.errors * scale, found.n_products)


def _power_of_two(vectors: Tensor) -> Tensor:
    """Sizes of vectors, down to a power of two, by which division is exact; 1 for zero vectors."""
    largest = vectors.abs().amax(dim=1, keepdim=True)
    check_finite(largest)
    whole = torch.floor(torch.log2(largest.double()))
    return torch.where(largest > 0, torch.exp2(whole).to(vectors.dtype), 1.0)


def probed_frobenius_norms(
    products: JacobianProducts, generator: torch.Generator, n_probes: int
) -> tuple[Tensor, Tensor]:
    """Frobenius norms with standard errors, from the images of random vectors.

    Parameters
    ----------
    products : JacobianProducts
    generator : torch.Generator
        Draws the vectors.
    n_probes : int
        How many; a side no longer than this is summed exactly.

    Returns
    -------
    norms, standard_errors : Tensor of shape (n,), float64
    """
    image = products.pull if products.n_outputs <= products.n_features else products.push
    probe = _draw(products, generator)
    size = probe.shape[1]
    if size <= n_probes:
        units = torch.eye(size, dtype=probe.dtype, device=probe.device)
        images = [image(unit.expand_as(probe)).double() for unit in units]
        norms = torch.stack([part.square().sum(dim=1) for part in images]).sum(dim=0).sqrt()
        return norms, torch.zeros_like(norms)
    # On the sphere of radius sqrt(size), the mean of |J^T u|^2 is the squared norm.
    squares = []
    for _ in range(n_probes):
        probe = _draw(products, generator)
        scale = size / probe.double().square().sum(dim=1)
        squares.append(scale * image(probe).double().square().sum(dim=1))
    sample = torch.stack(squares)
    norms = sample.mean(dim=0).sqrt()
    spread = sample.std(dim=0) / n_probes**0.5
    return norms, torch.where(norms > 0, spread / (2 * norms), spread)


def _draw(products: JacobianProducts, generator: torch.Generator) -> Tensor:
    like = products.like
    shape = (len(like), min(products.n_outputs, products.n_features))
    return torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)


def probability_product(logits: Tensor, matrices: Tensor) -> Tensor:
    """Multiply the (symmetric) Jacobian of the softmax by matrices.

    Parameters
    ----------
    logits : Tensor of shape (n, C)
        With one logit, the sigmoid takes the softmax' place.
    matrices : Tensor of shape (n, C, k)

    Returns
    -------
    Tensor of shape (n, C, k)
    """
    if logits.shape[1] == 1:
        return (logits.sigmoid() * (-logits).sigmoid()).unsqueeze(2) * matrices
    probabilities = logits.softmax(dim=1).unsqueeze(2)
    # Only differences matter; those from the likeliest class do not cancel when it is certain.
    likeliest = logits.argmax(dim=1)[:, None, None].expand(-1, 1, matrices.shape[2])
    matrices = matrices - matrices.gather(1, likeliest)
    return probabilities * (matrices - (probabilities * matrices).sum(dim=1, keepdim=True))
