"""Logit margins of a batch: their values, rivals and gradients."""

import torch
from torch import Tensor, nn

from sharpfit.jacobian.arguments import check_tensor
from sharpfit.jacobian.linearisation import FrozenModule, Linearisation, chunks
from sharpfit.jacobian.surroundings import in_plain_mode


def predicted_classes(logits: Tensor) -> Tensor:
    """Class numbers of the largest logits; for one logit, 1 where it is positive.

    Parameters
    ----------
    logits : Tensor of shape (n, C)

    Returns
    -------
    Tensor of shape (n,), int64
    """
    if logits.shape[1] == 1:
        return (logits[:, 0] > 0).long()
    return logits.argmax(dim=1)


def check_classes(targets: Tensor, inputs: Tensor, n_outputs: int) -> None:
    """Refuse targets that are not one class number for each row of inputs.

    Parameters
    ----------
    targets : Tensor
    inputs : Tensor of shape (n, ...)
    n_outputs : int
        Number of logits; a single one tells two classes apart.

    Raises
    ------
    TypeError, ValueError
        With what was given.
    """
    check_tensor("targets", targets)
    if targets.ndim != 1 or targets.is_floating_point():
        raise ValueError(
            f"targets must be class numbers of shape (n,) to take margins from, got "
            f"{targets.dtype} of shape {tuple(targets.shape)}"
        )
    if len(targets) != len(inputs):
        raise ValueError(f"targets has {len(targets)} rows, inputs has {len(inputs)}")
    n_classes = max(n_outputs, 2)
    if not bool(((targets >= 0) & (targets < n_classes)).all()):
        raise ValueError(
            f"targets must be class numbers from 0 to {n_classes - 1}, got {int(targets.min())} to "
            f"{int(targets.max())}; encode the classes, for example with sklearn's LabelEncoder"
        )


def margins_and_rivals(logits: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Margins of `classes` to the best other class, and which one that is.

    Parameters
    ----------
    logits : Tensor of shape (n, C)
    classes : Tensor of shape (n,)

    Returns
    -------
    margins : Tensor of shape (n,)
        ``logits[y] - max of the others``; for one logit, the logit signed by the class.
    rivals : Tensor of shape (n,)
        Class number of the runner-up.
    """
    if logits.shape[1] == 1:
        return logits[:, 0] * (2 * classes - 1).to(logits.dtype), 1 - classes
    own = logits.gather(1, classes.unsqueeze(1))
    others = logits.scatter(1, classes.unsqueeze(1), -torch.inf)
    best, rivals = others.max(dim=1)
    return own.squeeze(1) - best, rivals


def margin_cotangents(logits: Tensor, classes: Tensor, rivals: Tensor) -> Tensor:
    """Differentiate the margins in the logits.

    Parameters
    ----------
    logits : Tensor of shape (n, C)
    classes, rivals : Tensor of shape (n,)

    Returns
    -------
    Tensor of shape (n, C)
    """
    if logits.shape[1] == 1:
        return (2 * classes - 1).to(logits.dtype).unsqueeze(1)
    cotangents = torch.zeros_like(logits)
    cotangents.scatter_(1, classes.unsqueeze(1), 1.0)
    return cotangents.scatter_(1, rivals.unsqueeze(1), -1.0)


def margin_differences(jacobians: Tensor, classes: Tensor, rivals: Tensor) -> tuple[Tensor, Tensor]:
    """Margin gradients to the runner-up, and the largest norm over all other classes.

    Parameters
    ----------
    jacobians : Tensor of shape (n, C, d)
        Of the logits.
    classes, rivals : Tensor of shape (n,)

    Returns
    -------
    gradients : Tensor of shape (n, d)
    largest : Tensor of shape (n,), float64
        Largest Euclidean norm of a logit difference's gradient.
    """
    if jacobians.shape[1] == 1:
        gradients = jacobians[:, 0] * (2 * classes - 1).to(jacobians.dtype).unsqueeze(1)
        return gradients, torch.linalg.vector_norm(gradients.double(), dim=1)
    rows = torch.arange(len(jacobians), device=jacobians.device)
    differences = jacobians[rows, classes].unsqueeze(1) - jacobians
    largest = torch.linalg.vector_norm(differences.double(), dim=2).amax(dim=1)
    return differences[rows, rivals], largest


def largest_difference_norms(linearisation: Linearisation, classes: Tensor) -> Tensor:
    """Largest gradient norm over all logit differences, without forming Jacobians.

    Takes as many products as there are outputs or inputs, whichever are fewer, and the memory of
    a few of them.

    Parameters
    ----------
    linearisation : Linearisation
        Of the logits.
    classes : Tensor of shape (n,)
        Classes that the others are subtracted from.

    Returns
    -------
    Tensor of shape (n,), float64
        For one logit, the norm of its gradient.
    """
    outputs, inputs = linearisation.outputs, linearisation.inputs
    n_outputs, n_features = outputs.shape[1], inputs[0].numel()
    if n_outputs == 1:
        gradient = linearisation.transposed_product(torch.ones_like(outputs))
        return torch.linalg.vector_norm(gradient.flatten(1).double(), dim=1)
    own = classes.unsqueeze(1)
    if n_features < n_outputs:
        squares = torch.zeros_like(outputs, dtype=torch.float64)
        tangent = outputs.new_zeros(len(inputs), n_features)
        for feature in range(n_features):
            tangent[:, feature] = 1.0
            column = linearisation.product(tangent.view_as(inputs))
            squares += (column.gather(1, own) - column).double().square()
            tangent[:, feature] = 0.0
        return squares.amax(dim=1).sqrt()
    cotangent = torch.zeros_like(outputs)
    own_gradient = linearisation.transposed_product(cotangent.scatter(1, own, 1.0))
    largest = torch.zeros(len(inputs), dtype=torch.float64, device=inputs.device)
    for other in range(n_outputs):
        cotangent[:, other] = 1.0
        difference = own_gradient - linearisation.transposed_product(cotangent)
        norms = torch.linalg.vector_norm(difference.flatten(1).double(), dim=1)
        torch.maximum(largest, norms, out=largest)
        cotangent[:, other] = 0.0
    return largest


@in_plain_mode
def margin_gradients(
    module: nn.Module,
    inputs: Tensor,
    *,
    targets: Tensor | None = None,
    batch_size: int | str = "auto",
    memory_budget: int = 2**28,
) -> tuple[Tensor, Tensor]:
    """Margins of all rows and their gradients by input feature, one backward pass each.

    The entries of a gradient say how fast the margin to the runner-up moves with each
    feature: a local attribution of the decision to the inputs.

    Parameters
    ----------
    module : torch.nn.Module
        Returns logits of shape (n, C); copied and put in evaluation mode.
    inputs : Tensor of shape (n, ...)
    targets : Tensor of shape (n,), optional
        Class numbers; the predicted classes by default.
    batch_size : int or "auto", default="auto"
        Rows of a chunk.
    memory_budget : int, default=2**28
        Bytes that a chunk may use when `batch_size` is "auto".

    Returns
    -------
    margins : Tensor of shape (n,)
    gradients : Tensor of the inputs' shape
        Margin units per unit of each input feature.

    Examples
    --------
    >>> import torch
    >>> from sharpfit.jacobian import margin_gradients
    >>> net = torch.nn.Linear(2, 2, bias=False)
    >>> _ = net.weight.data.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
    >>> margin_gradients(net, torch.tensor([[1.0, 2.0]]))
    (tensor([5.]), tensor([[-3.,  4.]]))
    """
    frozen = FrozenModule(module, inputs)
    if targets is not None:
        check_classes(targets, inputs, frozen.n_outputs)
        targets = targets.to(inputs.device)
    margins, gradients = [], []
    row_bytes = frozen.product_bytes(inputs)
    for rows in chunks(inputs, batch_size, memory_budget, row_bytes=row_bytes):
        linearisation = Linearisation(frozen, inputs[rows])
        logits = linearisation.outputs
        classes = predicted_classes(logits) if targets is None else targets[rows]
        margin, rivals = margins_and_rivals(logits, classes)
        margins.append(margin)
        gradients.append(
            linearisation.transposed_product(margin_cotangents(logits, classes, rivals))
        )
    return torch.cat(margins), torch.cat(gradients)
