"""The function whose Jacobian is analysed: of the network's inputs, or of the raw rows."""

from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from sklearn.utils.validation import validate_data
from torch import Tensor, nn

from sharpfit.bridge import Problem, affine_map

Space = Literal["network", "input"]

_ROWS_PER_CHUNK = 1024


@dataclass(frozen=True, eq=False)
class AnalysedFunction:
    """A module and its inputs in the space in which derivatives and distances are taken.

    Attributes
    ----------
    module : torch.nn.Module
        Returns logits or predictions of shape (n, C).
    inputs : Tensor of shape (n, ...)
        The rows; in the raw space up to a shift, which no derivative or distance sees.
    """

    module: nn.Module
    inputs: Tensor

    def outputs(self) -> Tensor:
        """Evaluate the module at all rows.

        Returns
        -------
        Tensor of shape (n, C)
        """
        with torch.no_grad():
            return torch.cat([self.module(part) for part in self.inputs.split(_ROWS_PER_CHUNK)])


def analysed_function(problem: Problem, space: Space) -> AnalysedFunction:
    """Return the network as a function of its own inputs or of the raw rows.

    Parameters
    ----------
    problem : Problem
    space : {"network", "input"}

    Returns
    -------
    AnalysedFunction

    Raises
    ------
    ValueError
        If the preprocessing in front of the network is not affine.
    """
    if space == "network" or not problem.preprocessing:
        return AnalysedFunction(problem.module, problem.inputs)
    rows = _numeric(problem.raw_inputs)
    matrix = affine_map(problem.preprocessing, rows.shape[1]).matrix
    # Centred rows keep their digits where a feature is large and varies little.
    rows = rows - rows.mean(axis=0)
    seen = problem.inputs.detach().double().cpu().numpy()
    offset = (seen - rows @ matrix.T).mean(axis=0)
    entrance = nn.Linear(rows.shape[1], len(matrix)).to(problem.inputs)
    with torch.no_grad():
        entrance.weight.copy_(torch.as_tensor(matrix))
        entrance.bias.copy_(torch.as_tensor(offset))
    module = nn.Sequential(entrance, problem.module).eval().requires_grad_(False)
    return AnalysedFunction(module, torch.as_tensor(rows).to(problem.inputs))


def check_request(output: str, space: str, y: Any) -> None:
    """Refuse an output or a space that does not exist, and a loss without targets.

    Parameters
    ----------
    output, space : str
    y : array-like or None

    Raises
    ------
    ValueError
        With the names that exist.
    """
    outputs = ("logits", "probabilities", "margin", "loss")
    if output not in outputs:
        raise ValueError(f"output must be one of {outputs}, got {output!r}")
    if space not in ("network", "input"):
        raise ValueError(f"space must be 'network' or 'input', got {space!r}")
    if output == "loss" and y is None:
        raise ValueError(
            "output='loss' needs the targets: pass y, and leave use_targets=True if it is given"
        )


def check_features(estimator: Any, X: Any, *, reset: bool) -> None:
    """Remember the number and names of features, or compare them with those remembered.

    Parameters
    ----------
    estimator : estimator object
        Gets or has ``n_features_in_``.
    X : array-like of shape (n, ...)
        Rows; those of images count their entries.
    reset : bool
        Whether to remember.

    Raises
    ------
    ValueError
        If they differ.
    """
    shape = np.shape(X)
    if len(shape) < 2:
        raise ValueError(
            f"X must have one row a sample, got shape {shape}; make an array of one row with "
            "X.reshape(1, -1)"
        )
    if len(shape) == 2:
        validate_data(estimator, X, skip_check_array=True, reset=reset)
        return
    n_features = int(np.prod(shape[1:]))
    if reset:
        estimator.n_features_in_ = n_features
    elif n_features != estimator.n_features_in_:
        raise ValueError(
            f"X has {n_features} features a row, {type(estimator).__name__} was fitted with "
            f"{estimator.n_features_in_}"
        )


def _numeric(rows: Any) -> np.ndarray:
    array = rows.to_numpy() if hasattr(rows, "to_numpy") else np.asarray(rows)
    return cast(np.ndarray, array.astype(np.float64))
