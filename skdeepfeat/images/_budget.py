"""The number of bytes of images that decoding threads hold in memory."""

import contextlib
import threading
from collections import deque
from concurrent.futures import CancelledError

import joblib

__all__ = ["ByteBudget", "Share", "share_of"]

# Bytes. A photo of 12 megapixels takes 84 MB while it is decoded; more cores decode
# more of them at once.
_AT_LEAST = 2**30
_PER_CORE = 2**27


class ByteBudget:
    """Bytes that threads take before they use them, and wait for where none are left.

    Something larger than all of it is let through alone.

    Parameters
    ----------
    total : int or None, default=None
        In bytes. None: 1 GiB, or 128 MiB for each core, whichever is more.
    """

    def __init__(self, total: int | None = None):
        if total is None:
            total = max(_AT_LEAST, _PER_CORE * joblib.cpu_count())
        self.total = total
        self._changed = threading.Condition()
        self._used = 0
        self._n_active = 0  # shares that hold something and do not wait for more
        self._waiting: deque[object] = deque()
        self._is_closed = False

    @contextlib.contextmanager
    def share(self):
        """Lend a `Share` that is given back at the end."""
        share = Share(self)
        try:
            yield share
        finally:
            share.give_back()

    def close(self):
        """Have all who wait, or will, end with CancelledError."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _take(self, n_bytes, share):
        ticket = object()
        with self._changed:
            # Who waits for more does not keep others from going on, or two that hold
            # a part each would wait for each other.
            self._n_active -= share.held > 0
            self._waiting.append(ticket)
            self._changed.notify_all()
            try:
                self._changed.wait_for(lambda: self._is_next(ticket, n_bytes))
                if self._is_closed:
                    raise CancelledError
                self._used += n_bytes
                share.held += n_bytes
            finally:
                self._waiting.remove(ticket)
                self._n_active += share.held > 0
                self._changed.notify_all()

    def _is_next(self, ticket, n_bytes):
        if self._is_closed:
            return True
        fits = self._used + n_bytes <= self.total or self._n_active == 0
        # In turn, or a large one would wait until there are no small ones left.
        return fits and self._waiting[0] is ticket

    def _give_back(self, share):
        with self._changed:
            self._used -= share.held
            self._n_active -= share.held > 0
            share.held = 0
            self._changed.notify_all()


def share_of(budget: ByteBudget | None):
    """Return a context that lends a share of a budget, or None where there is none."""
    return contextlib.nullcontext() if budget is None else budget.share()


class Share:
    """What one image takes of a `ByteBudget`.

    Parameters
    ----------
    budget : ByteBudget
    """

    def __init__(self, budget: ByteBudget):
        self._budget = budget
        self.held = 0

    def take(self, n_bytes: int):
        """Take some bytes, or wait until others have given theirs back."""
        if n_bytes > 0:
            self._budget._take(n_bytes, self)

    def give_back(self):
        """Give back all that was taken."""
        if self.held:
            self._budget._give_back(self)
