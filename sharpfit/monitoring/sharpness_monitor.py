"""Watch the sharpness of a network while it trains."""

import math
import time
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from skorch.history import History
from torch import Tensor, nn

from sharpfit.monitoring.observer import Observer
from sharpfit.monitoring.record_names import measured, unmeasured
from sharpfit.monitoring.settings import (
    check_given,
    check_same_data,
    check_settings,
    epochs_between,
)
from sharpfit.monitoring.training_rows import training_problem
from sharpfit.objective import SampleLoss

__all__ = ["SharpnessMonitor"]

_BATCH_KEY = "sharpness_records"


class SharpnessMonitor(Callback):
    """Measure sharpness, Jacobian and the optimiser's stability limit during training.

    A skorch callback; for other training loops, a plain object whose `update` is called with the
    module, the loss and data. Training is not touched: a copy in evaluation mode is measured on
    all training rows, and random states are restored.

    The limit concerns full-batch descent on the trained objective. Mini-batches make training
    unstable earlier; batch norm and dropout are measured in evaluation mode; penalties other than
    weight decay are not seen. Whether a limit applies is for the reader to judge.

    Parameters
    ----------
    every : int, "auto", "epoch" or "5 epochs", default="auto"
        Updates between measurements, or epochs, at whose end is measured; every call of `update`
        measures. "auto" measures as
        often as `max_overhead` allows, going by the time measurements, with all set-up, and
        training take; what comes of it is `interval_`, and is printed when a verbose network's
        training ends. Its first measurement takes few products,
        three or eight, with the error that leaves.
    max_overhead : float, default=0.15
        Time of measurements as a part of the time of training, for ``every="auto"``. The first
        measurement, before any training, exceeds it at once; no other follows before training
        has taken long enough for both.
    history : sequence of str, default=("sharpness", "stability_limit", "jacobian_max")
        Values that go into the rows of ``net.history``, where tables and loggers show them: the
        last ones measured by the end of an epoch.
    n_eigenvalues : int, default=1
        Largest eigenvalues of the Hessian to follow.
    tol : float, default=1e-2
        Their relative accuracy.
    n_rows : int, optional
        Measure a fixed random part of this size instead of all rows. Records then say what that
        leaves open.
    n_jacobian_rows : int, default=256
        Rows at which Jacobians are measured: all, or a fixed random part; none for 0.
    layers : bool, default=True
        Whether to split sharpness over layers, and that of dense layers and convolutions in
        factors.
    alignment : bool, default=False
        Whether to measure how far the layers' Jacobians line up.
    local_variation : bool, default=False
        Whether to measure Jacobians between and around the rows too: some fifteen times the
        work at the rows.
    batch_size : int or "auto", default="auto"
        Rows of a chunk of the Hessian.
    memory_budget : int, default=2**28
        Bytes of what one measurement keeps: rows, products, the eigensolver's basis and copies.
        Rows of more than half of it exceed it.
    random_state : int, default=0
        Seed of noise and of the rows of the Jacobian.
    verbose : int, default=0
        Whether to print every measurement, and at the end of training how many there were.

    Attributes
    ----------
    records_ : list of dict
        One dictionary of floats per measurement.

        - ``update``, ``epoch``; ``loss`` on all rows and its ``gradient_norm``;
        - ``sharpness``, the largest eigenvalue of the Hessian of the loss, its
          ``gauss_newton_part`` and ``residual_part``; further ones as ``eigenvalue_2`` and so on;
          each with an estimated error, as ``sharpness_error``;
        - ``stability_limit``, ``stability_statement``, its formula or why none is known, and
          ``trained_sharpness``, the eigenvalue it concerns, with weight decay and preconditioner;
        - ``jacobian_max``, ``jacobian_mean`` with ``jacobian_mean_error``: spectral norms of the
          Jacobian of logits or predictions at the rows; ``response_jacobian_max``, that of
          probabilities or predictions;
        - ``slope_bound``, ``response_slope_bound``: their largest slopes between rows;
          ``loss_slope_bound``, the slope of probabilities or predictions that the losses imply;
        - ``sharpness_floor`` with ``sharpness_floor_error``: what the Jacobian at the rows implies
          for the largest eigenvalue of the Gauss-Newton matrix; an estimate where only some rows
          are measured at, a theorem else. ``loss_sharpness_floor``: the same if the slope that
          the losses imply held at a row, which is not implied;
        - ``loss_curvature``, and for each of the ``layers`` its ``share`` of the top eigenvector
          and, for dense layers and convolutions in one group, ``feature_energy``,
          ``backward_energy`` and ``alignment``: the factors of its Gauss-Newton trace, and the
          trace over their product;
        - with `alignment`, ``layer_alignment``: the Jacobian's norm over the product of the
          layers';
        - with `local_variation`, ``local_variation``, ``jacobian_rate`` and
          ``smooth_loss_sharpness_floor``, the floor from the losses less what this rate takes off;
        - with `n_rows`, ``sharpness_sampling_error``, ``held_out_sharpness`` and
          ``held_out_sharpness_error``: the sharpness of a part is too large on average, the
          curvature along the same vector on other rows too small;
        - ``n_products``, ``seconds``, and ``problem``, which says why values that are NaN are
          missing.
    n_updates_ : int
        Updates seen.
    interval_ : float
        Mean number of updates between measurements so far, NaN for less than two.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sharpfit import NetworkClassifier
    >>> from sharpfit.monitoring import SharpnessMonitor
    >>> X, y = make_moons(100, noise=0.1, random_state=0)
    >>> network = NetworkClassifier(max_epochs=3, random_state=0, batch_size=-1,
    ...                             callbacks=[("monitor", SharpnessMonitor(every=1))])
    >>> records = network.fit(X, y).callbacks[0][1].records_
    >>> [record["update"] for record in records]
    [0, 1, 2, 3]
    """

    def __init__(
        self,
        *,
        every: int | str = "auto",
        max_overhead: float = 0.15,
        history: Sequence[str] = ("sharpness", "stability_limit", "jacobian_max"),
        n_eigenvalues: int = 1,
        tol: float = 1e-2,
        n_rows: int | None = None,
        n_jacobian_rows: int = 256,
        layers: bool = True,
        alignment: bool = False,
        local_variation: bool = False,
        batch_size: int | str = "auto",
        memory_budget: int = 2**28,
        random_state: int = 0,
        verbose: int = 0,
    ):
        self.every = every
        self.max_overhead = max_overhead
        self.history = history
        self.n_eigenvalues = n_eigenvalues
        self.tol = tol
        self.n_rows = n_rows
        self.n_jacobian_rows = n_jacobian_rows
        self.layers = layers
        self.alignment = alignment
        self.local_variation = local_variation
        self.batch_size = batch_size
        self.memory_budget = memory_budget
        self.random_state = random_state
        self.verbose = verbose

    def initialize(self) -> "SharpnessMonitor":
        """Forget all measurements; called when a network is initialised.

        Returns
        -------
        SharpnessMonitor
        """
        check_settings(self.get_params(), self._measured)
        self.records_: list[dict[str, Any]] = []
        self.n_updates_ = 0
        self._observer: Observer | None = None
        self._given: tuple[Tensor, Tensor] | None = None
        return self

    def update(
        self,
        module: nn.Module,
        loss: nn.Module | SampleLoss,
        data: tuple[Tensor, Tensor],
        optimizer: torch.optim.Optimizer | None = None,
        *,
        n_updates: int = 1,
    ) -> dict[str, Any]:
        """Measure a module in a hand-written training loop.

        Parameters
        ----------
        module : nn.Module
            The module as it is now; not changed.
        loss : nn.Module or SampleLoss
            The criterion it is trained with.
        data : tuple of Tensor
            Inputs and targets of all rows, the same at every call: later measurements start from
            earlier ones.
        optimizer : torch.optim.Optimizer, optional
            For the stability limit.
        n_updates : int, default=1
            Updates since the last call; not counted at the first.

        Returns
        -------
        dict
            The new last entry of `records_`.
        """
        if not hasattr(self, "records_"):
            self.initialize()
        check_given(module, loss, data, optimizer, n_updates)
        if self._observer is None or self._given is None:
            self._observer, self._given = self._new_observer(*data), data
        check_same_data(self._given, data)
        self.n_updates_ += n_updates if self.records_ else 0
        return self._record(self._observer.measure(module, loss, optimizer), epoch=None)

    @property
    def interval_(self) -> float:
        """Mean number of updates between measurements so far, NaN for less than two."""
        if len(self.records_) < 2:
            return math.nan
        first, last = self.records_[0]["update"], self.records_[-1]["update"]
        return (last - first) / (len(self.records_) - 1)

    # -- skorch --------------------------------------------------------------------------------

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Remember the rows; the first epoch knows which of them train."""
        self._data = (X, y)
        self._observer = None
        if not self.records_:  # a training that was loaded goes on
            self.n_updates_ = sum(row.get("train_batch_count", 0) for row in net.history)
        self._began, self._spent = time.perf_counter(), 0.0

    def on_epoch_begin(self, net: Any, dataset_train: Any = None, **kwargs: Any) -> None:
        """Note which rows train; they are prepared when there is something to measure."""
        if self._observer is None:
            self._data = (dataset_train, *self._data[-2:])

    def on_batch_begin(
        self, net: Any, batch: Any = None, training: bool = False, **kw: Any
    ) -> None:
        """Measure the weights a training begins with."""
        if training and not self.records_:
            self._measure(net)

    def on_batch_end(self, net: Any, training: bool = False, **kwargs: Any) -> None:
        """Count an update, and measure if it is time."""
        if not training:
            return
        self.n_updates_ += 1
        if self._is_due():
            self._measure(net)

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Measure if it is time; write the last measurement into the row of the epoch."""
        epochs = epochs_between(self.every)
        if epochs and self.records_ and len(net.history) % epochs == 0:
            self._measure(net)
        latest = self.records_[-1] if self.records_ else {}
        for name in self.history:
            net.history.record(name, latest.get(name, math.nan))

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Let go of the rows; say how often was measured."""
        if self.verbose or (self.every == "auto" and net.verbose):
            training = time.perf_counter() - self._began - self._spent
            count = len(self.records_)
            spread = f", one in {self.interval_:.3g}" if count > 1 else f" in {self.n_updates_}"
            print(
                f"[SharpnessMonitor] {count} measurement{'s' * (count != 1)}{spread} updates, "
                f"{self._spent / training:.1%} of the time of training",
                flush=True,
            )
        self._observer = self._data = None

    def _get_param_names(self) -> list[str]:
        # skorch's callbacks take every attribute without a trailing underscore for a parameter.
        return [name for name in super()._get_param_names() if not name.startswith("_")]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | dict.fromkeys(("_observer", "_data", "_given"))

    @staticmethod
    def records_of(history: Any) -> list[dict[str, Any]]:
        """Read the measurements back from a history, as after ``load_params(f_history=...)``.

        Parameters
        ----------
        history : skorch.history.History

        Returns
        -------
        list of dict

        Raises
        ------
        TypeError
            For anything else, such as the records of a hand-written loop.
        """
        if not isinstance(history, History):
            raise TypeError(
                f"history must be a skorch History, got {type(history).__name__}; records of a "
                "hand-written loop are in monitor.records_ and need no reading back: "
                "SharpeningDisplay(monitor.records_)."
            )
        return [
            record
            for epoch in history
            for batch in epoch["batches"]
            for record in batch.get(_BATCH_KEY, [])
        ]

    def _measure(self, net: Any) -> None:
        start = time.perf_counter()
        try:
            if self._observer is None:
                problem = training_problem(net, *self._data)
                problem.sample_loss()  # refuses losses that are no sum over rows
                self._observer = self._new_observer(
                    problem.inputs, problem.targets, problem.sample_weight
                )
        except torch.OutOfMemoryError:
            found = unmeasured(self._measured(), "out of memory while the rows were prepared")
        else:
            found = self._observer.measure(
                net.module_,
                net.criterion_,
                net.optimizer_,
                criterion_takes_log=isinstance(net, NeuralNetClassifier),
                quick=self.every == "auto" and not self.records_,
            )
        found["seconds"] = time.perf_counter() - start
        self._spent += found["seconds"]
        record = self._record(found, epoch=len(net.history))
        batch = net.history[-1]["batches"][-1]
        net.history.record_batch(_BATCH_KEY, [*batch.get(_BATCH_KEY, []), record])

    def _record(self, found: dict[str, Any], epoch: int | None) -> dict[str, Any]:
        record = {"update": self.n_updates_, "epoch": epoch, **found}
        if record["problem"] and not (self.records_ and self.records_[-1]["problem"]):
            warnings.warn(
                f"SharpnessMonitor has no measurement at update {self.n_updates_}: "
                f"{record['problem']}. Training goes on.",
                UserWarning,
                stacklevel=3,
            )
        self.records_.append(record)
        if self.verbose:
            print(
                f"[SharpnessMonitor] update {record['update']}: loss {record['loss']:.4g}, "
                f"sharpness {record['sharpness']:.4g} (limit {record['stability_limit']:.4g}), "
                f"{record['n_products']} products, {record['seconds']:.2g} s",
                flush=True,
            )
        return record

    def _is_due(self) -> bool:
        since = self.n_updates_ - self.records_[-1]["update"]
        if self.every != "auto":
            return epochs_between(self.every) == 0 and since >= int(self.every)
        training = time.perf_counter() - self._began - self._spent
        return self._spent + self.records_[-1]["seconds"] <= self.max_overhead * training

    def _new_observer(
        self, inputs: Tensor, targets: Tensor | None, sample_weight: Tensor | None = None
    ) -> Observer:
        if targets is None:
            raise ValueError("SharpnessMonitor needs targets; train with y.")
        return Observer(
            inputs,
            targets,
            sample_weight,
            n_eigenvalues=self.n_eigenvalues,
            tol=self.tol,
            n_rows=self.n_rows,
            n_jacobian_rows=self.n_jacobian_rows,
            layers=self.layers,
            alignment=self.alignment,
            local_variation=self.local_variation,
            batch_size=self.batch_size,
            memory_budget=self.memory_budget,
            random_state=self.random_state,
        )

    def _measured(self) -> tuple[str, ...]:
        return measured(
            part=self.n_rows is not None,
            jacobian=self.n_jacobian_rows > 0,
            alignment=self.alignment,
            local_variation=self.local_variation,
            n_eigenvalues=self.n_eigenvalues,
        )
