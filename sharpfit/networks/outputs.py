"""What the outputs of a classifying module mean, by criterion."""

import numpy as np
import torch
from scipy.special import log_expit, log_softmax
from torch import nn

# Criteria whose module has one output for two classes.
ONE_OUTPUT = (nn.BCEWithLogitsLoss, nn.BCELoss)


def uncompiled(module: nn.Module) -> nn.Module:
    """Return a module or criterion itself where it was wrapped by ``torch.compile``."""
    return getattr(module, "_orig_mod", module)


def expected_width(criterion, n_classes: int) -> int:
    """Return the number of outputs a module needs under this criterion."""
    if isinstance(uncompiled(criterion), ONE_OUTPUT):
        if n_classes != 2:
            raise ValueError(
                f"{type(criterion).__name__} is for two classes, but there are {n_classes}. Use "
                "torch.nn.CrossEntropyLoss with one output per class."
            )
        return 1
    return n_classes


def class_scores(criterion, outputs: np.ndarray) -> np.ndarray:
    """Return one score per class, shape ``(n, C)``, largest where the class is predicted.

    The scores are the logits of a softmax over the classes wherever the criterion defines
    probabilities: outputs of ``CrossEntropyLoss`` as they are, logarithms of the probabilities of
    ``NLLLoss`` and ``BCELoss``, and ``(0, z)`` for the single logit of ``BCEWithLogitsLoss``.
    """
    criterion = uncompiled(criterion)
    if isinstance(criterion, nn.BCELoss):
        p = outputs.reshape(-1)
        return _log(np.stack([1 - p, p], axis=1))
    if isinstance(criterion, nn.NLLLoss):
        return _log(outputs)
    if outputs.ndim == 1 or outputs.shape[1] == 1:
        z = outputs.reshape(-1)
        return np.stack([np.zeros_like(z), z], axis=1)
    return outputs


def class_log_probabilities(criterion, outputs: np.ndarray) -> np.ndarray:
    """Return the logarithms of the class probabilities, shape ``(n, C)``."""
    criterion = uncompiled(criterion)
    if isinstance(criterion, nn.BCEWithLogitsLoss):
        z = outputs.reshape(-1)
        return np.stack([log_expit(-z), log_expit(z)], axis=1)
    if isinstance(criterion, nn.CrossEntropyLoss | nn.NLLLoss | nn.BCELoss):
        return log_softmax(class_scores(criterion, outputs), axis=1)
    raise AttributeError(
        f"{type(criterion).__name__} does not say how outputs become probabilities. Pass "
        "predict_nonlinearity, a function from outputs to probabilities."
    )


def check_probabilities(criterion, output: torch.Tensor) -> None:
    """Refuse outputs that are no probabilities where the criterion reads them as such."""
    criterion = uncompiled(criterion)
    if not isinstance(criterion, nn.NLLLoss | nn.BCELoss):
        return
    inside = bool(((output >= 0) & (output <= 1)).all())
    total = float(output.sum(-1).max())
    if inside and (isinstance(criterion, nn.BCELoss) or abs(total - 1) < 1e-3):
        return
    remedy = "BCEWithLogitsLoss" if isinstance(criterion, nn.BCELoss) else "CrossEntropyLoss"
    raise ValueError(
        f"{type(criterion).__name__} is used as in skorch, on probabilities, but the module "
        f"returned {output.flatten()[:4].tolist()} for the first row. End the module with a "
        f"softmax or sigmoid, or return logits and use criterion=torch.nn.{remedy}."
    )


def _log(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
