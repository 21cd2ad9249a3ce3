"""Norms of the input-output Jacobian of every sample."""

import warnings
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn

from sharpfit.jacobian.arguments import (
    check_count,
    check_positive,
    check_tensor,
    checked_loss,
)
from sharpfit.jacobian.chunk_norms import Margins, exact_norms, iterated_norms, loss_norms
from sharpfit.jacobian.exact import ExactJacobians
from sharpfit.jacobian.gram import GramNorms
from sharpfit.jacobian.linearisation import (
    FrozenModule,
    Linearisation,
    Method,
    chunks,
    seeded_generator,
)
from sharpfit.jacobian.margins import check_classes
from sharpfit.jacobian.progress import followed
from sharpfit.jacobian.surroundings import in_plain_mode
from sharpfit.objective import SampleLoss

Output = Literal["logits", "probabilities", "margin", "loss"]


@dataclass(frozen=True)
class JacobianNorms:
    """Norms of the Jacobian with respect to the input, one value a sample.

    Attributes
    ----------
    output : {"logits", "probabilities", "margin", "loss"}
        What was differentiated.
    method : {"exact", "krylov"}
        How.
    spectral : ndarray of shape (n,)
        Spectral norms: the largest factor by which the output moves for a small move of
        the input.
    spectral_error : ndarray of shape (n,)
        Distance within which a true singular value lies; 0 where exact (up to rounding in the
        dtype of the inputs).
    frobenius : ndarray of shape (n,)
        Frobenius norms.
    frobenius_error : ndarray of shape (n,)
        Standard errors of the Frobenius norms over random probes; 0 where exact.
    margin : ndarray of shape (n,) or None
        Logit margins to the runner-up, of the target class if targets were given and of
        the predicted class otherwise. For one logit: the logit, signed by the class.
    margin_gradient : ndarray of shape (n,) or None
        Euclidean norms of the gradients of these margins.
    largest_margin_gradient : ndarray of shape (n,) or None
        The largest gradient norm of the logit differences to all other classes, as far as it was
        looked for.
    largest_margin_gradient_error : ndarray of shape (n,) or None
        How far above the true value may lie, at most; 0 where exact, infinite where nothing that
        was asked for bounds it.
    """

    output: Output
    method: Literal["exact", "krylov"]
    spectral: NDArray[np.float64]
    spectral_error: NDArray[np.float64]
    frobenius: NDArray[np.float64]
    frobenius_error: NDArray[np.float64]
    margin: NDArray[np.float64] | None = None
    margin_gradient: NDArray[np.float64] | None = None
    largest_margin_gradient: NDArray[np.float64] | None = None
    largest_margin_gradient_error: NDArray[np.float64] | None = None


@in_plain_mode
def jacobian_norms(
    module: nn.Module,
    inputs: Tensor,
    *,
    output: Output = "logits",
    targets: Tensor | None = None,
    loss: SampleLoss | nn.Module | None = None,
    margins: Margins = False,
    method: Method = "auto",
    tol: float = 1e-3,
    max_products: int = 300,
    n_probes: int = 16,
    batch_size: int | Literal["auto"] = "auto",
    memory_budget: int = 2**28,
    random_state: int = 0,
    verbose: int = 0,
) -> JacobianNorms:
    r"""Spectral and Frobenius norms of each sample's input-output Jacobian.

    The module is copied and evaluated in evaluation mode; the original is left as it is.

    Parameters
    ----------
    module : torch.nn.Module
        Returns logits or predictions of shape (n, C).
    inputs : Tensor of shape (n, ...)
        Rows, in the dtype and on the device of the module's parameters.
    output : {"logits", "probabilities", "margin", "loss"}, default="logits"
        What is differentiated: the module's outputs; their softmax (for one logit, the
        sigmoid); the logit margin to the runner-up; or the per-sample `loss`.
    targets : Tensor of shape (n, ...), optional
        Class numbers, from which margins are taken instead of the predicted class;
        required for ``output="loss"``, of whatever kind the loss takes.
    loss : torch.nn.Module or sharpfit.objective.SampleLoss, optional
        Criterion on the outputs; required for ``output="loss"``.
    margins : bool or "all", default=False
        Also return the logit margins and the norms of their gradients, at little cost.
        Always so for ``output="margin"``. The largest gradient over all other classes comes with
        them where Jacobians are formed. Where norms are iterated, it is enclosed between that to
        the runner-up and :math:`\sqrt 2` times the spectral norm; "all" computes it there as
        well, by as many products as there are outputs or inputs, whichever are fewer: about the
        time of forming the Jacobians, in the memory of a few products.
    method : {"auto", "exact", "krylov"}, default="auto"
        "exact" forms each chunk's Jacobians by the cheaper of forward and reverse
        mode; "krylov" iterates with products; "auto" is exact up to 64 outputs or inputs.
        Margins and losses are always exact.
    tol : float, default=1e-3
        Relative error at which the iteration ends.
    max_products : int, default=300
        Most steps of the iteration.
    n_probes : int, default=16
        Random probes for the Frobenius norms beside the iteration; with no more outputs or
        inputs than this they are exact.
    batch_size : int or "auto", default="auto"
        Rows of a chunk.
    memory_budget : int, default=2**28
        Bytes that a chunk may use when `batch_size` is "auto".
    random_state : int, default=0
        Seed of start vectors and probes; the global generator is not touched.
    verbose : int, default=0
        Print one line per this many chunks of rows.

    Returns
    -------
    JacobianNorms

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; see the message.

    Warns
    -----
    sklearn.exceptions.ConvergenceWarning
        If the iteration ended before `tol` was reached.

    Examples
    --------
    >>> import torch
    >>> from sharpfit.jacobian import jacobian_norms
    >>> net = torch.nn.Linear(2, 2, bias=False)
    >>> _ = net.weight.data.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
    >>> norms = jacobian_norms(net, torch.ones(1, 2), margins=True)
    >>> norms.spectral, norms.frobenius, norms.margin_gradient
    (array([4.]), array([5.]), array([5.]))
    """
    _check_arguments(output, margins, targets, loss, inputs)
    check_positive("tol", tol, "the relative error of norms")
    check_count("max_products", max_products)
    check_count("n_probes", n_probes, smallest=2)
    frozen = FrozenModule(module, inputs)
    margins = margins or output == "margin"
    if margins and output == "loss":
        raise ValueError(
            f"margins={margins!r} goes with logits, probabilities or margins, not output='loss'"
        )
    if margins and targets is not None:
        check_classes(targets, inputs, frozen.n_outputs)
    if targets is not None:
        targets = targets.to(inputs.device)
    sample_loss: SampleLoss | None = None
    if output == "loss":
        assert targets is not None
        sample_loss = checked_loss(loss, targets, frozen.n_outputs, inputs)
    iterate = frozen.iterates(method)
    generator = seeded_generator(random_state, inputs.device)
    exact = None if iterate or output == "loss" else ExactJacobians(frozen, inputs)
    row_bytes = frozen.product_bytes(inputs) if exact is None else exact.row_bytes
    gram_norms = GramNorms()
    parts: list[dict[str, Tensor]] = []
    walk = chunks(inputs, batch_size, memory_budget, row_bytes=row_bytes)
    for rows in followed(walk, len(inputs), name="jacobian_norms", verbose=verbose):
        chunk = inputs[rows]
        chunk_targets = None if targets is None else targets[rows]
        if exact is not None:
            parts.append(exact_norms(exact, chunk, output, chunk_targets, margins, gram_norms))
            continue
        linearisation = Linearisation(frozen, chunk)
        if sample_loss is not None:
            assert chunk_targets is not None
            parts.append(loss_norms(linearisation, sample_loss, chunk_targets))
        else:
            effort = (tol, max_products, n_probes)
            parts.append(
                iterated_norms(linearisation, output, chunk_targets, margins, effort, generator)
            )
    found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    if "spectral" not in found:
        found["spectral"], found["frobenius"] = gram_norms.norms()
    columns = {name: values.double().cpu().numpy() for name, values in found.items()}
    if "spectral_error" in columns:
        _warn_unless_converged(columns, tol, max_products)
    zeros = np.zeros(len(inputs))
    return JacobianNorms(
        output=output,
        method="krylov" if "spectral_error" in columns else "exact",
        **{"spectral_error": zeros, "frobenius_error": zeros, **columns},
    )


def _warn_unless_converged(columns: dict[str, np.ndarray], tol: float, max_products: int) -> None:
    missed = columns["spectral_error"] > tol * columns["spectral"]
    if missed.any():
        warnings.warn(
            f"{missed.sum()} of {len(missed)} spectral norms did not reach tol={tol} within "
            f"max_products={max_products}; spectral_error holds what was reached. Raise "
            "max_products, or use method='exact'",
            ConvergenceWarning,
            stacklevel=3,
        )


def _check_arguments(
    output: str,
    margins: Margins,
    targets: Tensor | None,
    loss: SampleLoss | nn.Module | None,
    inputs: Tensor,
) -> None:
    if output not in get_args(Output):
        raise ValueError(f"output must be one of {get_args(Output)}, got {output!r}")
    if margins not in (False, True, "all"):
        raise ValueError(f"margins must be True, False or 'all', got {margins!r}")
    if output == "loss" and (loss is None or targets is None):
        raise ValueError(
            "output='loss' needs both a loss, such as torch.nn.CrossEntropyLoss(), and targets"
        )
    if targets is not None:
        check_tensor("targets", targets)
        if len(targets) != len(inputs):
            raise ValueError(f"targets has {len(targets)} rows, inputs has {len(inputs)}")
