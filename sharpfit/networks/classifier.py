"""A torch network as a scikit-learn classifier: labels, class weights, probabilities."""

import numpy as np
import torch
from sklearn.utils import compute_class_weight
from skorch import NeuralNetClassifier
from skorch.utils import is_dataset
from torch import nn

from sharpfit.networks._estimator import NetworkEstimator
from sharpfit.networks.outputs import (
    ONE_OUTPUT,
    check_probabilities,
    class_log_probabilities,
    class_scores,
    expected_width,
    uncompiled,
)
from sharpfit.networks.validation import check_labels, encode_labels


class NetworkClassifier(NetworkEstimator, NeuralNetClassifier):
    """A torch network as a scikit-learn classifier.

    A ``skorch.NeuralNetClassifier`` that takes what scikit-learn classifiers take, labels of any
    kind included, and passes ``check_estimator``.

    Parameters
    ----------
    module : nn.Module class, instance or None, default=None
        The network, with one output per class. None builds a `MultilayerPerceptron` from the
        data, whose arguments are ``module__hidden``, ``module__activation``, ``module__dropout``
        and ``module__dtype``. An instance is copied, never trained itself.
    criterion : nn.Module class, default=nn.CrossEntropyLoss
        Loss whose ``reduction`` is "mean" or "sum". Under ``BCEWithLogitsLoss`` the module has
        one output for two classes; under ``NLLLoss`` it returns probabilities, as in skorch.
    optimizer : torch.optim.Optimizer class, default=SGD
        Optimiser; SGD has momentum 0.9 unless ``optimizer__momentum`` is given.
    lr : float, default=0.02
        Learning rate.
    max_epochs : int, default=50
        Passes over the rows per call of ``fit`` or ``partial_fit``.
    batch_size : int, default=128
        Rows per update; -1 takes all rows at once. Training rows are shuffled unless
        ``iterator_train__shuffle=False``.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in the loss, by label; "balanced" weighs classes inversely to
        their frequency in the rows of the first training call.
    classes : array-like of shape (n_classes,), default=None
        All class labels, if `y` may lack some, or for a net that gets its weights from a file.
    intervention : Intervention, list of Intervention or None, default=None
        Changes to the training steps, such as ``SharpnessAwareMinimisation()``; the first of a
        list is the outermost. A single one's parameters are ``intervention__radius`` and so on.
    random_state : int, RandomState or None, default=None
        Seed of weights, shuffling and dropout. The global generators of torch and NumPy stay as
        they are, whatever it is.
    train_split, verbose, iterator_train, iterator_valid, dataset, callbacks, \
predict_nonlinearity, warm_start, device, compile, use_caching, torch_load_kwargs : object
        As in ``skorch.NeuralNet``, with ``train_split=None`` (every row is trained on) and
        ``verbose=0`` as defaults.
    **skorch_params : dict
        Parameters of the module, criterion, optimiser, loaders and callbacks by their prefix,
        such as ``module__hidden``, and any other parameter of ``skorch.NeuralNet``.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted class labels.
    class_weight_ : ndarray of shape (n_classes,) or None
        Weight of every class in the loss.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features,)
        Column names, if `X` had some.
    input_shape_ : tuple of int
        Shape of one row.
    n_iter_ : int
        Epochs of the last call of ``fit`` or ``partial_fit``.
    history : skorch.history.History
        Losses and scores per epoch and batch.
    training_rows_hash_ : str or None
        `rows_hash` of the training rows; None after training on different sets of rows in turn.
    trained_on_data_loss_ : bool
        Whether the last training minimised the data loss, without a penalty or mixed rows.
        Analyses always read the data loss.

    See Also
    --------
    NetworkRegressor : The regressor.

    Notes
    -----
    *Loss.* With class and sample weights, a batch's loss is
    ``sum_i w_i l_i / sum_i w_i`` with ``w_i`` the class weight times the sample weight of row `i`:
    torch's class-weighted mean. Under ``reduction="sum"`` it is ``sum_i w_i l_i``.

    *Precision.* The network built by default takes the precision of `X`: float64 (and integer)
    rows train in float64, float32 rows in float32, faster on large networks; on an accelerator it
    is float32. For a module of yours, rows are cast to the dtype of its parameters; one that looks
    up integers converts them back in its ``forward``.

    *Convergence.* ``fit`` issues a ``ConvergenceWarning`` if the training loss is not finite, or
    if it was still falling: the mean loss of the last fifth of the epochs lies below that of the
    fifth before by more than 5 % of the whole decline. Runs under 10 epochs are not judged.

    *Going on.* ``partial_fit`` and ``warm_start=True`` train `max_epochs` more epochs and continue
    the net's random stream: two calls give the weights of one call with twice the epochs.

    *Trained or not.* A net counts as fitted once it has a training history or loaded weights; a
    net that was only initialised does not.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import train_test_split
    >>> from sharpfit import NetworkClassifier
    >>> X, X_test, y, y_test = train_test_split(*load_digits(return_X_y=True), random_state=0)
    >>> network = NetworkClassifier(module__hidden=(32,), random_state=0).fit(X, y)
    >>> network.score(X_test, y_test) > 0.95
    True
    """

    def __init__(
        self,
        module=None,
        *,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        lr=0.02,
        max_epochs=50,
        batch_size=128,
        class_weight=None,
        classes=None,
        intervention=None,
        random_state=None,
        **skorch_params,
    ):
        super().__init__(
            module,
            criterion=criterion,
            optimizer=optimizer,
            lr=lr,
            max_epochs=max_epochs,
            batch_size=batch_size,
            classes=classes,
            intervention=intervention,
            random_state=random_state,
            **skorch_params,
        )
        self.class_weight = class_weight

    def partial_fit(self, X, y, classes=None, sample_weight=None, **fit_params):
        """Train `max_epochs` more epochs from the present weights.

        Parameters
        ----------
        X : array-like of shape (n, n_features) or (n, ...)
            Rows.
        y : array-like of shape (n,)
            Labels.
        classes : array-like of shape (n_classes,), default=None
            All labels that will ever come; read by the first call, which otherwise takes those in
            its `y`.
        sample_weight : array-like of shape (n,), default=None
            Non-negative weights of the rows in the loss.
        **fit_params : dict
            Handed to the module's ``forward`` and to `train_split`, as in skorch.

        Returns
        -------
        self
        """
        first = not hasattr(self, "input_shape_")
        if (
            classes is not None
            and not first
            and not np.array_equal(np.unique(classes), self.classes_)
        ):
            raise ValueError(
                f"classes={list(classes)} differ from those of the first call, "
                f"{self.classes_.tolist()}."
            )
        self._train(
            X,
            y,
            sample_weight,
            fit_params,
            restart=not self.initialized_,
            reset=first,
            classes=classes,
        )
        self._warn_of_convergence(judge_trend=False)
        return self

    @property
    def classes_(self):
        """Sorted class labels, ndarray of shape (n_classes,)."""
        if hasattr(self, "classes_inferred_"):
            return self.classes_inferred_
        if self.classes is not None:
            return np.unique(self.classes)
        raise AttributeError(
            f"{type(self).__name__} has no classes_ before fit; give classes= to a net that gets "
            "its weights from a file."
        )

    # -- targets -------------------------------------------------------------------------------

    def _check_targets(self, y, rows=None):
        return check_labels(y, rows)

    def _learn_targets(self, y, classes=None):
        classes = self.classes if classes is None else classes
        self.classes_inferred_ = np.unique(y if classes is None else classes)
        if len(self.classes_inferred_) < 2:
            raise ValueError(
                f"y holds one class only ({self.classes_inferred_.tolist()[0]!r}); a classifier "
                "needs at least two. Check the target, or name all labels with classes=."
            )
        self.class_weight_ = self._weights_of_classes(y)

    def _weights_of_classes(self, y):
        if self.class_weight is None:
            return None
        present = np.intersect1d(self.classes_, y)
        weights = np.ones(len(self.classes_))
        weights[np.isin(self.classes_, present)] = compute_class_weight(
            self.class_weight, classes=present, y=y
        )
        return weights

    def _encode(self, y):
        return encode_labels(y, self.classes_)

    def _encoded_tensor(self, y):
        one_output = isinstance(uncompiled(self.criterion_), ONE_OUTPUT)
        dtype = self._input_dtype() if one_output else torch.int64
        return torch.tensor(self._encode(y), dtype=dtype)

    def _n_outputs(self):
        kind = self.criterion if isinstance(self.criterion, type) else type(self.criterion)
        return 1 if issubclass(kind, ONE_OUTPUT) else len(self.classes_)

    def _check_output(self, output):
        n_classes = len(self.classes_)
        width = expected_width(self.criterion_, n_classes)
        shapes = {(1, width)} | ({(1,)} if width == 1 else set())
        if not isinstance(output, torch.Tensor) or tuple(output.shape) not in shapes:
            shape = (
                tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
            )
            raise ValueError(
                f"The module returned {shape} for one row, but {n_classes} classes under "
                f"{type(self.criterion_).__name__} need the shape (1, {width}). Give the module "
                f"{width} output(s)."
            )
        check_probabilities(self.criterion_, output)

    def _batch_weights(self, y_true):
        sample_weight = super()._batch_weights(y_true)
        if getattr(self, "class_weight_", None) is None:
            return sample_weight
        weights = torch.as_tensor(self.class_weight_, device=y_true.device)[y_true.long()]
        return weights if sample_weight is None else weights * sample_weight

    def loss_row_weights(self, y, sample_weight=None):
        """Return the weights of rows in the loss, before their normalisation.

        Parameters
        ----------
        y : array-like of shape (n,)
            Labels.
        sample_weight : array-like of shape (n,), default=None
            Weights as for ``fit``.

        Returns
        -------
        ndarray of shape (n,), float64, or None
            Class weight times sample weight; None if all rows weigh the same.
        """
        sample_weight = super().loss_row_weights(y, sample_weight)
        if getattr(self, "class_weight_", None) is None:
            return sample_weight
        weights = self.class_weight_[self._encode(self._check_targets(y))]
        return weights if sample_weight is None else weights * sample_weight

    def _align(self, criterion, y_pred, target):
        kind = uncompiled(criterion)
        if isinstance(kind, ONE_OUTPUT):
            return y_pred, target.reshape(y_pred.shape)
        if isinstance(kind, nn.NLLLoss):
            # skorch's convention: modules return probabilities under NLLLoss.
            return torch.log(y_pred + torch.finfo(y_pred.dtype).eps), target
        return y_pred, target

    # -- predictions ---------------------------------------------------------------------------

    def decision_function(self, X):
        """Return confidence scores.

        Parameters
        ----------
        X : array-like of shape (n, n_features) or (n, ...)
            Rows.

        Returns
        -------
        ndarray of shape (n,) or (n, n_classes), float64
            Log-odds of the second class for two classes, otherwise one score per class: the logits,
            or the logarithms of the probabilities where the module returns those.
        """
        scores = self._class_scores(X)
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def predict_log_proba(self, X):
        """Return the logarithms of the class probabilities.

        Parameters
        ----------
        X : array-like of shape (n, n_features) or (n, ...)
            Rows.

        Returns
        -------
        ndarray of shape (n, n_classes), float64
        """
        outputs = self._outputs(X)
        if self._has_own_nonlinearity():
            probabilities = self.predict_nonlinearity(torch.from_numpy(outputs)).numpy()
            return np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
        return class_log_probabilities(self.criterion_, outputs)

    def predict_proba(self, X):
        """Return class probabilities.

        Parameters
        ----------
        X : array-like of shape (n, n_features) or (n, ...)
            Rows.

        Returns
        -------
        ndarray of shape (n, n_classes), float64
            Columns in the order of ``classes_``.
        """
        return np.exp(self.predict_log_proba(X))

    def predict(self, X):
        """Return predicted class labels.

        Parameters
        ----------
        X : array-like of shape (n, n_features) or (n, ...)
            Rows.

        Returns
        -------
        ndarray of shape (n,)
            Labels. For a skorch ``Dataset``, whose targets are encoded, the indices of the classes.
        """
        indices = self._class_scores(X).argmax(axis=1)
        return indices if is_dataset(X) else self.classes_[indices]

    def _has_own_nonlinearity(self):
        return callable(self.predict_nonlinearity)

    def _class_scores(self, X):
        if self._has_own_nonlinearity():
            return self.predict_log_proba(X)
        outputs = self._outputs(X)
        return class_scores(self.criterion_, outputs)
