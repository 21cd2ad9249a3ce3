"""How a network is put together: parameters, private randomness, module, optimiser, loaders."""

import contextlib
import copy
import inspect

import torch
from skorch import NeuralNet
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils.data import DataLoader

from sharpfit.networks._randomness import RandomStream
from sharpfit.networks.datasets import (
    SLICING_OPTIONS,
    TrainingRows,
    WeightedBatches,
    can_slice,
    slicing_loader,
    tensors_of,
    underlying_dataset,
)
from sharpfit.networks.interventions import Intervention
from sharpfit.networks.modules import MultilayerPerceptron


class NetworkComponents(NeuralNet):
    """A skorch net with scikit-learn's parameters, its own random stream and a default module.

    Subclasses define `_n_outputs`, the number of outputs the targets ask for.
    """

    # One row for modules that take their shapes from a first forward pass, during `fit`.
    _example = None

    def __init__(
        self,
        module=None,
        *,
        criterion,
        optimizer=torch.optim.SGD,
        lr=0.02,
        max_epochs=50,
        batch_size=128,
        intervention=None,
        random_state=None,
        train_split=None,
        verbose=0,
        **skorch_params,
    ):
        super().__init__(
            module,
            criterion=criterion,
            optimizer=optimizer,
            lr=lr,
            max_epochs=max_epochs,
            batch_size=batch_size,
            train_split=train_split,
            verbose=verbose,
            **skorch_params,
        )
        self.intervention = intervention
        self.random_state = random_state

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__.__signature__ = _full_signature(cls)

    def _get_param_names(self):
        # skorch keeps notes of its own in private attributes; they are no parameters.
        return [name for name in vars(self) if not name.startswith("_") and name[-1] != "_"]

    def set_params(self, **params):
        """Set parameters.

        As in skorch, parameters of the optimiser take effect at once, and parameters of the
        module or the criterion build these anew: such a net is no longer trained.

        Parameters
        ----------
        **params : dict
            Parameters by name, also nested ones such as ``module__hidden``.

        Returns
        -------
        self
        """
        if "intervention" in params:
            self.intervention = params.pop("intervention")
        nested = {name for name in params if name.startswith("intervention__")}
        for name in nested:
            if not isinstance(self.intervention, Intervention):
                raise ValueError(
                    f"{name} cannot be set, as intervention={self.intervention!r} is no single "
                    "intervention. Set intervention= first, or search over whole interventions."
                )
            parameter = name.removeprefix("intervention__")
            self.intervention.set_params(**{parameter: params.pop(name)})
        if not self.initialized_:
            if "callbacks" in params:
                # skorch would build them at once, before they can be checked.
                self.callbacks = params.pop("callbacks")
            return super().set_params(**params)
        module = getattr(self, "module_", None)
        for name, value in params.items():
            if name.startswith("optimizer__") and "param_groups" not in name:
                # skorch changes the optimiser only, and the next fit would return to the old value.
                setattr(self, name, value)
        with self._own_randomness():
            super().set_params(**params)
        if getattr(self, "module_", None) is not module:
            self._weights_loaded = False
            self.initialize_history()
        return self

    def __repr__(self, N_CHAR_MAX=700):
        defaults = _full_signature(type(self)).parameters
        changed = [
            f"{name}={getattr(value, '__name__', None) or repr(value)}"
            for name, value in self.get_params(deep=False).items()
            if name not in defaults or not _same(value, defaults[name].default)
        ]
        text = f"{type(self).__name__}({', '.join(changed)})"
        if len(text) > N_CHAR_MAX:
            text = text[: N_CHAR_MAX // 2] + "..." + text[-N_CHAR_MAX // 2 :]
        return text

    # -- randomness ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def _own_randomness(self):
        """Draw from the net's own random stream; the global generators stay as they are."""
        if not hasattr(self, "_stream"):
            self._stream = RandomStream(self.random_state)
        with self._stream.active(self._devices()):
            yield

    def _devices(self):
        """Devices whose generators this net may draw from."""
        devices = set() if self.device is None else {torch.device(self.device)}
        for module in (self.module, getattr(self, "module_", None)):
            if isinstance(module, nn.Module):
                devices |= {parameter.device for parameter in module.parameters()}
        return devices

    # -- module, optimiser, loaders ------------------------------------------------------------

    def initialize(self):
        """Build callbacks, module, criterion and optimiser without training.

        Returns
        -------
        self
        """
        self._weights_loaded = False
        if not (hasattr(self, "_stream") and self._stream.is_active):
            self._stream = RandomStream(self.random_state)
        with self._own_randomness():
            return super().initialize()

    def initialize_criterion(self):
        """Build the criterion, its weights in the precision of the module.

        Returns
        -------
        self
        """
        super().initialize_criterion()
        if isinstance(self.criterion_, nn.Module):
            # A copy: an instance that the user handed over keeps its precision.
            self.criterion_ = copy.deepcopy(self.criterion_).to(self._input_dtype())
        return self

    def initialize_module(self):
        """Build the module, by default a multilayer perceptron for the data's width.

        Returns
        -------
        self
        """
        kwargs = self.get_params_for("module")
        module = self.module
        if module is None:
            module = MultilayerPerceptron
            kwargs = {**self._data_arguments(kwargs), **kwargs}
        # Training must not change an instance the user handed over.
        self.module_ = self.initialized_instance(copy.deepcopy(module), kwargs)
        if self._example is not None and any(map(is_lazy, self.module_.parameters())):
            # Lazy modules take their shapes from a first forward pass, before the optimiser.
            with torch.no_grad():
                self.module_.eval()(self._example)
        return self

    def _data_arguments(self, kwargs):
        """Return the arguments that the reference module takes from the data."""
        if "in_features" in kwargs and "n_outputs" in kwargs:
            return {}
        if not hasattr(self, "input_shape_"):
            raise ValueError(
                "module=None builds a network for the data, which are not known before fit. Call "
                "fit, or give module__in_features and module__n_outputs."
            )
        if len(self.input_shape_) != 1:
            raise ValueError(
                f"module=None builds a network for rows of features, but the rows of X have shape "
                f"{self.input_shape_}. Pass a module class that takes them."
            )
        on_cpu = self.device is None or torch.device(self.device).type == "cpu"
        double = on_cpu and not self._input_is_single
        return {
            "in_features": self.input_shape_[0],
            "n_outputs": self._n_outputs(),
            "dtype": torch.float64 if double else torch.float32,
        }

    def get_params_for_optimizer(self, prefix, named_parameters):
        """Collect the optimiser's parameters; SGD has momentum 0.9 unless it is given."""
        args, kwargs = super().get_params_for_optimizer(prefix, named_parameters)
        if self.optimizer is torch.optim.SGD:
            kwargs.setdefault("momentum", 0.9)
        return args, kwargs

    def get_iterator(self, dataset, training=False):
        """Return a loader of batches; training rows are shuffled unless told otherwise."""
        dataset = tensors_of(dataset)
        rows = underlying_dataset(dataset)
        kwargs = self.get_params_for("iterator_train" if training else "iterator_valid")
        iterator = self.iterator_train if training else self.iterator_valid
        kwargs.setdefault("batch_size", self.batch_size)
        if kwargs["batch_size"] == -1:
            kwargs["batch_size"] = len(dataset)
        elif (
            training
            and isinstance(rows, TrainingRows)
            and iterator is DataLoader
            and not kwargs.keys() & {"shuffle", "sampler", "batch_sampler"}
        ):
            kwargs["shuffle"] = True
        if iterator is DataLoader and kwargs.keys() <= SLICING_OPTIONS and can_slice(dataset):
            loader = slicing_loader(dataset, **kwargs)
        else:
            loader = iterator(dataset, **kwargs)
        if not training and isinstance(loader, DataLoader) and loader.generator is None:
            # Loaders draw a seed even for rows in order; not from the global stream.
            loader.generator = torch.Generator()
        if getattr(rows, "sample_weight", None) is not None:
            return WeightedBatches(loader)
        return loader

    # -- state ---------------------------------------------------------------------------------

    def load_params(self, *args, **kwargs):
        """Load weights, optimiser, criterion or history; see ``skorch.NeuralNet.load_params``.

        A net whose weights were loaded counts as trained.
        """
        super().load_params(*args, **kwargs)
        if args or kwargs.keys() & {"f_params", "f_module", "checkpoint"}:
            self._weights_loaded = True

    def trim_for_prediction(self):
        """Drop what only training needs; see ``skorch.NeuralNet.trim_for_prediction``.

        The criterion stays, as it says how outputs become probabilities.
        """
        criterion, criterion_ = self.criterion, self.criterion_
        super().trim_for_prediction()
        self.criterion, self.criterion_ = criterion, criterion_
        self._weights_loaded = True

    def __sklearn_is_fitted__(self):
        """Whether the net is trained: it has a history or loaded weights."""
        return bool(self.initialized_ and (self.history or getattr(self, "_weights_loaded", False)))


def _full_signature(kind):
    """Signature of a constructor with the parameters that it hands on to its base classes.

    scikit-learn prints the parameters that differ from the defaults it finds here.
    """
    parameters, rest = {}, None
    for base in kind.__mro__:
        if "__init__" not in vars(base) or not issubclass(base, NeuralNet):
            continue
        for name, parameter in inspect.signature(base.__init__).parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                rest = rest or parameter
            elif base is kind:
                parameters[name] = parameter
            elif parameter.kind is not inspect.Parameter.VAR_POSITIONAL:
                as_keyword = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
                parameters.setdefault(name, as_keyword)
    return inspect.Signature([*parameters.values(), *([rest] if rest else [])])


def _same(value, default) -> bool:
    return value is default or (
        isinstance(value, str | int | float | bool)
        and type(value) is type(default)
        and value == default
    )
