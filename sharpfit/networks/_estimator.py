"""What the classifier and the regressor share: rows in, training, outputs."""

import contextlib
import copy
import warnings
from functools import partial

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from skorch.dataset import unpack_data
from skorch.utils import is_dataset, to_device
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from sharpfit.networks._components import NetworkComponents
from sharpfit.networks._randomness import RandomStream
from sharpfit.networks.convergence import convergence_problem, epoch_losses
from sharpfit.networks.datasets import TrainingRows
from sharpfit.networks.fingerprint import rows_hash
from sharpfit.networks.interventions.intervention import as_interventions, training_step
from sharpfit.networks.loss import check_can_be_weighted, weighted_loss
from sharpfit.networks.outputs import uncompiled
from sharpfit.networks.validation import (
    cast_rows,
    check_finite_columns,
    input_array,
)


class NetworkEstimator(NetworkComponents):
    """A network trained and asked the scikit-learn way.

    Subclasses say what targets are: `_check_targets`, `_learn_targets`, `_encode`,
    `_encoded_tensor`, `_n_outputs`, `_check_output` and `_align`.
    """

    # -- training ------------------------------------------------------------------------------

    def fit(self, X, y, sample_weight=None, **fit_params):
        """Train the network from new weights, or go on training with ``warm_start``.

        Parameters
        ----------
        X : array-like of shape (n, n_features) or (n, ...)
            Rows.
        y : array-like of shape (n,) or (n, k)
            Labels of a classifier, real targets of a regressor.
        sample_weight : array-like of shape (n,), default=None
            Non-negative weights of the rows in the loss.
        **fit_params : dict
            Handed to the module's ``forward`` and to `train_split`, as in skorch.

        Returns
        -------
        self
        """
        go_on = self.warm_start and self.__sklearn_is_fitted__()
        self._train(X, y, sample_weight, fit_params, restart=not go_on, reset=not go_on)
        self._warn_of_convergence(judge_trend=self.n_iter_ >= self.max_epochs)
        return self

    def partial_fit(self, X, y, sample_weight=None, **fit_params):
        """Train `max_epochs` more epochs from the present weights.

        Parameters
        ----------
        X : array-like of shape (n, n_features) or (n, ...)
            Rows.
        y : array-like of shape (n,) or (n, k)
            Labels of a classifier, real targets of a regressor.
        sample_weight : array-like of shape (n,), default=None
            Non-negative weights of the rows in the loss.
        **fit_params : dict
            Handed to the module's ``forward`` and to `train_split`, as in skorch.

        Returns
        -------
        self
        """
        first = not hasattr(self, "input_shape_")
        self._train(X, y, sample_weight, fit_params, restart=not self.initialized_, reset=first)
        self._warn_of_convergence(judge_trend=False)
        return self

    def _train(self, X, y, sample_weight, fit_params, *, restart, reset, **target_info):
        rows = self._check_rows(X, reset=reset)
        y = self._check_targets(y, rows)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(
                sample_weight, rows, dtype=np.float64, ensure_non_negative=True
            )
        if reset:
            self._learn_targets(y, **target_info)
        self._encode(y)
        interventions = as_interventions(self.intervention)
        if restart:
            self._stream = RandomStream(self.random_state)
        with self._own_randomness():
            if restart:
                self._example = cast_rows(rows[:1], torch.get_default_dtype())
                self.initialize()
                self._example = None
            if restart or reset:
                self._check_module(rows, y, sample_weight, fit_params)
            epochs_before = len(self.history)
            self.notify("on_train_begin", X=X, y=y)
            # As in skorch, an interrupted training keeps the epochs it has done.
            with contextlib.suppress(KeyboardInterrupt):
                self.fit_loop(rows, y, sample_weight=sample_weight, **fit_params)
            self.notify("on_train_end", X=X, y=y)
        self.n_iter_ = len(self.history) - epochs_before
        self.trained_on_data_loss_ = not any(i.changes_loss for i in interventions)
        fingerprint = rows_hash(rows, y)
        if not restart and getattr(self, "training_rows_hash_", fingerprint) != fingerprint:
            # Trained on different sets of rows in turn: no one set is the training set.
            fingerprint = None
        self.training_rows_hash_ = fingerprint

    def fit_loop(self, X, y=None, epochs=None, *, sample_weight=None, **fit_params):
        """Run the epochs of a training; see ``skorch.NeuralNet.fit_loop``."""
        dataset = X if is_dataset(X) else self._training_rows(X, y, sample_weight)
        return super().fit_loop(dataset, y, epochs, **fit_params)

    def train_step_single(self, batch, **fit_params):
        """Compute one batch's loss and gradient; see ``skorch.NeuralNet.train_step_single``.

        Interventions act here; what they minimise is recorded as the training loss.
        """
        interventions = as_interventions(self.intervention)
        if not interventions:
            return super().train_step_single(batch, **fit_params)
        self._set_training(True)
        inputs, targets = unpack_data(batch)
        return training_step(
            interventions,
            self.module_,
            forward=partial(self.infer, **fit_params),
            loss=partial(self.get_loss, X=inputs, training=True),
            inputs=inputs,
            targets=targets,
        )

    def check_data(self, X, y=None):
        """Do nothing: rows and targets were checked when they came in."""

    def _warn_of_convergence(self, *, judge_trend):
        epochs = self.history.to_list()[len(self.history) - self.n_iter_ :]
        problem = convergence_problem(epoch_losses(epochs), judge_trend=judge_trend)
        if problem is not None:
            warnings.warn(problem, ConvergenceWarning, stacklevel=3)

    def _check_module(self, rows, y, sample_weight, fit_params):
        """Try the module and the criterion on one row before any training."""
        # A net that fails here must not be taken up by the next partial_fit.
        self.initialized_ = False
        module = copy.deepcopy(uncompiled(self.module_)).eval()
        self._check_last_batch(module, len(rows))
        row = to_device(cast_rows(rows[:1], self._input_dtype()), self.device)
        with torch.no_grad():
            try:
                output = module(row, **fit_params)
            except RuntimeError as error:
                raise ValueError(
                    f"The module {type(module).__name__} cannot take rows of shape "
                    f"{rows.shape[1:]}: {error}"
                ) from error
            self._check_output(output)
            self._check_criterion(output, y, sample_weight)
        self.initialized_ = True

    def _check_last_batch(self, module, n_rows):
        loading = {"batch_size": self.batch_size, **self.get_params_for("iterator_train")}
        if (
            self.train_split is None
            and loading["batch_size"] > 0
            and n_rows % loading["batch_size"] == 1
            and not loading.get("drop_last", False)
            and any(isinstance(layer, _BatchNorm) for layer in module.modules())
        ):
            raise ValueError(
                f"With {n_rows} rows and batch_size={loading['batch_size']} the last batch holds "
                "one row, on which batch normalisation cannot train. Change batch_size or set "
                "iterator_train__drop_last=True."
            )

    def _check_criterion(self, output, y, sample_weight):
        criterion = copy.deepcopy(uncompiled(self.criterion_)).eval()
        target = to_device(self._encoded_tensor(y[:1]), self.device)
        if sample_weight is not None or self._batch_weights(target) is not None:
            check_can_be_weighted(criterion)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", message="Using a target size")
                loss = self._loss(criterion, output, target)
        except (RuntimeError, TypeError, ValueError, IndexError, UserWarning) as error:
            raise ValueError(
                f"criterion={type(criterion).__name__} cannot compare outputs of shape "
                f"{tuple(output.shape)} with targets of shape {tuple(target.shape)} and dtype "
                f"{target.dtype}: {error}"
            ) from error
        if (
            not isinstance(loss, Tensor)
            or loss.numel() != 1
            or getattr(criterion, "reduction", "mean") not in ("mean", "sum")
        ):
            raise ValueError(
                f"criterion={type(criterion).__name__} must return one number per batch: use "
                "criterion__reduction='mean' or 'sum'."
            )

    def get_loss(self, y_pred, y_true, X=None, training=False):
        """Return the loss of one batch.

        With class or sample weights ``w_i`` this is ``sum_i w_i l_i / sum_i w_i`` over the batch
        (``sum_i w_i l_i`` under ``reduction="sum"``); without, it is the criterion's own value.

        Parameters
        ----------
        y_pred : tensor of shape (n, ...)
            Outputs of the module.
        y_true : tensor of shape (n,) or (n, k)
            Encoded targets; sample weights are their attribute ``sample_weight``.
        X : tensor of shape (n, ...), default=None
            Not used.
        training : bool, default=False
            Not used.

        Returns
        -------
        tensor of shape ()
        """
        return self._loss(self.criterion_, y_pred, y_true)

    def _loss(self, criterion, y_pred, y_true):
        weights = self._batch_weights(y_true)
        y_pred, target = self._align(criterion, y_pred, to_device(y_true, y_pred.device))
        if weights is None:
            return criterion(y_pred, target)
        weights = weights.to(y_pred.device, y_pred.dtype)
        return weighted_loss(uncompiled(criterion), y_pred, target, weights)

    def _batch_weights(self, y_true):
        return getattr(y_true, "sample_weight", None)

    # -- data ----------------------------------------------------------------------------------

    def input_tensor(self, X) -> Tensor:
        """Return rows as the module sees them.

        Parameters
        ----------
        X : array-like of shape (n, n_features) or (n, ...)
            Rows as for ``predict``.

        Returns
        -------
        tensor of shape (n, n_features) or (n, ...)
            In the dtype of the module's parameters, on the net's device.
        """
        self.check_is_fitted(["module_"])
        rows = cast_rows(self._check_rows(X, reset=False), self._input_dtype())
        return to_device(rows, self.device)

    def target_tensor(self, y) -> Tensor:
        """Return targets as the criterion sees them.

        Parameters
        ----------
        y : array-like of shape (n,) or (n, k)
            Labels or real targets as for ``fit``.

        Returns
        -------
        tensor of shape (n,) or (n, k)
            Class indices (int64), or floating targets for regression and for criteria of one
            output; on the net's device.
        """
        self.check_is_fitted(["module_"])
        return to_device(self._encoded_tensor(self._check_targets(y)), self.device)

    def loss_row_weights(self, y, sample_weight=None) -> np.ndarray | None:
        """Return the weights of rows in the loss, before their normalisation.

        Parameters
        ----------
        y : array-like of shape (n,) or (n, k)
            Labels or real targets as for ``fit``.
        sample_weight : array-like of shape (n,), default=None
            Weights as for ``fit``.

        Returns
        -------
        ndarray of shape (n,), float64, or None
            Class weight times sample weight; None if all rows weigh the same.
        """
        if sample_weight is None:
            return None
        return np.asarray(sample_weight, dtype=np.float64)

    def _input_dtype(self) -> torch.dtype:
        floating = (p.dtype for p in self.module_.parameters() if p.is_floating_point())
        return next(floating, torch.get_default_dtype())

    def _check_rows(self, X, *, reset) -> np.ndarray:
        rows = input_array(X)
        # Tensors, such as callbacks predict, cannot carry the names of columns.
        if reset or (hasattr(self, "input_shape_") and not isinstance(X, Tensor)):
            validate_data(self, X, reset=reset, skip_check_array=True)
        check_finite_columns(rows, getattr(self, "feature_names_in_", None))
        if reset:
            self.input_shape_ = rows.shape[1:]
            self._input_is_single = rows.dtype in (np.float16, np.float32)
        elif getattr(self, "input_shape_", rows.shape[1:]) != rows.shape[1:]:
            raise ValueError(
                f"Rows of X have shape {rows.shape[1:]}, but {type(self).__name__} was fitted on "
                f"rows of shape {self.input_shape_}."
            )
        return rows

    def get_dataset(self, X, y=None):
        """Return rows as a data set the loaders take; see ``skorch.NeuralNet.get_dataset``."""
        return X if is_dataset(X) else self._dataset(self._check_rows(X, reset=False), y)

    def _dataset(self, rows, y=None):
        targets = None if y is None else self._encoded_tensor(y)
        return super().get_dataset(cast_rows(rows, self._input_dtype()), targets)

    def _training_rows(self, rows, y, sample_weight):
        dataset = self._dataset(rows, y)
        if sample_weight is not None:
            sample_weight = torch.as_tensor(sample_weight.copy(), dtype=self._input_dtype())
        return TrainingRows(dataset, dataset.X, y, sample_weight)

    def _outputs(self, X) -> np.ndarray:
        """Return the module's outputs in evaluation mode, float64."""
        check_is_fitted(self)
        outputs = self.forward(X)
        if isinstance(outputs, tuple):
            outputs = outputs[0]
        return outputs.detach().numpy().astype(np.float64)
