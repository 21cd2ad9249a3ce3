"""Jacobian norms of one chunk of rows, by each of the routes."""

from typing import Literal

import torch
from torch import Tensor

from sharpfit.jacobian.exact import ExactJacobians
from sharpfit.jacobian.gram import GramNorms
from sharpfit.jacobian.iterated import (
    OutputProducts,
    iterated_spectral_norms,
    probability_product,
    probed_frobenius_norms,
)
from sharpfit.jacobian.linearisation import Linearisation
from sharpfit.jacobian.margins import (
    largest_difference_norms,
    margin_cotangents,
    margin_differences,
    margins_and_rivals,
    predicted_classes,
)
from sharpfit.objective import SampleLoss

Margins = bool | Literal["all"]


def exact_norms(
    exact: ExactJacobians,
    inputs: Tensor,
    output: str,
    targets: Tensor | None,
    margins: Margins,
    gram_norms: GramNorms,
) -> dict[str, Tensor]:
    """Form the Jacobians of a chunk; `gram_norms` collects those of logits and probabilities.

    Parameters
    ----------
    exact : ExactJacobians
    inputs : Tensor of shape (n, ...)
    output : {"logits", "probabilities", "margin"}
    targets : Tensor of shape (n,) or None
        Classes of the margins; the predicted ones by default.
    margins : bool or "all"
        Whether to return the margins and their gradients' norms.
    gram_norms : GramNorms

    Returns
    -------
    dict of str to Tensor of shape (n,)
        By fields of `JacobianNorms`.
    """
    logits, jacobians = exact(inputs)
    found: dict[str, Tensor] = {}
    if margins:
        classes = predicted_classes(logits) if targets is None else targets
        margin, rivals = margins_and_rivals(logits, classes)
        gradients, largest = margin_differences(jacobians, classes, rivals)
        found = {
            "margin": margin,
            "margin_gradient": torch.linalg.vector_norm(gradients.double(), dim=1),
            "largest_margin_gradient": largest,
            "largest_margin_gradient_error": torch.zeros_like(largest),
        }
        if output == "margin":
            norm = found["margin_gradient"]
            return {"spectral": norm, "frobenius": norm, **found}
    if output == "probabilities":
        jacobians = probability_product(logits, jacobians)
    gram_norms.add(jacobians)
    return found


def iterated_norms(
    linearisation: Linearisation,
    output: str,
    targets: Tensor | None,
    margins: Margins,
    effort: tuple[float, int, int],
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Find norms of Jacobians that are too large to form from products with them.

    Parameters
    ----------
    linearisation : Linearisation
        At the chunk.
    output : {"logits", "probabilities", "margin"}
    targets : Tensor of shape (n,) or None
        Classes of the margins; the predicted ones by default.
    margins : bool or "all"
        Whether to return the margins and their gradients' norms, and whether to look at all
        other classes for the largest of these.
    effort : tuple of float, int, int
        Relative error, most products, probes.
    generator : torch.Generator
        Draws start vectors and probes.

    Returns
    -------
    dict of str to Tensor of shape (n,)
        By fields of `JacobianNorms`.
    """
    if output == "margin":
        found = _margin_norms(linearisation, targets, margins)
        norm = found["margin_gradient"]
        return {"spectral": norm, "frobenius": norm, **found}
    tol, max_products, n_probes = effort
    products = OutputProducts(linearisation, output == "probabilities")
    top = iterated_spectral_norms(products, generator, tol=tol, max_products=max_products)
    frobenius, frobenius_error = probed_frobenius_norms(products, generator, n_probes)
    found = {
        "spectral": top.values,
        "spectral_error": top.errors,
        "frobenius": frobenius,
        "frobenius_error": frobenius_error,
    }
    if margins:
        found |= _margin_norms(linearisation, targets, margins)
        if output == "logits":
            # |J^T (e_y - e_k)| is at most the norm of J times that of the difference.
            ceiling = 2.0**0.5 * (top.values + top.errors)
            room = (ceiling - found["largest_margin_gradient"]).clamp_min(0.0)
            found["largest_margin_gradient_error"].clamp_(max=room)
    return found


def _margin_norms(
    linearisation: Linearisation, targets: Tensor | None, margins: Margins
) -> dict[str, Tensor]:
    logits = linearisation.outputs
    classes = predicted_classes(logits) if targets is None else targets
    margin, rivals = margins_and_rivals(logits, classes)
    gradients = linearisation.transposed_product(margin_cotangents(logits, classes, rivals))
    norms = torch.linalg.vector_norm(gradients.flatten(1).double(), dim=1)
    if margins == "all":
        largest = largest_difference_norms(linearisation, classes)
        error = torch.zeros_like(norms)
    else:
        # With two classes the runner-up is the only other one.
        largest = norms
        error = torch.full_like(norms, torch.inf if logits.shape[1] > 2 else 0.0)
    return {
        "margin": margin,
        "margin_gradient": norms,
        "largest_margin_gradient": largest,
        "largest_margin_gradient_error": error,
    }


def loss_norms(
    linearisation: Linearisation, loss: SampleLoss, targets: Tensor
) -> dict[str, Tensor]:
    """Differentiate the loss at a chunk of rows.

    Parameters
    ----------
    linearisation : Linearisation
    loss : SampleLoss
    targets : Tensor of shape (n, ...)

    Returns
    -------
    dict of str to Tensor of shape (n,)
        Spectral and Frobenius norms, which are those of one gradient.
    """
    cotangents = loss.gradient(linearisation.outputs, targets)
    gradients = linearisation.transposed_product(cotangents).flatten(1)
    norms = torch.linalg.vector_norm(gradients.double(), dim=1)
    return {"spectral": norms, "frobenius": norms}
