"""Being told to stop: by Ctrl-C, by a service manager, by a closed terminal, by a closed pipe."""

from __future__ import annotations

import os
import select
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# A closed terminal sends SIGHUP, which Windows does not have.
_STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


@contextmanager
def interrupting_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP interrupt the block as Ctrl-C does, and none of them its clean-up.

    A signal that was ignored from the start, as by `nohup`, stays ignored.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for number in previous:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    previous = {
        number: signal.getsignal(number)
        for number in _STOPPING
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        for number in previous:
            signal.signal(number, interrupt)
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def until_stopped() -> Iterator[None]:
    """Run a block whose normal end is to be interrupted by a signal."""
    try:
        with interrupting_signals():
            yield
    except KeyboardInterrupt:
        pass  # what the block had open is closed by now


def call_when_output_closes(callback: Callable[[], object]) -> None:
    """Call back, in a thread, once nobody reads our standard output any more.

    Without it a program that waits for news would learn of it only by writing the next line. Does
    nothing when the output is no pipe, or on Windows, where a pipe cannot be waited for.
    """
    descriptor = sys.stdout.fileno()
    mode = os.fstat(descriptor).st_mode
    if not hasattr(select, "poll") or not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return

    def wait() -> None:
        poll = select.poll()
        poll.register(descriptor, 0)  # POLLERR and POLLHUP are reported unasked
        poll.poll()
        callback()

    threading.Thread(target=wait, name="svcreg-output", daemon=True).start()
