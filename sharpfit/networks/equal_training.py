"""Stop training at a number of updates or at a level of the training loss."""

from skorch.callbacks import Callback


class StopTrainingAt(Callback):
    """End training after so many updates, or once the training loss is low enough.

    Networks that are compared should have something in common: the number of updates, or
    the training loss they reached. Set `max_epochs` high enough that this callback, not the
    number of epochs, ends the training; `reached_` says whether it did.

    Parameters
    ----------
    updates : int, optional
        Number of optimiser steps.
    training_loss : float, optional
        Level of the epoch's mean training loss.

    Attributes
    ----------
    reached_ : bool
        Whether the training ended here.
    n_updates_ : int
        Number of optimiser steps taken.

    Raises
    ------
    ValueError
        At the start of training, unless exactly one of the two is given and positive.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sharpfit import NetworkClassifier
    >>> from sharpfit.networks import StopTrainingAt
    >>> X, y = load_iris(return_X_y=True)
    >>> stop = StopTrainingAt(updates=7)
    >>> network = NetworkClassifier(callbacks=[stop], random_state=0).fit(X, y)
    >>> dict(network.callbacks_)["StopTrainingAt"].n_updates_
    7
    """

    def __init__(self, updates: int | None = None, training_loss: float | None = None) -> None:
        self.updates = updates
        self.training_loss = training_loss

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        """Check the settings and count from zero."""
        given = [value for value in (self.updates, self.training_loss) if value is not None]
        if len(given) != 1 or given[0] <= 0:
            raise ValueError(
                f"StopTrainingAt needs one positive number, got updates={self.updates!r} and "
                f"training_loss={self.training_loss!r}"
            )
        self.reached_ = False
        self.n_updates_ = 0

    def on_batch_end(self, net, batch=None, training=False, **kwargs):
        """Count the update and stop after the last."""
        if not training:
            return
        self.n_updates_ += 1
        if self.updates is not None and self.n_updates_ >= self.updates:
            self._stop()

    def on_epoch_end(self, net, **kwargs):
        """Stop once the epoch's loss is low enough."""
        if self.training_loss is not None and net.history[-1, "train_loss"] <= self.training_loss:
            self._stop()

    def _stop(self):
        self.reached_ = True
        raise KeyboardInterrupt  # how skorch's own callbacks end a training
