"""A limit on the memory that decoding threads use together."""

import threading
from collections import deque
from concurrent.futures import CancelledError

import joblib

# Bytes. A photo of 12 megapixels takes 84 MB while it is decoded; more cores decode
# more of them at once.
_AT_LEAST = 2**30
_PER_CORE = 2**27


class ByteBudget:
    """A number of bytes that threads take before they use them.

    A thread waits while there are not enough left. A request for more than the total is
    granted when no other thread holds any.

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
        self._n_active = 0  # shares that hold bytes and do not wait for more
        self._waiting: deque[object] = deque()
        self._is_closed = False

    def close(self):
        """Raise CancelledError in all threads that wait, now or later."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()


class Share:
    """The bytes that one image takes of a budget, for the body of a ``with``.

    Parameters
    ----------
    budget : ByteBudget or None
        None is a budget without a limit.
    """

    def __init__(self, budget: ByteBudget | None):
        self._budget = budget
        self.n_bytes = 0

    def take(self, n_bytes: int):
        """Take bytes, or wait until others have given theirs back."""
        budget, ticket = self._budget, object()
        if budget is None or n_bytes <= 0:
            return

        def is_next():
            fits = budget._used + n_bytes <= budget.total or budget._n_active == 0
            # First come, first served, so that small requests cannot starve a large
            # one.
            return budget._is_closed or (fits and budget._waiting[0] is ticket)

        with budget._changed:
            fits_at_once = budget._used + n_bytes <= budget.total
            if fits_at_once and not budget._waiting and not budget._is_closed:
                budget._used += n_bytes
                budget._n_active += self.n_bytes == 0
                self.n_bytes += n_bytes
                return
            # A share that waits does not count as active. Otherwise two shares that
            # both hold bytes and need more would wait for each other.
            budget._n_active -= self.n_bytes > 0
            budget._waiting.append(ticket)
            budget._changed.notify_all()
            try:
                budget._changed.wait_for(is_next)
                if budget._is_closed:
                    raise CancelledError
                budget._used += n_bytes
                self.n_bytes += n_bytes
            finally:
                budget._waiting.remove(ticket)
                budget._n_active += self.n_bytes > 0
                budget._changed.notify_all()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        budget = self._budget
        if self.n_bytes:
            with budget._changed:
                budget._used -= self.n_bytes
                budget._n_active -= 1
                self.n_bytes = 0
                budget._changed.notify_all()
