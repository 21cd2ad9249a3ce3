"""How much the Jacobian changes in the neighbourhood of the samples."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn

from sharpfit.jacobian.arguments import check_count, check_positive
from sharpfit.jacobian.exact import ExactJacobians
from sharpfit.jacobian.gram import matrix_norms
from sharpfit.jacobian.iterated import (
    DifferenceProducts,
    OutputProducts,
    iterated_spectral_norms,
    probability_product,
)
from sharpfit.jacobian.linearisation import (
    FrozenModule,
    Linearisation,
    Method,
    chunks,
    seeded_generator,
)
from sharpfit.jacobian.pairs import Floats
from sharpfit.jacobian.progress import followed
from sharpfit.jacobian.surroundings import in_plain_mode

Output = Literal["logits", "probabilities"]


@dataclass(frozen=True)
class LocalVariation:
    """Jacobian norms at the samples and near them, and how much the Jacobian changes.

    All entries over segments and balls are estimates from below: they look at finitely many
    points. Norms are spectral.

    Attributes
    ----------
    at_samples : ndarray of shape (n,)
        Norms at the samples.
    on_segments : ndarray of shape (n,)
        Largest norm at points on the segments to the nearest neighbours, ends excluded.
    in_balls : ndarray of shape (n,)
        Largest norm at random points at distance `radius`.
    segment_change, ball_change : ndarray of shape (n,)
        Largest norm of the difference between the Jacobian there and at the sample.
    segment_rate, ball_rate : ndarray of shape (n,)
        Largest such difference per distance from the sample, a lower estimate of the local
        Lipschitz constant of the Jacobian.
    radius : ndarray of shape (n,)
        Radii of the balls.
    """

    at_samples: Floats
    on_segments: Floats
    in_balls: Floats
    segment_change: Floats
    ball_change: Floats
    segment_rate: Floats
    ball_rate: Floats
    radius: Floats

    @property
    def excess(self) -> float:
        """Largest norm found anywhere over the largest norm at a sample.

        Near one, the sample stands for its surroundings; well above one, the function is steep
        between the samples and flat at them, as where noise was memorised. Infinite if all
        Jacobians at the samples vanish and others do not.
        """
        sample = self.at_samples.max()
        near = max(self.on_segments.max(), self.in_balls.max(), sample)
        if sample > 0:
            return float(near / sample)
        return np.inf if near > 0 else 1.0


@in_plain_mode
def local_variation(
    module: nn.Module,
    inputs: Tensor,
    *,
    output: Output = "logits",
    n_neighbours: int = 3,
    n_steps: int = 3,
    n_directions: int = 4,
    radius: float | None = None,
    method: Method = "auto",
    tol: float = 1e-3,
    max_products: int = 300,
    batch_size: int | Literal["auto"] = "auto",
    memory_budget: int = 2**28,
    random_state: int = 0,
    verbose: int = 0,
) -> LocalVariation:
    """Estimate how much the Jacobian varies between and around the samples.

    Parameters
    ----------
    module : torch.nn.Module
        Returns logits or predictions of shape (n, C); copied and put in evaluation mode.
    inputs : Tensor of shape (n, ...)
        At least two rows.
    output : {"logits", "probabilities"}, default="logits"
        What is differentiated.
    n_neighbours : int, default=3
        Segments from each sample to its nearest neighbours (scikit-learn's search); rows equal
        to the sample are skipped.
    n_steps : int, default=3
        Equally spaced inner points of each segment.
    n_directions : int, default=4
        Random directions in each ball.
    radius : float, optional
        Radius of the balls, in units of the inputs; by default half of each sample's distance
        to its nearest neighbour that differs from it.
    method : {"auto", "exact", "krylov"}, default="auto"
        As in `jacobian_norms`.
    tol : float, default=1e-3
        Relative error at which the iteration ends.
    max_products : int, default=300
        Most steps of the iteration.
    batch_size : int or "auto", default="auto"
        Rows of a chunk.
    memory_budget : int, default=2**28
        Bytes that a chunk may use when `batch_size` is "auto".
    random_state : int, default=0
        Seed of the directions.
    verbose : int, default=0
        Print one line per this many chunks of rows.

    Returns
    -------
    LocalVariation

    Raises
    ------
    ValueError
        If an argument does not fit, or all rows are equal.

    Examples
    --------
    >>> import torch
    >>> from sharpfit.jacobian import local_variation
    >>> linear = torch.nn.Linear(2, 1)
    >>> found = local_variation(linear, torch.eye(2), n_neighbours=1)
    >>> found.excess, float(found.segment_change.max())
    (1.0, 0.0)
    """
    if output not in ("logits", "probabilities"):
        raise ValueError(f"output must be 'logits' or 'probabilities', got {output!r}")
    counts = {
        "n_neighbours": n_neighbours,
        "n_steps": n_steps,
        "n_directions": n_directions,
        "max_products": max_products,
    }
    for name, count in counts.items():
        check_count(name, count)
    check_positive("tol", tol, "the relative error of norms")
    if radius is not None:
        check_positive("radius", radius, "in units of the inputs")
    frozen = FrozenModule(module, inputs)
    neighbours, distances = _distinct_neighbours(inputs, n_neighbours)
    radii = distances[:, 0] / 2 if radius is None else np.full(len(inputs), float(radius))
    generator = seeded_generator(random_state, inputs.device)
    probes = _Probes(inputs, neighbours, radii, n_steps, n_directions, generator)
    exact = None if frozen.iterates(method) else ExactJacobians(frozen, inputs)
    norms = _Norms(frozen, exact, output, tol, max_products, generator)
    row_bytes = 2 * frozen.product_bytes(inputs) if exact is None else 2 * exact.row_bytes
    parts: list[dict[str, Tensor]] = []
    walk = chunks(inputs, batch_size, memory_budget, row_bytes=row_bytes)
    for rows in followed(walk, len(inputs), name="local_variation", verbose=verbose):
        norms.start(inputs[rows])
        found = {"at_samples": norms.at_start}
        for kind, points in probes.around(rows):
            norm, change = norms.at(points)
            lengths = (points - inputs[rows]).flatten(1).double().norm(dim=1)
            prefix, place = (
                ("segment", "on_segments") if kind == "segment" else ("ball", "in_balls")
            )
            for name, values in (
                (place, norm),
                (f"{prefix}_change", change),
                (f"{prefix}_rate", change / lengths),
            ):
                found[name] = torch.maximum(found[name], values) if name in found else values
        parts.append(found)
    columns = {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]}
    return LocalVariation(**columns, radius=radii)


def _distinct_neighbours(inputs: Tensor, n_neighbours: int) -> tuple[np.ndarray, Floats]:
    """Nearest rows that differ, and their distances; the farthest found fills up a row."""
    points = inputs.detach().double().flatten(1).cpu().numpy()
    distinct, groups = np.unique(points, axis=0, return_inverse=True)
    groups = groups.reshape(-1)
    if len(distinct) < 2:
        raise ValueError("all rows of inputs are equal: there are no segments between them")
    first_rows = np.unique(groups, return_index=True)[1]
    k = min(n_neighbours, len(distinct) - 1)
    found = NearestNeighbors(n_neighbors=k).fit(distinct).kneighbors(return_distance=False)
    neighbours = first_rows[found][groups]
    lengths = np.linalg.norm(points[:, None] - points[neighbours], axis=2)
    return neighbours, lengths


class _Probes:
    """Points on the segments from samples to neighbours, and on spheres around samples."""

    def __init__(
        self,
        inputs: Tensor,
        neighbours: np.ndarray,
        radii: Floats,
        n_steps: int,
        n_directions: int,
        generator: torch.Generator,
    ):
        self._inputs = inputs
        self._neighbours = torch.as_tensor(neighbours, device=inputs.device)
        self._radii = torch.as_tensor(radii, dtype=inputs.dtype, device=inputs.device)
        self._n_steps, self._n_directions = n_steps, n_directions
        self._generator = generator

    def around(self, rows: slice) -> Iterator[tuple[str, Tensor]]:
        centres = self._inputs[rows]
        for column in self._neighbours[rows].unbind(1):
            for step in range(1, self._n_steps + 1):
                share = step / (self._n_steps + 1)
                yield "segment", torch.lerp(centres, self._inputs[column], share)
        for _ in range(self._n_directions):
            direction = torch.randn(
                centres.shape,
                generator=self._generator,
                dtype=centres.dtype,
                device=centres.device,
            )
            lengths = direction.flatten(1).norm(dim=1)
            scale = (self._radii[rows] / lengths).view(-1, *[1] * (centres.ndim - 1))
            yield "ball", centres + scale * direction


class _Norms:
    """Norms of the Jacobians of a chunk, and of their differences from those at its start."""

    def __init__(
        self,
        module: FrozenModule,
        exact: ExactJacobians | None,
        output: Output,
        tol: float,
        max_products: int,
        generator: torch.Generator,
    ):
        self._module, self._probabilities = module, output == "probabilities"
        self._exact = exact
        self._tol, self._max_products = tol, max_products
        self._generator = generator

    def start(self, inputs: Tensor) -> None:
        if self._exact is None:
            self._products = self._operators(inputs)
            self.at_start = self._iterate(self._products)
        else:
            self._jacobians = self._whole(self._exact, inputs).clone()
            self.at_start = matrix_norms(self._jacobians)[0]

    def at(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        if self._exact is None:
            products = self._operators(inputs)
            difference = DifferenceProducts(products, self._products)
            return self._iterate(products), self._iterate(difference)
        jacobians = self._whole(self._exact, inputs)
        return matrix_norms(jacobians)[0], matrix_norms(jacobians - self._jacobians)[0]

    def _whole(self, exact: ExactJacobians, inputs: Tensor) -> Tensor:
        logits, jacobians = exact(inputs)
        return probability_product(logits, jacobians) if self._probabilities else jacobians

    def _operators(self, inputs: Tensor) -> OutputProducts:
        return OutputProducts(Linearisation(self._module, inputs), self._probabilities)

    def _iterate(self, products: OutputProducts | DifferenceProducts) -> Tensor:
        found = iterated_spectral_norms(
            products, self._generator, tol=self._tol, max_products=self._max_products
        )
        return found.values
