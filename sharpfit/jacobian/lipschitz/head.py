"""The dense layer at the end of a network, off which margins are read."""

from typing import cast

from torch import Tensor, fx, nn

from sharpfit.jacobian.lipschitz.dense import largest_row_difference, linear_constant
from sharpfit.jacobian.lipschitz.functional import linear_rule
from sharpfit.jacobian.lipschitz.functions import find_function_rule
from sharpfit.jacobian.lipschitz.graph import LipschitzInterpreter
from sharpfit.jacobian.lipschitz.registry import find_rule
from sharpfit.jacobian.lipschitz.reshaping import dropout_constant
from sharpfit.jacobian.lipschitz.rounding import product_up, root_up


def find_head(interpreter: LipschitzInterpreter) -> tuple[fx.Node, Tensor] | None:
    """Return the features of the dense layer that ends a network, and its weight.

    Parameters
    ----------
    interpreter : LipschitzInterpreter
        After its run.

    Returns
    -------
    tuple of (torch.fx.Node, Tensor of shape (n_outputs, n_features)) or None
        None where the network ends otherwise.
    """
    node = interpreter.output_node
    while node.op == "call_module":
        layer = interpreter.module.get_submodule(str(node.target))
        source = node.all_input_nodes[0]
        if find_rule(layer) is linear_constant and len(interpreter.shapes[source]) == 1:
            return source, cast(nn.Linear, layer).weight
        if not (isinstance(layer, nn.Identity) or find_rule(layer) is dropout_constant):
            return None
        node = source
    if node.op == "call_function" and find_function_rule(node.target) is linear_rule:
        source, weight = (cast(fx.Node, argument) for argument in node.args[:2])
        if len(interpreter.shapes[source]) == 1:
            return source, interpreter.env[weight]
    return None


def margin_constant(interpreter: LipschitzInterpreter) -> float:
    """Lipschitz constant of the margin, by the product of norms.

    Behind a dense head the largest distance of two rows of its weight times the constant of the
    features; otherwise, as a difference of two logits is at most root two times as steep as the
    logits, root two times their constant.

    Parameters
    ----------
    interpreter : LipschitzInterpreter
        After its run.

    Returns
    -------
    float
    """
    output = interpreter.output_node
    constant = interpreter.constants[output]
    n_outputs = 1
    for size in interpreter.shapes.get(output, ()):
        n_outputs *= size
    if n_outputs == 1:
        return constant
    head = find_head(interpreter)
    general = product_up(root_up(2.0), constant)
    if head is None:
        return general
    source, weight = head
    return min(general, product_up(interpreter.constants[source], largest_row_difference(weight)))
