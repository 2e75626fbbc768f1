"""Files behind addresses (``s3://``, ``https://``, ``zip://...::...``), through fsspec.

Nothing here happens unless the user gave `storage_options`: a table with a column of
addresses must not make a program reach for the network by itself.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from typing import Any

from skdeepfeat._utils._digests import digest_bytes
from skdeepfeat._utils._optional import import_optional
from skdeepfeat._utils._printable import redacted
from skdeepfeat._utils._shown import shown_path
from skdeepfeat._utils._suggestions import did_you_mean
from skdeepfeat.exceptions import BadImageError

from ._cells import read_until
from ._files import FileMemo, Remembering, absolute_path, ignore, working_folder
from ._image_limits import check_length
from ._remote_identity import Version, identify, is_settled
from ._spool import Spool
from ._thread_pool import ThreadPool

__all__ = ["RemoteFiles", "RemotePlace", "fresh_options", "in_words", "open_place"]

# Downloads at the same time: they wait for the network, not for a core. It is also
# the number of files whose bytes are in memory.
_AT_ONCE = 32
# Bytes. Of larger files one is in memory at a time.
_LARGE = 2**25
# Files between two visits to the memo, as for local ones.
_WINDOW = 1024


@dataclass(frozen=True)
class RemotePlace:
    """A file system of fsspec, opened for one X.

    Attributes
    ----------
    fs : fsspec.AbstractFileSystem
    options : dict
        What the user gave.
    lock : context manager
        Held while `fs` is used; does nothing where it may be used by many threads.
    """

    fs: Any
    options: Mapping
    lock: Any

    @property
    def is_archive(self) -> bool:
        """Whether it is a ZIP or TAR file, or the like, of which files are read."""
        from fsspec.archive import AbstractArchiveFileSystem

        return isinstance(self.fs, AbstractArchiveFileSystem)


class RemoteFiles:
    """What X's addresses lead to: read, digested, and remembered for a while.

    Parameters
    ----------
    storage_options : mapping
        The file system's options. They go to the one protocol that X uses, or, under
        its name, to one of several: ``{"s3": {"anon": True}}``.
    limit : int or None, default=None
        How many bytes a file may have; None for any number.
    """

    def __init__(self, storage_options: Mapping, limit: int | None = None):
        self._options = storage_options
        self._limit = limit
        # Where relative paths in addresses begin; None is the working folder of the
        # moment.
        self._folder: str | None = None
        self._begin()

    def _begin(self):
        self._lock = threading.RLock()
        self._large = threading.Lock()
        self._places: dict[tuple, RemotePlace | BadImageError] = {}
        self._spool = Spool()

    def __getstate__(self):
        # Connections, locks and files stay where they are; a worker opens its own.
        names = ("_options", "_limit", "_folder")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state):
        vars(self).update(state)
        self._begin()

    def seen_from(self, folder: str) -> "RemoteFiles":
        """Return the same with a folder where relative paths begin, wherever it goes.

        Parameters
        ----------
        folder : str
        """
        new = object.__new__(RemoteFiles)
        vars(new).update(vars(self))  # what is open, and the spool, are shared
        new._folder = folder
        return new

    def read(self, address: str) -> bytes:
        """Return the content of a file, from the spool if it has just been digested.

        Parameters
        ----------
        address : str

        Returns
        -------
        bytes
            Not empty.

        Raises
        ------
        BadImageError
            If it cannot be read.
        ImportError
            Without fsspec.
        """
        data = self._spool.get(address)
        if data is None:
            with contextlib.ExitStack() as held:
                data = self._download(address, held)
        return data

    def digests(
        self,
        addresses: Sequence[str],
        memo: FileMemo | None,
        on_done: Callable[[int], object] | None = None,
    ) -> list[bytes | BadImageError]:
        """Return the content digest of each file, or why there is none.

        What is read for it is kept in a spool, as far as there is room, until its
        pixels are wanted.

        Parameters
        ----------
        addresses : sequence of str
            A file that is named twice is read once.
        memo : FileMemo or None
            Files that it knows, in the same version, are not read. It is told of the
            others every second, so that little is lost when this is interrupted.
        on_done : callable or None, default=None
            Told how many further `addresses` are done, from this thread.

        Returns
        -------
        list of bytes or BadImageError, in the order of `addresses`
        """
        results: dict[str, bytes | BadImageError | None] = dict.fromkeys(addresses)
        self._refuse_unusable(results)
        unknown = [address for address, result in results.items() if result is None]
        on_done = on_done or ignore
        # The other places where a file is named are done with its first.
        on_done(len(addresses) - len(unknown))
        if unknown:
            containers: dict[str, Version | None] = {}
            with ThreadPool(_AT_ONCE, "skdeepfeat-download") as pool:
                for start in range(0, len(unknown), _WINDOW):
                    window, versions = unknown[start : start + _WINDOW], {}
                    if memo is not None:
                        versions = self._recall(window, results, memo, pool, containers)
                    left = [address for address in window if results[address] is None]
                    on_done(len(window) - len(left))
                    self._digest(left, results, versions, memo, pool, on_done)
        return [results[address] for address in addresses]

    def _refuse_unusable(self, results):
        """Fill in what is wrong with a whole file system: in full once only."""
        first = {}
        for address in results:
            try:
                self._place(address)
            except BadImageError as error:
                named = first.setdefault(error.cause, address)
                if named != address:
                    error = BadImageError(
                        f"its file system cannot be used, for the reason given for "
                        f"{shown_path(named)}"
                    )
                results[address] = error

    def _recall(self, addresses, results, memo, pool, containers):
        """Fill in what the memo knows; return the versions of all that have one."""

        def look(address):
            try:
                return self._version(address, containers)
            except Exception:
                # Reading the file will tell what is wrong, and better: some
                # file systems say "not found" here whatever it was.
                return None

        versions = dict(zip(addresses, pool.map(look, addresses), strict=True))
        versions = {address: each for address, each in versions.items() if each}
        stats = [version.stat for version in versions.values()]
        for address, digest in zip(versions, memo.lookup(stats), strict=True):
            results[address] = digest
        return versions

    def _version(self, address, containers):
        place = self._place(address)
        address = _absolute(address, self._folder)
        if _is_wrapped(address):
            return None  # what fsspec's caches hold may be older than what they say
        if place.is_archive:
            # Its members' times and checksums are whatever its maker wrote there.
            container = address.partition("::")[2]
            if not container:
                return None
            with self._lock:
                if container not in containers:
                    containers[container] = self._version(container, containers)
            found = containers[container]
            return None if found is None else found.of_member(address)
        with place.lock:
            return identify(place.fs, address, place.options)

    def _digest(self, addresses, results, versions, memo, pool, on_done):
        def digest(address):
            with contextlib.ExitStack() as held:
                try:
                    data = self._download(address, held)
                except BadImageError as error:
                    return error
                self._spool.put(address, data)
                return digest_bytes(data)

        futures = {pool.submit(digest, address): address for address in addresses}
        with Remembering(memo) as remembering:
            # As they come: a slow one keeps nothing from being remembered.
            for future in as_completed(futures):
                address, result = futures[future], future.result()
                results[address] = result
                version = versions.get(address)
                if isinstance(result, bytes) and version and is_settled(version):
                    remembering.add(version.stat, result)
                on_done(1)

    def _download(self, address, held):
        """Return the content of a file; `held` is left when it is not needed any more.

        Only then another large one is read.
        """
        place = self._place(address)
        address = _absolute(address, self._folder)
        try:
            with place.lock:
                if _is_wrapped(address):
                    fs, path = _open_wrapped(address, self._options)
                else:
                    fs, path = place.fs, address.partition("::")[0]
                    if place.is_archive and fs.isdir(path):
                        raise IsADirectoryError(path)
                data = _read(fs, path, self._limit, functools.partial(self._wait, held))
        except BadImageError:
            raise
        except Exception as error:
            # Each file system brings the errors of its own library (botocore,
            # aiohttp, zipfile ...): there is no common base.
            text = redacted(in_words(error, address), self._options)
            raise BadImageError(text) from without_secrets(error, self._options)
        if not data:
            raise BadImageError("it is empty (0 bytes)")
        return bytes(data)

    def _wait(self, held):
        held.enter_context(self._large)

    def _place(self, address):
        """Return the `RemotePlace` of an address; raise what is wrong with it."""
        fsspec = import_optional("fsspec", extra="remote", purpose="Reading addresses")
        address = _absolute(address, self._folder)
        with self._lock:
            try:
                key = _place_key(fsspec, address)
                if _is_wrapped(address):
                    return self._place(address.partition("::")[2])
                if key not in self._places:
                    self._places[key] = open_place(address, self._options)
            except BadImageError:
                raise
            except Exception as error:
                key = _protocols(address)[0], address.partition("::")[2]
                fault = _unusable(fsspec, error, address, self._options)
                self._places.setdefault(key, fault)
            found = self._places[key]
        if isinstance(found, BadImageError):
            raise BadImageError(found.cause) from found.__cause__
        return found


def open_place(address: str, options: Mapping) -> RemotePlace:
    """Return the file system that an address is on, newly opened.

    fsspec keeps file systems alive with the listings that they once made: an object
    that was replaced since would be taken for what it was.
    """
    from fsspec.core import url_to_fs
    from fsspec.implementations.local import LocalFileSystem
    from fsspec.implementations.memory import MemoryFileSystem

    fs, _ = url_to_fs(address, **fresh_options(address, options))
    # fsspec makes no promise for others: it gives each thread an instance of its own,
    # which for an archive would mean reading its list of files for each.
    is_shareable = fs.async_impl or isinstance(fs, (LocalFileSystem, MemoryFileSystem))
    lock = contextlib.nullcontext() if is_shareable else threading.RLock()
    return RemotePlace(fs, dict(options), lock)


def fresh_options(address: str, options: Mapping) -> dict:
    """Return the keyword arguments for fsspec: new file systems, nobody's dict."""
    options = _copied(options)
    for protocol in _protocols(address):
        inner = options.get(protocol, {})
        if isinstance(inner, dict):
            options[protocol] = {**inner, "skip_instance_cache": True}
    return options


def _copied(options):
    # fsspec writes to the inner ones.
    return {
        name: dict(value) if isinstance(value, Mapping) else value
        for name, value in options.items()
    }


def _protocols(address):
    """Return the protocols of a chain, by fsspec's own rule."""
    import fsspec

    known = fsspec.available_protocols()
    return [
        bit.partition("://")[0] if "://" in bit else bit if bit in known else "file"
        for bit in address.split("::")
    ]


def _is_wrapped(address):
    """Whether an address begins with a protocol alone: ``simplecache::...``."""
    return "://" not in address.partition("::")[0]


def _absolute(address, folder):
    """Return an address whose last link, if it is a local path, is an absolute one.

    ``zip://1.jpg::../all.zip`` is another file for a worker in another folder.
    """
    import fsspec

    before, chain, last = address.rpartition("::")
    protocol, _, path = last.rpartition("://")
    is_local = protocol in ("", "file", "local")
    if not is_local or last in fsspec.available_protocols():
        return address
    if not path.startswith(("/", "~")):  # fsspec expands the home folder
        path = absolute_path(path, working_folder() if folder is None else folder)
    if "::" in path:  # fsspec would take what follows for another link
        return address
    return f"{before}{chain}{protocol or 'file'}://{path}"


def _read(fs, path, limit, on_large):
    """Return the content of a file that has at most `limit` bytes."""
    from fsspec import AbstractFileSystem
    from fsspec.archive import AbstractArchiveFileSystem

    # In a stream: what a server or an archive says of the length may be wrong, and
    # what is compressed may become anything.
    is_opened = type(fs).cat_file is AbstractFileSystem.cat_file and not fs.async_impl
    if is_opened or isinstance(fs, AbstractArchiveFileSystem):
        with fs.open(path, "rb") as file:
            return _read_in_parts(file, limit, on_large)
    if "http" in fs.protocol:
        # With any size it does not ask for the size first.
        with fs.open(path, "rb", block_size=0, size=1) as file:
            return _read_in_parts(file, limit, on_large)
    data = _read_range(fs, path, limit)
    check_length(len(data), limit)
    if len(data) >= _LARGE:
        on_large()
    return data


def _read_range(fs, path, limit):
    if limit is None:
        return fs.cat_file(path)
    try:
        return fs.cat_file(path, start=0, end=limit + 1)
    except Exception:
        # Stores refuse a range of what is empty.
        with contextlib.suppress(Exception):
            if fs.info(path).get("size") == 0:
                return b""
        raise


def _read_in_parts(file, limit, on_large):
    start = file.read(_LARGE)
    while start and len(start) < _LARGE:
        more = file.read(_LARGE - len(start))
        if not more:
            return start
        start += more
    if not start:
        return start
    on_large()
    return start + read_until(file, limit, n_before=len(start))


def _open_wrapped(address, options):
    """Return the file system and path of a file in one of fsspec's caches.

    They are made for one address each, so fsspec keeps them, not we.
    """
    from fsspec.core import url_to_fs

    return url_to_fs(address, **_copied(options))


def _place_key(fsspec, address):
    head, _, tail = address.partition("::")
    protocol = head.partition("://")[0]
    # Some addresses name the host, the user or the repository.
    options = fsspec.get_filesystem_class(protocol)._get_kwargs_from_urls(head)
    return protocol, tail, repr(sorted(options.items()))


# -- What can go wrong


def without_secrets(error: Exception, options: Mapping) -> Exception | None:
    """Return an error as the cause of another, None if its text shows secrets."""
    text = str(error)
    return error if redacted(text, options) == text else None


def _unusable(fsspec, error, address, options):
    """Return what is wrong with a whole file system."""
    protocol = address.partition("://")[0].rpartition("::")[2]
    text = _text(error)
    if isinstance(error, ImportError):
        cause = (
            f"the protocol {protocol!r} needs a package that is not installed: {text}"
        )
    elif isinstance(error, ValueError) and "not known" in text:
        known = fsspec.available_protocols()
        cause = (
            f"fsspec knows no protocol {protocol!r}.{did_you_mean(protocol, known)} "
            "fsspec.available_protocols() lists those it knows"
        )
    elif isinstance(error, TypeError):
        cause = (
            f"storage_options do not fit the protocol {protocol!r} ({text}): they are "
            "the options of its file system in fsspec"
        )
    else:
        cause = in_words(error, address)
    fault = BadImageError(redacted(cause, options))
    fault.__cause__ = without_secrets(error, options)
    return fault


def in_words(error: Exception, address: str) -> str:
    """Return what kept us from an address, with the way out."""
    # HTTP's "not found" may be anything: what it was made from says what.
    status = getattr(error, "status", None)
    names = {each.__name__ for each in type(error).__mro__}
    if isinstance(error, PermissionError) or status in (401, 403):
        return (
            f"there is no permission to read it ({_text(error)}): give credentials "
            f"with storage_options={{...}}{_anonymous(address)}"
        )
    if names & {"NoCredentialsError", "PartialCredentialsError", "DefaultCredentials"}:
        return (
            f"no credentials were found ({_text(error)}): give them with "
            f"storage_options={{...}}{_anonymous(address)}"
        )
    if isinstance(error, (FileNotFoundError, KeyError)) or status == 404:
        return "there is no such file at this address"
    if isinstance(error, IsADirectoryError):
        return "it is a folder, not an image file"
    if isinstance(error, MemoryError):
        return "there is not enough memory to read it"
    if isinstance(error, (ConnectionError, TimeoutError)) or names & {
        "ClientConnectionError",
        "EndpointConnectionError",
        "ConnectionError",
        "HTTPClientError",
    }:
        return f"the connection failed ({_text(error)}): is the address reachable?"
    return f"it cannot be read ({type(error).__name__}: {_text(error)})"


def _anonymous(address):
    protocol = address.partition("://")[0].rpartition("::")[2]
    names = {"s3": "{'anon': True}", "s3a": "{'anon': True}", "gs": "{'token': 'anon'}"}
    if protocol not in names:
        return ""
    return f", or read a public one with storage_options={names[protocol]}"


def _text(error):
    return redacted(" ".join(str(error).split()))[:300] or type(error).__name__
