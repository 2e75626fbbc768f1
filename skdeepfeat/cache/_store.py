"""The store that stores nothing, instead of ``if cache is None`` everywhere."""

import contextlib

from ._disk_limits import Limits

__all__ = ["NullStore"]


class NullStore:
    """The store of ``cache=None``."""

    limits = Limits(None)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def read(self, namespaces, keys, rows, sheets):
        """Read nothing."""

    def all_known(self, namespaces, keys):
        """Return False."""
        return False

    def hold(self, namespaces, place):
        """Lock nothing: there is nothing to share."""
        return contextlib.nullcontext()

    def write(self, namespaces, keys, rows):
        """Store nothing."""

    def n_features(self, namespace):
        """Return None: not known."""

    def settle_variant(self, namespace, name, data, fits):
        """Return the name of a new variant."""
        return name

    def finish(self):
        """Do nothing."""

    def recall_files(self, stats):
        """Return None for each file."""
        return [None] * len(stats)

    def remember_files(self, stats, digests):
        """Forget them."""
