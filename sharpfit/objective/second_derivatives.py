"""Whether a graph that PyTorch built of a derivative can be differentiated itself."""

from collections.abc import Iterator

from torch import Tensor, nn
from torch.autograd.graph import Node

_NO_DERIVATIVE = "torch::autograd::Error"


def graph_nodes(result: Tensor) -> Iterator[Node]:
    """Yield the nodes of a result's graph, each once.

    Parameters
    ----------
    result : Tensor

    Yields
    ------
    Node
    """
    pending, seen = [result.grad_fn], set()
    while pending:
        node = pending.pop()
        if node is not None and node not in seen:
            seen.add(node)
            pending.extend(following for following, _ in node.next_functions)
            yield node


def require_second_derivatives(module: nn.Module, derivative: Tensor) -> None:
    """Refuse a module with operations that are known to have no second derivative.

    PyTorch leaves paths through them out of a derivative without a word where other paths lead to
    what is differentiated in, or where none has to.

    Parameters
    ----------
    module : torch.nn.Module
        For the message.
    derivative : Tensor
        With the graph of a first derivative of its outputs.

    Raises
    ------
    ValueError
    """
    if any(node.name() == _NO_DERIVATIVE for node in graph_nodes(derivative)):
        raise ValueError(
            f"module {type(module).__name__} uses an operation that PyTorch differentiates only "
            "once (once_differentiable), and this needs two derivatives; give it a backward pass "
            "that can be differentiated"
        )
