"""What the curvature matrices of a network have in common."""

import inspect
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sharpfit.curvature.batch_objective import BatchObjective
from sharpfit.curvature.chunking import activation_bytes, choose_batch_size
from sharpfit.curvature.data import Source
from sharpfit.curvature.linearisation import Chunk, Linearisation, Parts, finite_losses
from sharpfit.curvature.network import refuse_contexts, snapshot
from sharpfit.curvature.operator_settings import (
    checked_budget,
    checked_weight_decay,
    inverse_root,
)
from sharpfit.curvature.parameters import ParameterChoice, ParameterSelection
from sharpfit.curvature.routes import Linearise, RouteChoice, choose_route
from sharpfit.curvature.row_checks import prepare_rows
from sharpfit.curvature.sharding import GroupChoice, resolve_group, sum_over
from sharpfit.linalg import SymmetricOperator
from sharpfit.objective import RowwiseLoss, SampleLoss, as_sample_loss

DEFAULT_MEMORY_BUDGET = 2**31

_SHARED_PARAMETERS = """
    module : torch.nn.Module
        Returns logits or predictions of shape (n, C). A copy in eval mode is analysed: the
        module itself, its mode, gradients and buffers stay as they are.
    criterion : torch.nn.Module or SampleLoss
        Loss of the outputs, with ``reduction="mean"`` or ``"sum"``.
    inputs : Tensor of shape (n, ...), Dataset or DataLoader
        The rows; held, not copied. A map-style data set yields pairs ``(input, target)`` and
        is read again at every product as far as the memory budget asks for; of a loader, the
        data set and its collation are used, in order, and samplers that draw rows otherwise
        than each once are refused.
    targets : Tensor of shape (n, ...), optional
        Targets of a tensor of inputs.
    parameters : str, iterable of str, callable or None, default=None
        Parameters the matrix is taken in; see `select_parameters`.
    sample_weight : Tensor of shape (n,), optional
        Non-negative weights of the rows.
    weight_decay : float, default=0.0
        Coefficient added to the diagonal, as an optimiser's weight decay does.
    preconditioner : Tensor of shape (size,), optional
        Positive diagonal `p`; the matrix becomes ``p^(-1/2) (M + weight_decay) p^(-1/2)``,
        which has the eigenvalues of ``p^(-1) (M + weight_decay)``. For Adam, `p` is
        ``sqrt(v / (1 - beta2**t)) + eps``.
    dtype : torch.dtype, optional
        ``torch.float32`` or ``torch.float64`` to analyse a converted copy; by default the
        module's own dtype.
    batch_size : int or "auto", default="auto"
        Rows in a chunk. Every matrix is a sum over chunks; "auto" fits them to the cache.
    memory_budget : int, default=2**31
        Bytes for what is kept between products and one chunk's working memory. Chunks beyond
        it are recomputed at every product. Parameters, data and results are not counted.
    route : {"auto", "closed_form", "traced", "graph"}, default="auto"
        How products are computed: hand-written derivatives of stacks of known layers, a
        replayed trace of `torch.func`, or double backward through kept graphs.
    process_group : "auto", ProcessGroup or None, default="auto"
        Processes that each hold a shard of the rows; "auto" is the default group when
        `torch.distributed` is initialised, None is this process alone."""


class NetworkOperator(SymmetricOperator):
    """A curvature matrix of a network's loss; base of the public operators.

    Parameters
    ----------
    ----------{parameters}

    Attributes
    ----------
    size : int
        Number of selected parameters.
    network : Network
        The copy of the module that is differentiated.
    loss : SampleLoss
        The loss of its outputs.
    selection : ParameterSelection
        Their names and shapes.
    route : str
        How products are computed.
    n_rows : int
        Number of rows held by this process.
    n_kept_chunks, n_chunks : int
        How many chunks keep their state between products, of how many.
    """

    needs_second_order = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__doc__:
            cls.__doc__ = inspect.cleandoc(cls.__doc__).replace(
                "{parameters}", inspect.cleandoc(_SHARED_PARAMETERS)
            )

    def __init__(
        self,
        module: nn.Module,
        criterion: nn.Module | SampleLoss | BatchObjective,
        inputs: Source,
        targets: Tensor | None = None,
        *,
        parameters: ParameterChoice = None,
        sample_weight: Tensor | None = None,
        weight_decay: float = 0.0,
        preconditioner: Tensor | None = None,
        dtype: torch.dtype | None = None,
        batch_size: int | str = "auto",
        memory_budget: int = DEFAULT_MEMORY_BUDGET,
        route: RouteChoice = "auto",
        process_group: GroupChoice = "auto",
    ) -> None:
        if isinstance(criterion, BatchObjective):
            raise ValueError(
                f"{type(self).__name__} needs a loss that is a sum over rows, and criterion is a "
                "BatchObjective; it has a Hessian alone, see ObjectiveHessianOperator"
            )
        self.loss = as_sample_loss(criterion)
        self.network = snapshot(module, parameters, dtype)
        self.process_group = resolve_group(process_group)
        self._rows = prepare_rows(
            self.network, self.loss, inputs, targets, sample_weight, dtype, self.process_group
        )
        self.selection: ParameterSelection = self.network.selection
        self.dtype = self.network.dtype
        self.device = self.network.device
        self.weight_decay = checked_weight_decay(weight_decay)
        self._scaling = inverse_root(preconditioner, self.network)
        self.size = self._size()
        self.memory_budget = checked_budget(memory_budget)
        self.batch_size = choose_batch_size(
            self.network, self._rows, batch_size, self.memory_budget
        )
        self.n_chunks = -(-len(self._rows) // self.batch_size)
        first = next(self._rows.chunks(self.batch_size))
        if isinstance(self.loss, RowwiseLoss):
            with torch.no_grad():
                self.loss.check_additive(self.network.module(first.inputs), first.targets)
        self.route, self._linearise = self._choose_route(route, first)
        self._kept: list[Linearisation] = []
        self._capacity: int | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Graphs and closures stay behind: they come from the network, and what is kept comes back.
        return self.__dict__ | {"_linearise": None, "_kept": [], "_capacity": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        first = next(self._rows.chunks(self.batch_size))
        self.route, self._linearise = self._choose_route(state["route"], first)

    def _choose_route(self, route: RouteChoice, first: Chunk) -> tuple[str, Linearise]:
        return choose_route(
            self.network,
            self.loss,
            first,
            route=route,
            n_chunks=self.n_chunks,
            second_order=self.needs_second_order,
        )

    @property
    def preconditioned(self) -> bool:
        """Whether there is a preconditioner."""
        return self._scaling is not None

    def chunks(self, size: int | None = None) -> Iterator[Chunk]:
        """Yield the rows, by default in chunks of the operator's own size.

        Parameters
        ----------
        size : int, optional

        Yields
        ------
        Chunk
        """
        return self._rows.chunks(self.batch_size if size is None else size)

    @torch.no_grad()
    def reload(self, module: nn.Module) -> None:
        """Take over the values of a module that differs from the operator's in nothing else.

        Rows, chunks and route stay: this costs a fraction of a new operator.

        Parameters
        ----------
        module : torch.nn.Module
            Its parameters and buffers are copied, in the operator's dtype.
        """
        own = dict(_named_tensors(self.network.module))
        for name, tensor in _named_tensors(module):
            own[name].copy_(tensor)
        self.release()

    def release(self) -> None:
        """Let go of what is kept between products; the next product builds it again."""
        self._kept.clear()

    def rows_within_budget(self, copies: int) -> int:
        """Return the rows of a chunk whose activations the memory budget holds several times.

        Parameters
        ----------
        copies : int

        Returns
        -------
        int
            At most the operator's own chunks.
        """
        fitting = self.memory_budget / (copies * activation_bytes(self.network, self._rows))
        return max(min(self.batch_size, int(fitting)), 1)

    @property
    def n_rows(self) -> int:
        """Number of rows held by this process."""
        return len(self._rows)

    @property
    def n_kept_chunks(self) -> int:
        """Number of chunks that keep their state between products."""
        return len(self._kept)

    def matvec(self, vector: Tensor) -> Tensor:
        """Multiply the matrix by one vector.

        Parameters
        ----------
        vector : Tensor of shape (size,)

        Returns
        -------
        Tensor of shape (size,)
        """
        self._check(vector)
        scaled = self.unscaled(vector)
        product = self.data_product(scaled)
        if self.weight_decay:
            product.add_(scaled, alpha=self.weight_decay)
        return self.unscaled(product)

    def unscaled(self, vector: Tensor) -> Tensor:
        """Return ``p^(-1/2) v``, the parameter direction of a vector of the operator.

        Parameters
        ----------
        vector : Tensor of shape (P,)

        Returns
        -------
        Tensor of shape (P,)
        """
        return vector if self._scaling is None else vector * self._scaling

    @torch.no_grad()
    def data_product(self, direction: Tensor) -> Tensor:
        """Multiply by the matrix of the data loss, without weight decay and preconditioner.

        Parameters
        ----------
        direction : Tensor of shape (P,)

        Returns
        -------
        Tensor of shape (P,)
        """
        refuse_contexts(self.device)
        product = torch.zeros_like(direction)
        parts, total = self.selection.split(direction), self.selection.split(product)
        for linearisation in self.linearisations():
            self._add_product(linearisation, parts, total)
        return sum_over(self.process_group, product)

    @torch.no_grad()
    def gauss_newton_form(self, direction: Tensor) -> float:
        """Return ``v^T G v`` of the data loss.

        Parameters
        ----------
        direction : Tensor of shape (P,)

        Returns
        -------
        float
        """
        parts = self.selection.split(direction)
        return self._sum_of_forms(
            (linearisation, linearisation.jacobian_product(parts))
            for linearisation in self._first_order()
        )

    def last_tangents(self) -> list[Tensor] | None:
        """Return ``J v`` of the last Hessian product, at every chunk, `v` as `unscaled` gives it.

        Returns
        -------
        list of Tensor of shape (n, C), or None
            None where a chunk's state was not kept, or its route does not come by them.
        """
        found = [part.tangents for part in self._kept if part.tangents is not None]
        return found if len(found) == self.n_chunks else None

    @torch.no_grad()
    def gauss_newton_form_of(self, tangents: list[Tensor]) -> float:
        """Return ``v^T G v`` of the data loss, given ``J v``.

        Parameters
        ----------
        tangents : list of Tensor of shape (n, C)
            Sums of what `last_tangents` returned.

        Returns
        -------
        float
        """
        return self._sum_of_forms(zip(self._kept, tangents, strict=True))

    def _sum_of_forms(self, pairs: Iterable[tuple[Linearisation, Tensor]]) -> float:
        form = torch.zeros((), dtype=torch.float64, device=self.device)
        for linearisation, tangents in pairs:
            form += (tangents * linearisation.curve(tangents)).double().sum()
        return float(sum_over(self.process_group, form))

    @torch.no_grad()
    def gradient(self) -> Tensor:
        """Gradient of the data loss in the selected parameters.

        Returns
        -------
        Tensor of shape (size,)
        """
        gradient = torch.zeros(self.size, dtype=self.dtype, device=self.device)
        for linearisation in self.linearisations():
            linearisation.add_gradient(self.selection.split(gradient))
        return sum_over(self.process_group, gradient)

    def linearisations(self) -> Iterator[Linearisation]:
        """Yield the derivatives at every chunk, kept or recomputed.

        Yields
        ------
        Linearisation
        """
        yield from self._kept
        start = sum(linearisation.outputs.shape[0] for linearisation in self._kept)
        for chunk in self._rows.chunks(self.batch_size, start):
            linearisation = self._linearise(chunk)
            linearisation.losses = finite_losses(
                linearisation.loss, linearisation.outputs, linearisation.chunk
            )
            yield linearisation
            # Its size is known only now: states are built at the first use.
            if self._capacity is None:
                state = max(linearisation.state_bytes(), 1)
                # One more chunk is in work while products run, with its intermediate results.
                self._capacity = max(self.memory_budget // state - 2, 0)
            if len(self._kept) < self._capacity and chunk.start == self._n_kept_rows():
                self._kept.append(linearisation)
            del linearisation  # or two states would be alive while the next one is built

    def _first_order(self) -> Iterator[Linearisation]:
        """Yield linearisations without growing the kept ones by what first order needs."""
        if self.route == "traced":  # where every kind of product keeps results of its own
            return (self._linearise(chunk) for chunk in self.chunks())
        return self.linearisations()

    def _n_kept_rows(self) -> int:
        return sum(linearisation.outputs.shape[0] for linearisation in self._kept)

    def _size(self) -> int:
        """Check the operator's own settings and return its number of rows and columns."""
        return self.selection.size

    @abstractmethod
    def _add_product(self, linearisation: Linearisation, direction: Parts, total: Parts) -> None:
        """Add one chunk's part of the product."""

    def _check(self, vector: Tensor) -> None:
        if vector.shape != (self.size,) or vector.dtype != self.dtype:
            raise ValueError(
                f"vector has shape {tuple(vector.shape)} and dtype {vector.dtype}; expected "
                f"({self.size},) and {self.dtype}"
            )


def _named_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()
