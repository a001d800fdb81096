"""Signals: SIGTERM and SIGUSR1, with which a scheduler ends a job, stop a command as Ctrl-C does, but with an exit code
that asks the scheduler to start the command again."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

REQUEUE = 75
"""Exit code of a command that was stopped by a signal and can be started again; EX_TEMPFAIL in sysexits.h."""
STOPPING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""Signals of a scheduler; Windows has only the first."""
DELAY = 5.0
"""Seconds after which a process that waits outside of Python is ended by a signal."""


class Interruption(KeyboardInterrupt):
    """A signal stopped the command; `code` is the exit code."""

    def __init__(self, reason: str, code: int = REQUEUE) -> None:
        super().__init__(reason)
        self.code = code


_received: list[int] = []
"""The signals that were raised in the current block of `stoppable`."""


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Within the block, SIGTERM and SIGUSR1 raise Interruption, unless this process ignores them. Only the main thread
    can arrange that."""
    before = {number: signal.getsignal(number) for number in STOPPING if _in_main_thread()}
    try:
        for number, handler in before.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, _stop)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _received.clear()


def ignore() -> None:
    """Let signals of a scheduler no longer change the exit code, once a command is done."""
    for number in STOPPING if _in_main_thread() else ():
        signal.signal(number, signal.SIG_IGN)


def _stop(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    raise Interruption(f"Received {signal.Signals(number).name}.")


@contextlib.contextmanager
def deferred(receive: Callable[[int], None]) -> Iterator[None]:
    """Within the block, this function is called after Ctrl-C, SIGTERM and SIGUSR1, with the number of the signal. It is
    also called for an Interruption that was caught before, as Python does in destructors."""
    for number in _received:
        receive(number)

    def handle(number: int, frame: FrameType | None) -> None:
        receive(number)

    numbers = (signal.SIGINT, *STOPPING) if _in_main_thread() else ()
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def ended_while_waiting() -> Iterator[None]:
    """In a block of `stoppable` in which the process may wait outside of Python, where no handler is called: a signal
    ends the process if the block has not ended DELAY seconds later."""
    if not (_in_main_thread() and _stop in map(signal.getsignal, STOPPING)):
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    ended = threading.Event()

    def watch() -> None:
        while number := os.read(reader, 1):
            if number[0] in STOPPING and not ended.wait(DELAY):
                os._exit(REQUEUE)

    watcher = threading.Thread(target=watch, name="signals", daemon=True)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(before)
        os.close(writer)
        watcher.join()
        os.close(reader)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
