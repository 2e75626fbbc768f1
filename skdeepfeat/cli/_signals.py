"""Ctrl-C and SIGTERM: an end that leaves nothing behind."""

import contextlib
import signal
import sys
import threading

__all__ = ["INTERRUPTED", "Terminated", "end_workers", "sigterm_raises"]

# As shells count: 128 and the number of the signal.
INTERRUPTED = 128 + signal.SIGINT


class Terminated(KeyboardInterrupt):
    """SIGTERM, as batch systems and `kill` send it: what Ctrl-C is, from afar."""

    exit_code = 128 + signal.SIGTERM


@contextlib.contextmanager
def sigterm_raises():
    """Have SIGTERM raise `Terminated`, where it would end the process on the spot.

    Python then leaves its contexts: what was computed is kept, workers are ended.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield  # somebody else's program, with a handler of its own
        return

    def end(number, frame):
        # Asked twice, it does not wait for anything.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def end_workers():
    """End joblib's worker processes, which outlive their parent by minutes.

    Each holds a network, and what they were sent lies in shared memory.
    """
    loky = sys.modules.get("joblib.externals.loky.reusable_executor")
    # Asking for it by its public name would start one where there is none.
    executor = getattr(loky, "_executor", None)
    if executor is None:
        return
    # joblib's own kind knows which shared memory is to be given back.
    end = getattr(executor, "terminate", executor.shutdown)
    end(kill_workers=True)
