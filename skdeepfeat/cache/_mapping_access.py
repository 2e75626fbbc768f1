"""Many entries of a mapping at once, in the fastest way that the mapping has."""

import inspect
from collections.abc import Iterator, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor

__all__ = ["Entries"]

# Entries asked for at once. Their bytes are in memory together.
_CHUNK = 512


class Entries:
    """The entries of a user's mapping.

    Parameters
    ----------
    mapping : MutableMapping
        If it has fsspec's ``getitems``, ``setitems`` and ``delitems``, it is asked for
        many entries at once.
    n_threads : int
        How many threads may use it at once if it has no such methods. dict and object
        stores allow any number, `shelve` and `dbm` only one.
    """

    def __init__(self, mapping: MutableMapping, n_threads: int):
        self.mapping = mapping
        self._n_threads = n_threads
        # A file system that is not asynchronous would go through them one by one,
        # and a local one would not make the folders.
        is_batched = getattr(getattr(mapping, "fs", None), "async_impl", False)
        self._is_batched = is_batched and _takes(mapping, "getitems", "on_error")

    def get(self, names: list[str]) -> Iterator[tuple[str, object]]:
        """Yield (name, value) of the entries that exist.

        Raises
        ------
        Exception
            Whatever the mapping raises, after what it did return.
        """
        for chunk in _chunks(names):
            if self._is_batched:
                found = self.mapping.getitems(chunk, on_error="return")
            else:
                values = self._each(self.mapping.__getitem__, chunk)
                found = dict(zip(chunk, values, strict=True))
            errors = []
            for name, value in found.items():
                if not isinstance(value, Exception):
                    yield name, value
                elif not isinstance(value, KeyError):
                    errors.append(value)
            if errors:
                raise errors[0]

    def set(self, values: Mapping[str, bytes]) -> None:
        """Store entries."""
        if self._is_batched:
            for chunk in _chunks(list(values)):
                self.mapping.setitems({name: values[name] for name in chunk})
        else:
            results = self._each(
                self.mapping.__setitem__, list(values), list(values.values())
            )
            for error in filter(None, results):
                raise error

    def delete(self, names: list[str]) -> None:
        """Remove entries; those that do not exist do not matter."""
        for chunk in _chunks(names):
            if self._is_batched and hasattr(self.mapping, "delitems"):
                self.mapping.delitems(chunk)
            else:
                for name in chunk:
                    self.mapping.pop(name, None)

    def names(self) -> list[str]:
        """Return the names of all entries, also of those that are not ours."""
        return list(self.mapping)

    def _each(self, function, *arguments):
        """Return the results of calls; an exception is a result like any other.

        So one entry that fails does not cost the others.
        """

        def call(*entry):
            try:
                return function(*entry)
            except Exception as error:
                return error

        n_threads = min(self._n_threads, len(arguments[0]))
        if n_threads < 2:
            return list(map(call, *arguments))
        with ThreadPoolExecutor(n_threads, "skdeepfeat-cache") as pool:
            return list(pool.map(call, *arguments))


def _takes(mapping, method, parameter):
    try:
        return parameter in inspect.signature(getattr(mapping, method)).parameters
    except (AttributeError, TypeError, ValueError):
        return False


def _chunks(items: list) -> Iterator[list]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]
