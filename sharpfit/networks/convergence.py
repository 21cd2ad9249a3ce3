"""Training runs that visibly have not finished."""

import numpy as np

# Fewer epochs than this say too little about a trend.
MINIMUM_EPOCHS = 10
# Share of the loss's whole decline that may still happen between the last two fifths of a run.
STILL_DECLINING = 0.05


def epoch_losses(history) -> list[float]:
    """Return the mean training loss of every epoch, from the batches of a skorch history.

    An interrupted epoch counts by the batches it has done, and not at all if it has done none.

    Parameters
    ----------
    history : iterable of dict
        Epochs of a skorch history.

    Returns
    -------
    list of float
    """
    losses = []
    for epoch in history:
        done = [batch for batch in epoch["batches"] if "train_batch_size" in batch]
        if done:
            sizes = [batch["train_batch_size"] for batch in done]
            losses.append(np.average([batch["train_loss"] for batch in done], weights=sizes))
    return losses


def convergence_problem(losses, *, judge_trend: bool = True) -> str | None:
    """Say why a run with these training losses per epoch has not converged, or None.

    A run is reported when its loss is not finite, or when it was still falling as it ended: the
    mean loss of its last fifth of epochs lies below the mean of the fifth before by more than 5 %
    of the whole decline since the first epoch. Runs of fewer than 10 epochs are not judged.

    Parameters
    ----------
    losses : array-like of shape (n_epochs,)
        Mean training loss of every epoch.
    judge_trend : bool, default=True
        Whether to look for a loss that was still falling, besides one that is not finite.

    Returns
    -------
    str or None
        What is wrong, and the remedy.

    Examples
    --------
    >>> convergence_problem([1 / 2**epoch for epoch in range(20)]) is None
    True
    >>> convergence_problem([100 - epoch for epoch in range(20)])[:38]
    'The training loss was still falling by'
    """
    losses = np.asarray(losses, dtype=np.float64)
    if not np.isfinite(losses).all():
        epoch = int(np.flatnonzero(~np.isfinite(losses))[0]) + 1
        return (
            f"The training loss became {losses[epoch - 1]} in epoch {epoch}: the run diverged. "
            "Lower lr or scale the inputs (and the targets of a regression)."
        )
    if not judge_trend or len(losses) < MINIMUM_EPOCHS:
        return None
    fifth = len(losses) // 5
    decline = losses[-2 * fifth : -fifth].mean() - losses[-fifth:].mean()
    whole = losses[0] - losses[-fifth:].mean()
    if whole > 0 and decline > STILL_DECLINING * whole:
        return (
            f"The training loss was still falling by {decline:.3g} per {fifth} epochs when the "
            f"{len(losses)} epochs ended. Raise max_epochs or lr."
        )
    return None
