"""Many entries of a mapping at once, in the fastest way that the mapping has."""

import sys
from collections.abc import Iterator, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

# Entries that are requested at once. Their bytes are in memory together.
_CHUNK = 512


class Entries:
    """The entries of a user's mapping.

    Parameters
    ----------
    mapping : MutableMapping
        fsspec's mappings of remote places are asked for many entries at once.
    n_threads : int
        How many threads may use any other mapping at once. dict and object stores allow
        any number, `shelve` and `dbm` only one.
    """

    def __init__(self, mapping: MutableMapping, n_threads: int):
        self.mapping: Any = mapping
        self._n_threads = n_threads
        fsspec = sys.modules.get("fsspec")
        # A synchronous file system would process them one by one, and a local one would
        # not create the folders.
        self._is_batched = (
            fsspec is not None
            and isinstance(mapping, fsspec.FSMap)
            and mapping.fs.async_impl
        )

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
        for names in _chunks(list(values)):
            if self._is_batched:
                self.mapping.setitems({name: values[name] for name in names})
                continue
            stored = [values[name] for name in names]
            for error in self._each(self.mapping.__setitem__, names, stored):
                if error is not None:
                    raise error

    def delete(self, names: list[str]) -> None:
        """Remove entries; those that do not exist do not matter."""
        for chunk in _chunks(names):
            if self._is_batched:
                self.mapping.delitems(chunk)
            else:
                for name in chunk:
                    self.mapping.pop(name, None)

    def _each(self, function, *arguments):
        """Return the results of calls; an exception is a result like any other.

        So one entry that fails does not affect the other entries.
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


def _chunks(items: list) -> Iterator[list]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]
