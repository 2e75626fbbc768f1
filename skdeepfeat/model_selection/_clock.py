"""A budget of seconds, and what is left of it."""

import time


class Clock:
    """A budget of seconds."""

    def __init__(self, budget):
        self.budget = budget
        self._start = time.perf_counter()

    @property
    def elapsed(self):
        """Seconds since the beginning."""
        return time.perf_counter() - self._start

    def left(self, fraction=1.0):
        """Return the seconds until a fraction of the budget is spent."""
        return fraction * self.budget - self.elapsed
