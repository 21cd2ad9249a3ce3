"""A torch network as a scikit-learn regressor: one target or several."""

import torch
from skorch import NeuralNetRegressor
from torch import nn

from sharpfit.networks._estimator import NetworkEstimator
from sharpfit.networks.validation import cast_rows, check_regression_targets


class NetworkRegressor(NetworkEstimator, NeuralNetRegressor):
    """A torch network as a scikit-learn regressor.

    A ``skorch.NeuralNetRegressor`` that takes what scikit-learn regressors take and passes
    ``check_estimator``.

    Parameters
    ----------
    module : nn.Module class, instance or None, default=None
        The network, with one output per target. None builds a `MultilayerPerceptron` from the
        data, whose arguments are ``module__hidden``, ``module__activation``, ``module__dropout``
        and ``module__dtype``. An instance is copied, never trained itself.
    criterion : nn.Module class, default=nn.MSELoss
        Loss whose ``reduction`` is "mean" or "sum".
    optimizer : torch.optim.Optimizer class, default=SGD
        Optimiser; SGD has momentum 0.9 unless ``optimizer__momentum`` is given.
    lr : float, default=0.02
        Learning rate. Targets far from unit scale need another one, or a
        ``TransformedTargetRegressor`` that scales them.
    max_epochs : int, default=50
        Passes over the rows per call of ``fit`` or ``partial_fit``.
    batch_size : int, default=128
        Rows per update; -1 takes all rows at once. Training rows are shuffled unless
        ``iterator_train__shuffle=False``.
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
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features,)
        Column names, if `X` had some.
    input_shape_, target_shape_ : tuple of int
        Shapes of one row and of its target.
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
    NetworkClassifier : The classifier; its notes hold here as well.

    Examples
    --------
    >>> from sklearn.datasets import make_regression
    >>> from sklearn.preprocessing import scale
    >>> from sharpfit import NetworkRegressor
    >>> X, y = make_regression(200, 5, random_state=0)
    >>> NetworkRegressor(random_state=0).fit(X, scale(y)).score(X, scale(y)) > 0.95
    True
    """

    def __init__(
        self,
        module=None,
        *,
        criterion=nn.MSELoss,
        optimizer=torch.optim.SGD,
        lr=0.02,
        max_epochs=50,
        batch_size=128,
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
            intervention=intervention,
            random_state=random_state,
            **skorch_params,
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _check_targets(self, y, rows=None):
        return check_regression_targets(y, rows)

    def _learn_targets(self, y):
        self.target_shape_ = y.shape[1:]

    def _encode(self, y):
        if y.shape[1:] != self.target_shape_:
            raise ValueError(
                f"y has shape {y.shape}, but the network was fitted on targets of shape "
                f"{('n', *self.target_shape_)}."
            )
        return y

    def _encoded_tensor(self, y):
        return cast_rows(self._encode(y), self._input_dtype(), name="y")

    def _n_outputs(self):
        return self.target_shape_[0] if self.target_shape_ else 1

    def _check_output(self, output):
        width = self._n_outputs()
        shapes = {(1, width)} | ({(1,)} if width == 1 else set())
        if not isinstance(output, torch.Tensor) or tuple(output.shape) not in shapes:
            shape = (
                tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
            )
            raise ValueError(
                f"The module returned {shape} for one row, but targets with {width} value(s) need "
                f"the shape (1, {width}). Give the module {width} output(s)."
            )

    def _align(self, criterion, y_pred, target):
        # Without this, (n, 1) outputs and (n,) targets would broadcast to (n, n).
        return y_pred, target.reshape(y_pred.shape)

    def predict(self, X):
        """Return predictions.

        Parameters
        ----------
        X : array-like of shape (n, n_features) or (n, ...)
            Rows.

        Returns
        -------
        ndarray of shape (n,) or (n, k), float64
            In the shape of the targets the net was fitted on.
        """
        outputs = self._outputs(X)
        if not hasattr(self, "target_shape_"):
            # Loaded weights without data: one output per row means single targets.
            return outputs.reshape(-1) if outputs[:1].size == 1 else outputs
        return outputs.reshape(len(outputs), *self.target_shape_)

    @property
    def predict_proba(self):
        """Not available, though every skorch net has this method: use ``predict``."""
        raise AttributeError("NetworkRegressor has no predict_proba; use predict.")
