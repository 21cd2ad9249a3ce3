"""Jacobian norms of a problem's rows, as a summary needs them and as features."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from sharpfit.analysers.jacobian_space import AnalysedFunction
from sharpfit.bridge import Problem
from sharpfit.jacobian import JacobianNorms, jacobian_norms, layer_norms, local_variation

# A margin over a vanishing gradient would be infinite, which no later step accepts.
_SMALLEST_GRADIENT = 1e-6
_LOCAL_ROWS = 512


def as_seed(random_state: Any) -> int:
    """Return an integer seed; None draws one without touching numpy's global state.

    Parameters
    ----------
    random_state : int, numpy.random.RandomState or None

    Returns
    -------
    int
    """
    if random_state is None:
        return int(np.random.default_rng().integers(2**31))
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


def logit_norms(problem: Problem, function: AnalysedFunction, **settings: Any) -> JacobianNorms:
    """Norms of the logits or predictions; for classifiers with margins.

    Parameters
    ----------
    problem : Problem
        With labels, margins are those of the labels, and their gradients are found to all other
        classes; otherwise of the predicted classes to the runner-up.
    function : AnalysedFunction
    **settings
        Passed to `sharpfit.jacobian.jacobian_norms`.

    Returns
    -------
    sharpfit.jacobian.JacobianNorms
    """
    targets, margins = None, problem.task == "classification"
    if problem.labels is not None:
        targets, margins = torch.as_tensor(problem.labels), "all"
    return jacobian_norms(
        function.module, function.inputs, targets=targets, margins=margins, **settings
    )


def output_norms(
    problem: Problem, function: AnalysedFunction, output: str, **settings: Any
) -> JacobianNorms:
    """Norms of any output of the network.

    Parameters
    ----------
    problem : Problem
    function : AnalysedFunction
    output : {"logits", "probabilities", "margin", "loss"}
        The margin is that of the predicted class.
    **settings
        Passed to `sharpfit.jacobian.jacobian_norms`.

    Returns
    -------
    sharpfit.jacobian.JacobianNorms

    Raises
    ------
    ValueError
        If the network has no such output.
    """
    if problem.task == "regression" and output in ("probabilities", "margin"):
        raise ValueError(
            f"output={output!r} is for classifiers; the network is a regressor, use "
            "output='logits', which differentiates its predictions"
        )
    if output == "loss":
        settings |= {"loss": problem.sample_loss(), "targets": problem.targets}
    return jacobian_norms(function.module, function.inputs, output=output, **settings)


def row_features(norms: JacobianNorms, gradient_scale: float) -> NDArray[np.float64]:
    """Arrange norms and margins as the columns of a transformer.

    Parameters
    ----------
    norms : JacobianNorms
        From `logit_norms`.
    gradient_scale : float
        Largest margin gradient on the rows of the fit.

    Returns
    -------
    ndarray of shape (n, 4), or (n, 2) without margins
    """
    columns = [norms.spectral, norms.frobenius]
    if norms.margin is not None and norms.margin_gradient is not None:
        smallest = max(gradient_scale * _SMALLEST_GRADIENT, np.finfo(float).tiny)
        distance = norms.margin / np.maximum(norms.margin_gradient, smallest)
        columns += [norms.margin_gradient, distance]
    return np.stack(columns, axis=1)


def layer_summary(problem: Problem, **settings: Any) -> tuple[dict[str, float], float | None]:
    """Mean norm of each layer call, and the mean alignment of a chain of layers.

    Parameters
    ----------
    problem : Problem
    **settings
        Passed to `sharpfit.jacobian.layer_norms`.

    Returns
    -------
    norms : dict of str to float
    alignment : float or None
    """
    layers = layer_norms(problem.module, problem.inputs, **settings)
    means = {}
    for place, (name, norms) in enumerate(zip(layers.names, layers.norms, strict=True)):
        call = layers.names[:place].count(name)
        means[f"{name} (call {call + 1})" if call else name] = float(norms.mean())
    return means, None if layers.alignment is None else float(layers.alignment.mean())


def variation_near_rows(function: AnalysedFunction, *, random_state: int, **settings: Any) -> float:
    """Excess of the norm near a few rows over that at these rows.

    Parameters
    ----------
    function : AnalysedFunction
    random_state : int
        Draws at most 512 rows.
    **settings
        Passed to `sharpfit.jacobian.local_variation`.

    Returns
    -------
    float
        1 if all rows are equal.
    """
    order = np.random.default_rng(random_state).permutation(len(function.inputs))
    rows = torch.as_tensor(np.sort(order[:_LOCAL_ROWS])).to(function.inputs.device)
    inputs = function.inputs[rows]
    if bool((inputs == inputs[0]).all()):
        return 1.0
    found = local_variation(
        function.module,
        inputs,
        n_neighbours=1,
        n_steps=1,
        n_directions=1,
        random_state=random_state,
        **settings,
    )
    return found.excess
