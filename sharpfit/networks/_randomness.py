"""A private random stream for a network: the global generators are lent and given back."""

import contextlib
import copy
import threading
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from sklearn.utils import check_random_state

# Everything NumPy's legacy seeding accepts.
_SEED_BOUND = 2**32
# The global generators can be lent to one stream at a time; others wait, also those of threads.
_lending = threading.RLock()


def fresh_seed(random_state) -> int:
    """Return a seed from `random_state`; None gives fresh entropy, not NumPy's global stream."""
    if random_state is None:
        return int(np.random.default_rng().integers(_SEED_BOUND))
    if isinstance(random_state, int | np.integer) and 0 <= random_state < _SEED_BOUND:
        return int(random_state)
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def module_devices(module: torch.nn.Module) -> list[torch.device]:
    """Return the accelerators on which a module's parameters are."""
    return accelerators_among(parameter.device for parameter in module.parameters())


def accelerators_among(devices: Iterable[torch.device]) -> list[torch.device]:
    """Return the devices that have generators of their own, each once and with its index."""
    accelerators = set()
    for device in devices:
        if device.type in ("cpu", "meta"):
            continue
        if device.index is None and device.type != "mps":
            index = torch.get_device_module(device).current_device()
            device = torch.device(device.type, index)
        accelerators.add(device)
    return sorted(accelerators, key=str)


def get_states(devices: list[torch.device]) -> dict:
    """Return the states of the global generators of NumPy, the CPU and `devices`."""
    return {
        "numpy": np.random.get_state(),  # noqa: NPY002 - the global stream itself is meant
        "cpu": torch.get_rng_state(),
        **{str(d): torch.get_device_module(d).get_rng_state(*_argument(d)) for d in devices},
    }


def set_states(states: dict, devices: list[torch.device]) -> None:
    """Set the states of the global generators; see `get_states`."""
    np.random.set_state(states["numpy"])  # noqa: NPY002
    torch.set_rng_state(states["cpu"])
    for device in devices:
        if str(device) in states:
            backend = torch.get_device_module(device)
            backend.set_rng_state(states[str(device)], *_argument(device))


def seed_generators(seed: int, devices: list[torch.device]) -> None:
    """Seed the global generators of NumPy, the CPU and `devices`, and of no other device."""
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    for device in devices:
        backend = torch.get_device_module(device)
        if device.type == "mps":
            backend.manual_seed(seed)
        else:
            backend.default_generators[device.index].manual_seed(seed)


def _argument(device: torch.device) -> tuple[torch.device, ...]:
    # Metal has one device and functions without an argument for it.
    return () if device.type == "mps" else (device,)


@contextlib.contextmanager
def untouched_generators(devices: list[torch.device]) -> Iterator[None]:
    """Give the global generators of torch back as they were found.

    Waits for networks that train in other threads: they would go on with the state given back.
    """
    with _lending, torch.random.fork_rng(devices=devices):
        yield


class RandomStream:
    """Random state of one network, kept between calls of ``partial_fit``.

    Modules, optimisers, loaders and augmentations draw from the global generators of torch and
    NumPy. Inside `active` these generators hold this stream; afterwards they are as before.

    Parameters
    ----------
    random_state : None, int or numpy.random.RandomState
        Where the stream starts. None starts it anywhere.
    """

    def __init__(self, random_state=None) -> None:
        self.seed = fresh_seed(random_state)
        self._states: dict | None = None
        self._borrowed: list[torch.device] | None = None

    @property
    def is_active(self) -> bool:
        """Whether the global generators hold this stream at the moment."""
        return self._borrowed is not None

    def __getstate__(self) -> dict:
        # A net pickled or copied in the middle of training takes the stream as it stands.
        states = self._states if self._borrowed is None else get_states(self._borrowed)
        return {"seed": self.seed, "_states": copy.deepcopy(states), "_borrowed": None}

    @contextlib.contextmanager
    def active(self, devices: Iterable[torch.device] = ()) -> Iterator[None]:
        """Lend the global generators of the CPU and of `devices` to this stream."""
        if self.is_active:
            yield
            return
        accelerators = accelerators_among(devices)
        with _lending:
            lent = copy.deepcopy(get_states(accelerators))
            self._borrowed = accelerators
            try:
                self._start(accelerators)
                yield
            finally:
                self._states = copy.deepcopy(get_states(accelerators))
                self._borrowed = None
                set_states(lent, accelerators)

    def _start(self, accelerators: list[torch.device]) -> None:
        if self._states is None:
            seed_generators(self.seed, accelerators)
        else:
            set_states(self._states, accelerators)
