"""Lipschitz constants through the graph of a network, from its input to its output."""

import copy
import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from sharpfit.jacobian.lipschitz.errors import CertificateError
from sharpfit.jacobian.lipschitz.functional import FunctionCall, Operand
from sharpfit.jacobian.lipschitz.functions import find_function_rule, modifies_in_place
from sharpfit.jacobian.lipschitz.fusion import fused_constant
from sharpfit.jacobian.lipschitz.registry import apply_rule, find_rule, require_rule
from sharpfit.jacobian.lipschitz.rounding import product_up

# Samples in the batch that finds the shapes: a number no layer has by chance, so that a
# dimension of this size is the batch.
_BATCH_SIZE = 11
# What a network may ask of a tensor without depending on its entries.
_SHAPE_ATTRIBUTES = {"shape", "ndim", "dtype", "device"}
_SHAPE_METHODS = {"size", "dim", "ndimension", "numel", "is_cuda", "is_floating_point"}

_LAZY_TENSORS = (nn.parameter.UninitializedParameter, nn.parameter.UninitializedBuffer)


@dataclass(frozen=True)
class LayerRule:
    """The rule used for one layer or function call.

    Attributes
    ----------
    name : str
        Path of the layer in the network, or name of the call.
    kind : str
        Type of the layer, or name of the function.
    rule : str
        What bounds its Lipschitz constant.
    constant : float or None
        Its Lipschitz constant; None where several branches meet.
    cumulative : float
        Lipschitz constant of the network from its input up to and including this layer.
    """

    name: str
    kind: str
    rule: str
    constant: float | None
    cumulative: float


class _LeafTracer(fx.Tracer):
    """Looks inside every module but torch's own layers and those that have a rule."""

    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        return find_rule(module) is not None or super().is_leaf_module(module, qualified_name)


def trace(module: nn.Module) -> fx.GraphModule:
    """Trace a copy of a network in evaluation mode.

    Parameters
    ----------
    module : torch.nn.Module
        Not modified.

    Returns
    -------
    torch.fx.GraphModule

    Raises
    ------
    CertificateError
        If the network cannot be copied or branches on the values of its input, or a layer has
        hooks, a replaced forward or lazy parameters.
    """
    kind = type(module).__name__
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if isinstance(
            value, nn.parameter.UninitializedParameter | nn.parameter.UninitializedBuffer
        ):
            raise CertificateError(f"{name!r} is not initialised; run the network once on a batch.")
    for name, layer in module.named_modules():
        if layer._forward_hooks or layer._forward_pre_hooks:
            raise CertificateError(
                f"layer {name!r} of type {type(layer).__name__} has forward hooks, which may "
                "change what it computes; remove them (weight_norm and spectral_norm of "
                "torch.nn.utils.parametrizations work without hooks)."
            )
        if "forward" in vars(layer):
            raise CertificateError(
                f"the forward of layer {name!r} of type {type(layer).__name__} was replaced; put "
                "what it does now into a class of its own."
            )
    copied = copy.deepcopy(module).eval()
    tracer = _LeafTracer()
    if tracer.is_leaf_module(copied, ""):
        # A layer by itself is taken as one piece, like a layer inside a network.
        copied = nn.Sequential(copied)
    defaults = [
        (name, parameter.default)
        for name, parameter in list(inspect.signature(copied.forward).parameters.items())[1:]
        if parameter.default is not inspect.Parameter.empty
    ]
    try:
        graph = tracer.trace(copied, concrete_args=dict(defaults) or None)
    except (fx.proxy.TraceError, TypeError, ValueError, RuntimeError) as error:
        raise CertificateError(
            f"the graph of {kind} could not be traced ({error}); register a rule for the part "
            "that depends on the values of its input with register_lipschitz."
        ) from error
    return fx.GraphModule(tracer.root, graph)


class LipschitzInterpreter(fx.Interpreter):
    """Runs a traced network on zeros for the shapes, and bounds every node on the way.

    Attributes
    ----------
    constants : dict of torch.fx.Node to float
        Lipschitz constant of every node as a function of the input; 0 for constants.
    shapes : dict of torch.fx.Node to tuple of int
        Shape of one sample for every node that is a tensor.
    layers : dict of torch.fx.Node to torch.nn.Module
        The layer called, or the layer that equals the function called, where there is one.
    rules : list of LayerRule
        In the order of execution.
    """

    def __init__(self, traced: fx.GraphModule, input_shape: tuple[int, ...]):
        super().__init__(traced, garbage_collect_values=False)
        # Errors name the layer themselves.
        self.extra_traceback = False
        self.input_shape = input_shape
        self.constants: dict[fx.Node, float] = {}
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}
        self.layers: dict[fx.Node, nn.Module] = {}
        self.rules: list[LayerRule] = []

    def bound(self) -> float:
        """Return the Lipschitz constant of the output as a function of the input."""
        floating = [p for p in self.module.parameters() if p.is_floating_point()]
        like = floating[0] if floating else torch.zeros(())
        zeros = torch.zeros((_BATCH_SIZE, *self.input_shape), dtype=like.dtype, device=like.device)
        with torch.no_grad():
            self.run(zeros)
        return self.constants[self.output_node]

    @property
    def output_node(self) -> fx.Node:
        """The node whose value the network returns."""
        returned = next(node for node in self.graph.nodes if node.op == "output").args[0]
        if not isinstance(returned, fx.Node):
            raise CertificateError("the network must return one tensor, not a collection")
        return returned

    def varying_inputs(self, node: fx.Node) -> list[fx.Node]:
        """Return the inputs of a node that depend on the input of the network."""
        return [source for source in node.all_input_nodes if self.constants[source] > 0.0]

    def run_node(self, node: fx.Node) -> Any:
        """Compute the value of a node for its shape, and its Lipschitz constant."""
        if node.op == "call_module":
            require_rule(self.module.get_submodule(str(node.target)), _label(node))
        try:
            value = super().run_node(node)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise CertificateError(
                f"{_label(node)!r} does not run on samples of input_shape={self.input_shape}: "
                f"{str(error).splitlines()[0]}"
            ) from error
        self.constants[node] = self._constant(node, value)
        if isinstance(value, Tensor):
            self.shapes[node] = tuple(value.shape[1:])
        return value

    def values_at(self, node: fx.Node, inputs: Tensor) -> Tensor:
        """Value of a node for given inputs, computed in float64.

        Parameters
        ----------
        node : torch.fx.Node
        inputs : Tensor of shape (n_samples, ...)

        Returns
        -------
        Tensor of shape (n_samples, ...), float64, on the CPU
        """
        interpreter = fx.Interpreter(
            copy.deepcopy(self.module).to(device="cpu", dtype=torch.float64),
            garbage_collect_values=False,
        )
        with torch.no_grad():
            interpreter.run(inputs.detach().to(device="cpu", dtype=torch.float64))
        return next(value for n, value in interpreter.env.items() if n.name == node.name)

    def _constant(self, node: fx.Node, value: Any) -> float:
        if node.op == "output":
            return 0.0
        if node.op == "placeholder":
            return 1.0 if node is next(iter(self.graph.nodes)) else 0.0
        varying = self.varying_inputs(node)
        if not varying or _asks_for_shape(node):
            return 0.0
        self._refuse_aliasing(node)
        if node.op == "call_module":
            constant = self._call_layer(node, varying)
        else:
            constant = self._call_function(node, value)
        if isinstance(value, Tensor):
            if not value.is_floating_point():
                raise CertificateError(
                    f"{_label(node)!r} turns its input into {value.dtype}: its values jump"
                )
            if value.shape[:1] != (_BATCH_SIZE,):
                raise CertificateError(
                    f"{_label(node)!r} mixes the batch dimension, the first one, with others"
                )
        return constant

    def _call_layer(self, node: fx.Node, varying: list[fx.Node]) -> float:
        layer = self.module.get_submodule(str(node.target))
        if len(node.all_input_nodes) > 1:
            raise CertificateError(
                f"layer {_label(node)!r} of type {type(layer).__name__} takes several inputs; "
                "layers of one input are supported."
            )
        (source,) = varying
        factor, rule = apply_rule(layer, self.shapes[source], _label(node))
        cumulative = product_up(self.constants[source], factor)
        if source in self.layers:
            (start,) = self.varying_inputs(source)
            fused = fused_constant(self.layers[source], layer, self.shapes[start])
            if fused is not None:
                cumulative = min(cumulative, product_up(self.constants[start], fused))
                rule += ", multiplied into the weight before"
        self.layers[node] = layer
        self._record(node, type(layer).__name__, rule, factor, cumulative)
        return cumulative

    def _call_function(self, node: fx.Node, value: Any) -> float:
        name = node.target if isinstance(node.target, str) else node.target.__name__
        rule = find_function_rule(node.target)
        source = node.all_input_nodes[0]
        if node.target is getattr and isinstance(self.env[source], tuple):
            # The values of a pair (values, indices); indices are refused by their dtype.
            return self.constants[source]
        if rule is None:
            raise CertificateError(
                f"no Lipschitz rule is known for the function {name!r} called as {node.name!r}; "
                "put it into a module of its own and register that with register_lipschitz."
            )

        def operand(source: fx.Node) -> Any:
            constant = self.constants[source]
            return Operand(self.env[source], constant) if constant > 0.0 else self.env[source]

        call = FunctionCall(
            name, fx.node.map_arg(node.args, operand), fx.node.map_arg(node.kwargs, operand), value
        )
        try:
            bound = rule(call)
        except CertificateError as error:
            raise CertificateError(f"function {name!r} called as {node.name!r}: {error}") from error
        if bound.layer is not None:
            self.layers[node] = bound.layer
        self._record(node, name, bound.rule, bound.factor, bound.constant)
        return bound.constant

    def _record(
        self, node: fx.Node, kind: str, rule: str, factor: float | None, cumulative: float
    ) -> None:
        self.rules.append(LayerRule(_label(node), kind, rule, factor, cumulative))

    def _refuse_aliasing(self, node: fx.Node) -> None:
        """Refuse an operation that overwrites a value which is used elsewhere, too."""
        if node.op == "call_module":
            layer = self.module.get_submodule(str(node.target))
            in_place = bool(getattr(layer, "inplace", False))
        else:
            in_place = modifies_in_place(node.target, bool(node.kwargs.get("inplace", False)))
        if in_place and any(len(source.users) > 1 for source in node.all_input_nodes[:1]):
            raise CertificateError(
                f"{_label(node)!r} overwrites a value that is also used elsewhere; use the form "
                "that is not in place"
            )


def _label(node: fx.Node) -> str:
    return str(node.target) if node.op == "call_module" else node.name


def _asks_for_shape(node: fx.Node) -> bool:
    if node.op == "call_method":
        return node.target in _SHAPE_METHODS
    return node.target is getattr and node.args[1] in _SHAPE_ATTRIBUTES
