"""Early stopping from the training rows: no validation rows are set aside."""

import copy
import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

from skorch import NeuralNet
from skorch.callbacks import Callback

from sharpfit.bridge import as_problem
from sharpfit.model_selection.selection import SelectionCriterion


class TrainingRowsStopping(Callback):
    """Keep the epoch that the selection criterion likes best, and stop when it stops improving.

    After an epoch the network, in evaluation mode, is judged by `selection_criterion` on the rows
    it is trained on, so every row trains. The criterion is an *estimate* that ranks epochs; it
    certifies nothing.

    Parameters
    ----------
    patience : int or None, default=None
        Judged epochs without improvement after which training stops. None trains all epochs and
        only goes back to the best one.
    every : int, default=1
        Judge every so many epochs, and the last one.
    threshold : float, default=0.0
        Relative improvement that counts as one.
    load_best : bool, default=True
        Go back to the weights and buffers of the best epoch when training ends. They are kept in
        memory.
    sink : callable or None, default=None
        Called with a message when training stops or goes back, ``print`` for example.

    Attributes
    ----------
    best_epoch_ : int
        Epoch of the smallest criterion, counted as in the net's history.
    best_criterion_ : float
        Its value; smaller is better.

    Notes
    -----
    Each judged epoch adds the columns ``selection_criterion`` and ``selection_criterion_best`` to
    the net's history. The optimiser's state is not restored. An epoch whose outputs are not finite
    is never the best.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sharpfit import NetworkClassifier
    >>> from sharpfit.model_selection import TrainingRowsStopping
    >>> X, y = load_iris(return_X_y=True)
    >>> stopping = TrainingRowsStopping(patience=5)
    >>> net = NetworkClassifier(max_epochs=20, callbacks=[("stopping", stopping)], random_state=0)
    >>> _ = net.fit(X, y)
    >>> kept = dict(net.callbacks_)["stopping"].best_epoch_
    >>> kept <= len(net.history)
    True
    """

    def __init__(
        self,
        *,
        patience: int | None = None,
        every: int = 1,
        threshold: float = 0.0,
        load_best: bool = True,
        sink: Callable[[str], Any] | None = None,
    ) -> None:
        self.patience = patience
        self.every = every
        self.threshold = threshold
        self.load_best = load_best
        self.sink = sink

    def on_train_begin(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Check the settings and remember the rows.

        Parameters
        ----------
        net : skorch.NeuralNet
        X, y : array-like
            Training rows and targets.
        **kwargs : object
            Not used.
        """
        for name, value in {"patience": self.patience, "every": self.every}.items():
            if name == "patience" and value is None:
                continue
            if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
                remedy = "an int of at least 1" + (", or None" if name == "patience" else "")
                raise ValueError(f"{name}={value!r} must be {remedy}")
        if not (isinstance(self.threshold, Real) and 0 <= self.threshold < math.inf):
            raise ValueError(f"threshold={self.threshold!r} must be a number that is not negative")
        if y is None:
            raise ValueError(
                "y is None, but TrainingRowsStopping compares outputs with targets; pass y to fit"
            )
        # skorch takes attributes that do not end in an underscore for parameters.
        self._rows_ = (X, y)
        self._criterion_ = None
        self._last_epoch_ = len(net.history) + net.max_epochs
        self._judged_since_best_ = 0
        self.best_epoch_ = 0
        self.best_criterion_ = math.inf
        self._best_state_: dict[str, Any] | None = None

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Judge the epoch, keep its weights if they are the best, and stop where it is time.

        Parameters
        ----------
        net : skorch.NeuralNet
        **kwargs : object
            Not used.
        """
        epoch = len(net.history)
        if epoch % self.every and epoch != self._last_epoch_:
            return
        problem = as_problem(net, *self._rows_, prefit=True)
        if self._criterion_ is None:
            self._criterion_ = SelectionCriterion(problem)
        value = self._criterion_(problem.module)
        improved = value < self.best_criterion_ - self.threshold * abs(value)
        net.history.record("selection_criterion", value)
        net.history.record("selection_criterion_best", improved)
        if improved:
            self.best_epoch_, self.best_criterion_ = epoch, value
            self._judged_since_best_ = 0
            if self.load_best:
                self._best_state_ = copy.deepcopy(net.module_.state_dict())
            return
        self._judged_since_best_ += 1
        if self.patience is not None and self._judged_since_best_ >= self.patience:
            self._say(
                f"Stopping: the selection criterion has not improved since epoch "
                f"{self.best_epoch_}."
            )
            raise KeyboardInterrupt

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Go back to the best epoch and let go of the rows.

        Parameters
        ----------
        net : skorch.NeuralNet
        **kwargs : object
            Not used.
        """
        if self._best_state_ is not None and self.best_epoch_ != len(net.history):
            net.module_.load_state_dict(self._best_state_)
            self._say(f"Weights of epoch {self.best_epoch_} restored.")
        self._rows_ = self._criterion_ = self._best_state_ = None

    def _say(self, message: str) -> None:
        if self.sink is not None:
            self.sink(message)
