"""Ctrl-C and SIGTERM, without leaving worker processes behind."""

import contextlib
import signal
import sys
import threading

# As in shells: 128 plus the number of the signal.
INTERRUPTED = 128 + signal.SIGINT


class Terminated(KeyboardInterrupt):
    """SIGTERM, which batch systems and `kill` send, handled like Ctrl-C."""

    exit_code = 128 + signal.SIGTERM


@contextlib.contextmanager
def sigterm_raises():
    """Have SIGTERM raise `Terminated` instead of ending the process at once.

    Python then exits its contexts, which stores finished features and ends workers.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield  # another program with its own handler
        return

    def end(number, frame):
        # A second SIGTERM ends the process at once.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def end_workers():
    """End the worker processes of joblib, which outlive their parent by minutes.

    Each holds a network, and its inputs are in shared memory.
    """
    loky = sys.modules.get("joblib.externals.loky.reusable_executor")
    # The public function would start an executor if there is none.
    executor = getattr(loky, "_executor", None)
    if executor is None:
        return
    # joblib's own executor also releases its shared memory.
    end = getattr(executor, "terminate", executor.shutdown)
    end(kill_workers=True)
