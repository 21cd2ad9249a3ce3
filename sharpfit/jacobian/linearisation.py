"""A module linearised in its inputs: products with the Jacobians of a chunk of rows."""

import copy
from collections import OrderedDict
from collections.abc import Iterator
from numbers import Integral
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from sharpfit.jacobian.arguments import check_positive
from sharpfit.jacobian.faster_layers import replace_slow_layers
from sharpfit.objective.first_outputs import first_outputs, require_rows_apart
from sharpfit.objective.second_derivatives import require_second_derivatives

# Larger buffers than these cost page faults on a processor; a GPU wants larger chunks.
_CHUNK_BYTES = {"cpu": 3 * 2**24, "cuda": 2**31}
_MAX_CHUNK = 1024
# Up to this smaller side, a whole Jacobian costs about as many products as an iteration.
_EXACT_SIDE = 64
_PROBE_ROWS = 8  # on which a module is tried

Method = Literal["auto", "exact", "krylov"]


class FrozenModule:
    """A private copy of a module in evaluation mode, a function of its inputs alone.

    The copy shares the weights of the original, which are only read.

    Parameters
    ----------
    module : torch.nn.Module
        Maps a batch of shape (n, ...) to outputs of shape (n, C) or (n,). It is copied;
        the copy is put in evaluation mode and its parameters are held constant.
    inputs : Tensor of shape (n, ...)
        All rows that will be used; checked here, before any long work.

    Attributes
    ----------
    module : torch.nn.Module
        The copy.
    n_outputs : int
        Number `C` of outputs.
    n_features : int
        Number `d` of input entries of a row.

    Raises
    ------
    TypeError
        If `module` is no module or `inputs` no floating tensor.
    ValueError
        If there are no rows, a value is not finite, dtypes differ, or the module does not run
        on the inputs or return one row of outputs for each row of them.
    """

    def __init__(self, module: nn.Module, inputs: Tensor):
        if not isinstance(module, nn.Module):
            raise TypeError(
                f"module must be a torch.nn.Module, got {type(module).__name__}; "
                "take it from an estimator with sharpfit.bridge.as_problem(estimator, X).module"
            )
        _check_inputs(module, inputs)
        self.module = _frozen_copy(module)
        replace_slow_layers(self.module)
        probe = inputs[:_PROBE_ROWS].detach()
        outputs = first_outputs(self.module, probe)
        if not isinstance(outputs, Tensor) or outputs.ndim not in (1, 2):
            got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise ValueError(
                f"module must return a tensor of shape (n, C), got {got}; wrap it so that its "
                "outputs are flattened"
            )
        if outputs.shape[0] != probe.shape[0]:
            raise ValueError(
                f"module returned {outputs.shape[0]} rows for {probe.shape[0]} rows of inputs; "
                "each row of inputs must give one row of outputs"
            )
        require_rows_apart(self.module, probe, outputs)
        self.n_outputs = outputs.shape[1] if outputs.ndim == 2 else 1
        self.n_features = probe[0].numel()

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return outputs of shape (n, C)."""
        outputs = self.module(inputs)
        return outputs if outputs.ndim == 2 else outputs.unsqueeze(1)

    def iterates(self, method: Method) -> bool:
        """Say whether norms are to be found by iteration rather than from whole Jacobians.

        Parameters
        ----------
        method : {"auto", "exact", "krylov"}

        Returns
        -------
        bool
        """
        if method not in get_args(Method):
            raise ValueError(f"method must be one of {get_args(Method)}, got {method!r}")
        if method == "auto":
            return min(self.n_outputs, self.n_features) > _EXACT_SIDE
        return method == "krylov"

    def product_bytes(self, inputs: Tensor) -> int:
        """Estimate the bytes that products with the Jacobian of one row take.

        Parameters
        ----------
        inputs : Tensor of shape (n, ...)

        Returns
        -------
        int
        """
        return 2 * self.graph_bytes(inputs) + 6 * inputs.element_size() * self.n_features

    def graph_bytes(self, inputs: Tensor) -> int:
        """Count the bytes that a backward pass keeps for each row.

        Parameters
        ----------
        inputs : Tensor of shape (n, ...)

        Returns
        -------
        int
        """
        probe = inputs[:2].detach().requires_grad_()
        weights = [*self.module.parameters(), *self.module.buffers()]
        shared = {tensor.untyped_storage().data_ptr() for tensor in weights}
        kept: dict[int, int] = {}

        def count(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage().data_ptr()
            if storage not in shared:
                kept[storage] = tensor.numel() * tensor.element_size()
            return tensor

        with (
            torch.enable_grad(),
            torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor),
        ):
            self.module(probe)
        return sum(kept.values()) // len(probe)


def chunks(
    inputs: Tensor, batch_size: int | str, memory_budget: int, *, row_bytes: int
) -> Iterator[slice]:
    """Slices of rows whose work fits the memory budget.

    Parameters
    ----------
    inputs : Tensor of shape (n, ...)
    batch_size : int or "auto"
        Rows of a chunk; "auto" keeps a chunk's work in cache and in the budget.
    memory_budget : int
        Bytes that one chunk may use.
    row_bytes : int
        Bytes that the work on one row takes.

    Yields
    ------
    slice
    """
    check_positive("memory_budget", memory_budget, "in bytes")
    if batch_size == "auto":
        available = min(memory_budget, _CHUNK_BYTES.get(inputs.device.type, 2**24))
        size = max(1, min(_MAX_CHUNK, available // max(row_bytes, 1)))
        size = -(-len(inputs) // -(-len(inputs) // size))  # no smaller chunk at the end
    elif isinstance(batch_size, Integral) and batch_size > 0:
        size = int(batch_size)
    else:
        raise ValueError(f"batch_size must be a positive int or 'auto', got {batch_size!r}")
    for start in range(0, len(inputs), size):
        yield slice(start, min(start + size, len(inputs)))


def seeded_generator(random_state: int, device: torch.device) -> torch.Generator:
    """Return a generator of its own.

    Parameters
    ----------
    random_state : int
        Seed.
    device : torch.device

    Returns
    -------
    torch.Generator

    Raises
    ------
    TypeError
        If the seed is no integer.
    """
    if not isinstance(random_state, Integral):
        raise TypeError(f"random_state must be an int, got {random_state!r}")
    return torch.Generator(device=device).manual_seed(int(random_state))


class Linearisation:
    """The Jacobians of a module at a chunk of rows, by their products with vectors.

    Both products reuse one forward pass: the transposed one is a backward pass, and the
    plain one differentiates the backward pass in its (dummy) cotangent.

    Parameters
    ----------
    module : FrozenModule
    inputs : Tensor of shape (n, ...)

    Attributes
    ----------
    inputs : Tensor of shape (n, ...)
    outputs : Tensor of shape (n, C)
        Outputs of the module.
    """

    def __init__(self, module: FrozenModule, inputs: Tensor):
        self.inputs = inputs.detach().requires_grad_()
        self._module = module
        with torch.enable_grad():
            self._outputs = module(self.inputs)
        self.outputs = self._outputs.detach()
        self._dummy: Tensor | None = None
        self._pulled: Tensor | None = None

    def transposed_product(self, cotangents: Tensor) -> Tensor:
        """Products of the transposed Jacobians with one vector a row.

        Parameters
        ----------
        cotangents : Tensor of shape (n, C)

        Returns
        -------
        Tensor of the inputs' shape
        """
        if not self._outputs.requires_grad:
            return torch.zeros_like(self.inputs)
        (gradient,) = torch.autograd.grad(
            self._outputs, self.inputs, cotangents, retain_graph=True, materialize_grads=True
        )
        return gradient

    def product(self, tangents: Tensor) -> Tensor:
        """Products of the Jacobians with one vector a row.

        Parameters
        ----------
        tangents : Tensor of the inputs' shape

        Returns
        -------
        Tensor of shape (n, C)
        """
        if not self._outputs.requires_grad:
            return torch.zeros_like(self.outputs)
        if self._dummy is None:
            self._dummy = torch.zeros_like(self.outputs, requires_grad=True)
            with torch.enable_grad():
                (self._pulled,) = torch.autograd.grad(
                    self._outputs,
                    self.inputs,
                    self._dummy,
                    create_graph=True,
                    materialize_grads=True,
                )
            require_second_derivatives(self._module.module, self._pulled)
        assert self._pulled is not None
        if not self._pulled.requires_grad:
            return torch.zeros_like(self.outputs)
        (pushed,) = torch.autograd.grad(
            self._pulled, self._dummy, tangents, retain_graph=True, materialize_grads=True
        )
        return pushed


def check_finite(products: Tensor) -> None:
    """Refuse products with Jacobians that are not numbers.

    Parameters
    ----------
    products : Tensor

    Raises
    ------
    ValueError
        If their sum is not finite.
    """
    if not bool(torch.isfinite(products.sum())):
        raise ValueError(
            "the module's Jacobian contains NaN or infinity; its weights have probably diverged, "
            "train it with a smaller learning rate"
        )


def _frozen_copy(module: nn.Module) -> nn.Module:
    """Copy a module, its buffers too, around the weights of the original, held constant."""
    copies: dict[int, object] = {
        id(parameter): nn.Parameter(parameter.detach(), requires_grad=False)
        for parameter in module.parameters()
    }
    # A dozen empty registries of hooks a layer are half of what there is to copy.
    for part in module.modules():
        for value in vars(part).values():
            if type(value) is OrderedDict and not value:
                copies[id(value)] = OrderedDict()
    return copy.deepcopy(module, copies).eval()


def _check_inputs(module: nn.Module, inputs: Tensor) -> None:
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        got = inputs.dtype if isinstance(inputs, Tensor) else type(inputs).__name__
        raise TypeError(
            f"inputs must be a tensor of a floating dtype, got {got}; a Jacobian exists only "
            "for real inputs: convert them with torch.as_tensor(X, dtype=torch.float32)"
        )
    if inputs.ndim < 2 or len(inputs) == 0:
        raise ValueError(
            f"inputs must have shape (n, ...) with at least one row, got {tuple(inputs.shape)}"
        )
    if inputs.is_inference():
        raise ValueError(
            "inputs were made in torch.inference_mode, where no derivatives exist; pass "
            "inputs.clone(), called outside of it"
        )
    for name, layer in module.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is None:
            raise ValueError(
                f"layer {name!r} normalises by the statistics of the batch, so that a row's "
                "outputs depend on the other rows; it needs track_running_stats=True"
            )
    for parameter in module.parameters():
        if parameter.device != inputs.device:
            raise ValueError(
                f"inputs are on {inputs.device} and the module's parameters on {parameter.device}; "
                "move one of them, with .to(device)"
            )
        if parameter.is_floating_point() and parameter.dtype != inputs.dtype:
            raise ValueError(
                f"inputs are {inputs.dtype} and the module's parameters {parameter.dtype}; "
                f"convert one of them, for example with inputs.to({parameter.dtype}); nothing is "
                "cast silently"
            )
    # The sum is finite unless an entry is not, or it overflows.
    if not bool(torch.isfinite(inputs.sum())) and not bool(torch.isfinite(inputs).all()):
        raise ValueError("inputs contain NaN or infinity; remove or impute these rows first")
