"""Interrupts that a training keeps to itself."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts_end_the_run() -> Iterator[None]:
    """Raise, when the block is over, an interrupt that the block has swallowed.

    skorch ends a training at Ctrl-C and returns what has been learned as if it were finished,
    and its own callbacks stop a training in the same way. Only the signal tells them apart:
    a network that the user interrupted is no run of a comparison, and must not be kept as one.

    Raises
    ------
    KeyboardInterrupt
        If the process was interrupted in the block.
    """
    previous = signal.getsignal(signal.SIGINT)
    # Handlers can be set in the main thread alone; one set outside Python cannot be put back.
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield
        return
    interrupted = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        previous(number, frame)

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if interrupted:
        raise KeyboardInterrupt
