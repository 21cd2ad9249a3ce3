"""scikit-learn's callbacks, in the versions that have them (1.9 and later)."""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sharpfit.curvature import Progress

if importlib.util.find_spec("sklearn.callback") is None:

    class CallbackSupport:
        """Stands in for scikit-learn's mixin, and supports nothing."""

    def with_callbacks(method: Callable[..., Any]) -> Callable[..., Any]:
        """Return the method as it is."""
        return method

else:
    from sklearn.callback import CallbackSupportMixin as CallbackSupport
    from sklearn.callback import with_callbacks

__all__ = ["CallbackProgress", "CallbackSupport", "fit_progress", "with_callbacks"]


class CallbackProgress(Progress):
    """Hands progress on to the callbacks that are set on an estimator.

    The fit is the root task, its parts are the tasks below it, and products those below a part.
    A callback that asks to stop ends the work as Ctrl-C does.

    Parameters
    ----------
    estimator : CallbackSupport
        The estimator, inside its fit.
    data : dict
        What the callbacks may ask for: ``X``, ``y`` and ``metadata``.
    """

    def __init__(self, estimator: Any, data: dict[str, Any]) -> None:
        self._hook_arguments = {"estimator": estimator, **data}
        self._open_tasks: list[Any] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Surround one part; see `Progress`."""
        # How many products it takes is not known before.
        with self.task(self._open_tasks[-1].subcontext(task_name=name, max_subtasks=None)):
            yield

    @contextmanager
    def product(self) -> Iterator[None]:
        """Surround one product; see `Progress`."""
        with self.task(self._open_tasks[-1].subcontext(task_name="product")):
            yield

    @contextmanager
    def task(self, context: Any) -> Iterator[None]:
        """Surround a task with the hooks of its context.

        Parameters
        ----------
        context : sklearn.callback.CallbackContext
            Of the task.

        Yields
        ------
        None
        """
        context.call_on_fit_task_begin(**self._hook_arguments)
        self._open_tasks.append(context)
        try:
            yield
        finally:
            self._open_tasks.pop()
            stop = context.call_on_fit_task_end(**self._hook_arguments)
        if stop and self._open_tasks:
            raise KeyboardInterrupt


@contextmanager
def fit_progress(estimator: Any, n_parts: int, **data: Any) -> Iterator[Progress]:
    """Surround the fit of an estimator with the hooks of its callbacks.

    Parameters
    ----------
    estimator : estimator object
        Its ``fit`` is decorated by `with_callbacks`.
    n_parts : int
        How many parts the work has at most.
    **data : dict
        ``X``, ``y`` and ``metadata`` of the fit.

    Yields
    ------
    Progress
        To be told of the parts; does nothing where scikit-learn has no callbacks.
    """
    if not hasattr(estimator, "_init_callback_context"):
        yield Progress()
        return
    progress = CallbackProgress(estimator, data)
    with progress.task(estimator._init_callback_context(max_subtasks=n_parts)):
        yield progress
