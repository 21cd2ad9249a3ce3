"""Trace a function once, run what depends on fixed arguments once, replay the rest."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

Groups = Sequence[Sequence[Tensor]]


class Replay:
    """A traced function whose arguments come in a fixed group and several varying groups.

    The function returns one tuple of tensors a varying group, and each tuple may depend on
    the fixed arguments and on its own group only. The trace is cut in two: operations that
    see fixed arguments alone, run by `keep`, and for every group the operations that remain,
    run by `replay` on what was kept. The trace is valid for all arguments of the same shapes.

    Parameters
    ----------
    function : callable
        ``function(fixed, *groups) -> tuple of tuples of tensors``.
    fixed : sequence of Tensor
        Example of the fixed arguments.
    groups : sequence of sequences of Tensor
        Examples of the varying arguments.
    """

    def __init__(self, function: Callable[..., Any], fixed: Sequence[Tensor], groups: Groups):
        sizes = [len(fixed), *(len(group) for group in groups)]

        def flat(*arguments: Tensor) -> Any:
            split, start = [], 0
            for size in sizes:
                split.append(arguments[start : start + size])
                start += size
            return function(*split)

        # Cloned, because a tracer knows its arguments by identity.
        examples = [tensor.clone() for tensors in (fixed, *groups) for tensor in tensors]
        # Functionalised, because an operation in place could write into what is kept.
        traced = make_fx(torch.func.functionalize(flat))(*examples)
        traced.graph.eliminate_dead_code()
        inputs = [node for node in traced.graph.nodes if node.op == "placeholder"]
        results = next(node for node in traced.graph.nodes if node.op == "output").args[0]
        varying = set(inputs[len(fixed) :])
        for node in traced.graph.nodes:
            if node.op != "output" and not varying.isdisjoint(node.all_input_nodes):
                varying.add(node)

        def is_fixed(node: fx.Node) -> bool:
            return node not in varying

        self._parts = []
        kept: list[fx.Node] = []
        start = len(fixed)
        for group, wanted in zip(groups, results, strict=True):
            own = inputs[start : start + len(group)]
            start += len(group)
            needed = _ancestors(wanted, stop=is_fixed)
            border = [node for node in needed if is_fixed(node) and node not in own]
            inner = [node for node in needed if not is_fixed(node) and node not in own]
            positions = []
            for node in border:
                if node not in kept:
                    kept.append(node)
                positions.append(kept.index(node))
            self._parts.append((_extract(traced, [*border, *own], inner, wanted), positions))
        body = _ancestors(kept, stop=lambda node: node.op == "placeholder")
        inner = [node for node in body if node.op != "placeholder"]
        self._fixed = _extract(traced, inputs[: len(fixed)], inner, kept)

    def keep(self, fixed: Sequence[Tensor]) -> list[Tensor]:
        """Run what depends on the fixed arguments alone.

        Parameters
        ----------
        fixed : sequence of Tensor

        Returns
        -------
        list of Tensor
            What `replay` needs.
        """
        with torch.no_grad():
            return list(self._fixed(*fixed))

    def replay(self, group: int, kept: list[Tensor], arguments: Sequence[Tensor]) -> list[Tensor]:
        """Run what depends on one varying group.

        Parameters
        ----------
        group : int
            Which group.
        kept : list of Tensor
            What `keep` returned.
        arguments : sequence of Tensor

        Returns
        -------
        list of Tensor
        """
        program, positions = self._parts[group]
        with torch.no_grad():
            return list(program(*[kept[position] for position in positions], *arguments))


def _ancestors(nodes: Sequence[Any], stop: Callable[[fx.Node], bool]) -> list[fx.Node]:
    """Return the nodes that `nodes` are computed from, in order, not looking behind `stop`."""
    found: set[fx.Node] = set()
    pending = [node for node in nodes if isinstance(node, fx.Node)]
    while pending:
        node = pending.pop()
        if node not in found:
            found.add(node)
            if not stop(node):
                pending.extend(node.all_input_nodes)
    return [node for graph in {n.graph for n in found} for node in graph.nodes if node in found]


def _extract(
    traced: fx.GraphModule, inputs: list[fx.Node], body: list[fx.Node], outputs: Sequence[Any]
) -> fx.GraphModule:
    graph = fx.Graph()
    copies = {node: graph.placeholder(f"kept_{i}") for i, node in enumerate(inputs)}
    for node in body:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(tuple(fx.map_arg(node, copies.__getitem__) for node in outputs))
    return fx.GraphModule(traced, graph)
