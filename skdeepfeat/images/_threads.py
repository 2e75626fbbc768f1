"""How many threads read and hash."""

import joblib

__all__ = ["resolve_threads"]


def resolve_threads(n_threads: int | None) -> int:
    """Return the number of threads; None means as many as help.

    More than there are cores, because they wait for the disk half of the time.
    """
    if n_threads is None:
        return min(16, 2 * joblib.cpu_count())
    return max(1, int(n_threads))
