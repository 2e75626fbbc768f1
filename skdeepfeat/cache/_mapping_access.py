"""Many entries of a mapping at once, in whichever way it does that best."""

import inspect
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor

__all__ = ["CHUNK", "Entries"]

# Entries asked for at once. Their bytes are in memory together.
CHUNK = 512


class Entries:
    """The entries of somebody's mapping.

    Parameters
    ----------
    mapping : MutableMapping
        With fsspec's ``getitems``, ``setitems`` and ``delitems`` it is asked for many
        entries at once.
    n_threads : int
        How many may use it at the same moment where it has no such methods. dict and
        object stores allow any number, `shelve` and `dbm` just one.
    """

    def __init__(self, mapping: MutableMapping, n_threads: int):
        self.mapping = mapping
        self._n_threads = n_threads
        # A file system that is not asynchronous would go through them one by one,
        # and a local one would not make the folders.
        is_batched = getattr(getattr(mapping, "fs", None), "async_impl", False)
        self._is_batched = is_batched and _takes(mapping, "getitems", "on_error")

    def get(self, names: list[str]) -> Iterator[dict]:
        """Yield {name: value}, some at a time, without those that are not there.

        Raises
        ------
        Exception
            Whatever the mapping raises, once what it did return is out.
        """
        for chunk in _chunks(names):
            if self._is_batched:
                found = self.mapping.getitems(chunk, on_error="return")
            else:
                found = dict(zip(chunk, self._each(self._get, chunk), strict=True))
            errors = [each for each in found.values() if isinstance(each, Exception)]
            errors = [each for each in errors if not isinstance(each, KeyError)]
            yield {
                name: value
                for name, value in found.items()
                if not isinstance(value, Exception)
            }
            if errors:
                raise errors[0]

    def set(self, values: Mapping[str, bytes]) -> None:
        """Store entries."""
        if self._is_batched:
            for chunk in _chunks(list(values)):
                self.mapping.setitems({name: values[name] for name in chunk})
        else:
            errors = self._each(self._set, list(values.items()))
            for error in filter(None, errors):
                raise error

    def delete(self, names: list[str]) -> None:
        """Remove entries; it does not matter if somebody else has."""
        for chunk in _chunks(names):
            if self._is_batched and hasattr(self.mapping, "delitems"):
                self.mapping.delitems(chunk)
            else:
                for name in chunk:
                    self.mapping.pop(name, None)

    def names(self) -> Iterable[str]:
        """Return the names of all entries, also of those that are not ours."""
        return list(self.mapping)

    def _get(self, name):
        # Handed on as values, so that one that fails does not cost the others.
        try:
            return self.mapping[name]
        except Exception as error:
            return error

    def _set(self, entry):
        try:
            self.mapping[entry[0]] = entry[1]
        except Exception as error:
            return error

    def _each(self, function, items):
        if self._n_threads == 1 or len(items) < 2:
            return [function(item) for item in items]
        n_threads = min(self._n_threads, len(items))
        with ThreadPoolExecutor(n_threads, "skdeepfeat-cache") as pool:
            return list(pool.map(function, items))


def _takes(mapping, method, parameter):
    try:
        return parameter in inspect.signature(getattr(mapping, method)).parameters
    except (AttributeError, TypeError, ValueError):
        return False


def _chunks(items: list) -> Iterator[list]:
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]
