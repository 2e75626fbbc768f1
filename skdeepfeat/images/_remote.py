"""Files behind addresses (``s3://``, ``https://``, ``zip://...::...``), through fsspec.

Nothing here is used unless the user gave `storage_options`: a table with a column of
addresses must not make a program open connections.

fsspec's caching file systems and its `cat` of many files are not used, because neither
limits the size of a file.
"""

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import as_completed
from typing import Any, NamedTuple

from skdeepfeat._utils._digests import digest_bytes
from skdeepfeat._utils._filestat import FileStat
from skdeepfeat._utils._optional import import_optional
from skdeepfeat._utils._parameter_errors import did_you_mean
from skdeepfeat._utils._printable import redacted
from skdeepfeat._utils._shown import shown_path
from skdeepfeat.exceptions import BadImageError

from ._download_buffer import DownloadBuffer
from ._encoded_images import LARGE, read_until
from ._files import Remembering, absolute_path, ignore
from ._image_limits import check_length
from ._image_source import FileIndex
from ._remote_version import identify, is_settled, of_member
from ._thread_pool import ThreadPool

# Number of simultaneous downloads, which wait for the network and not for a core. It
# is also the number of files whose bytes are in memory.
_AT_ONCE = 32
# Files whose versions are looked up before the first of them is downloaded.
_WINDOW = 1024


class RemotePlace(NamedTuple):
    """A file system of fsspec, opened for one X.

    Attributes
    ----------
    fs : fsspec.AbstractFileSystem
    lock : context manager
        Held while `fs` is used; does nothing if threads can share it.
    """

    fs: Any
    lock: Any


class RemoteFiles:
    """Reads files at addresses and takes their digests.

    Pickled, it is its options: another process opens its own connections.

    Parameters
    ----------
    storage_options : mapping
        The file system's options. They go to the one protocol that X uses, or, under
        its name, to one of several: ``{"s3": {"anon": True}}``.
    limit : int or None
        How many bytes a file may have; None for any number.
    """

    def __init__(self, storage_options: Mapping, limit: int | None):
        self._options = storage_options
        self._limit = limit
        self._lock = threading.RLock()
        self._large = threading.Lock()
        self._places: dict[tuple, RemotePlace] = {}
        self._downloads = DownloadBuffer()

    def __reduce__(self):
        return RemoteFiles, (self._options, self._limit)

    def read(self, address: str) -> bytes:
        """Return the content of a file, without a download if `digests` has kept it.

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
        """
        data = self._downloads.get(address)
        if data is None:
            with self._downloaded(address) as data:
                pass
        return data

    def digests(
        self,
        addresses: Sequence[str],
        file_index: FileIndex | None,
        on_done: Callable[[int], object] | None,
    ) -> list[bytes | BadImageError]:
        """Return the content digest of each file, or why there is none.

        Downloads are kept until they are decoded, up to a limit.

        Parameters
        ----------
        addresses : sequence of str
            A file that is named twice is read once.
        file_index : FileIndex or None
            Files that it knows in the same version are not read. The digests of the
            others are stored every second, so that little is lost on interruption.
        on_done : callable or None
            Called, from this thread, with the number of further `addresses` that are
            done.

        Returns
        -------
        list of bytes or BadImageError, in the order of `addresses`
        """
        results: dict[str, bytes | BadImageError | None] = dict.fromkeys(addresses)
        self._refuse_unusable(results)
        unknown = [address for address, result in results.items() if result is None]
        on_done = on_done or ignore
        # An address that occurs several times counts as unknown once.
        on_done(len(addresses) - len(unknown))
        archives: dict[str, FileStat | None] = {}
        with (
            ThreadPool(_AT_ONCE, "skdeepfeat-download") as pool,
            Remembering(file_index) as remembering,
        ):
            for start in range(0, len(unknown), _WINDOW):
                window, versions = unknown[start : start + _WINDOW], {}
                if file_index is not None:
                    versions = self._versions(window, pool, archives)
                    known = file_index.lookup(list(versions.values()))
                    results.update(zip(versions, known, strict=True))
                left = [address for address in window if results[address] is None]
                on_done(len(window) - len(left))
                futures = {
                    pool.submit(self._digest, address): address for address in left
                }
                # In the order in which they finish, so that a slow file does not
                # delay the storage of other digests.
                for future in as_completed(futures):
                    address, result = futures[future], future.result()
                    results[address] = result
                    version = versions.get(address)
                    if isinstance(result, bytes) and version and is_settled(version):
                        remembering.add(version, result)
                    on_done(1)
        return [results[one] for one in addresses]  # type: ignore[misc]

    def _refuse_unusable(self, results):
        """Fill in the errors of file systems that cannot be opened, in full once."""
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

    def _versions(self, addresses, pool, archives):
        """Return {address: version} of the files that have one; see `identify`."""

        def look(address):
            try:
                return self._version(address, archives)
            except Exception:
                # Reading the file gives a better error: some file systems say
                # "not found" here whatever the reason is.
                return None

        versions = zip(addresses, pool.map(look, addresses), strict=True)
        return {address: version for address, version in versions if version}

    def _version(self, address, archives):
        if _is_wrapped(address):
            return None  # fsspec's caches may return an older content
        place = self._place(address)
        if _is_archive(place.fs):
            # Whoever created it can choose the times and checksums of its members.
            archive = address.partition("::")[2]
            if not archive:
                return None
            with self._lock:
                if archive not in archives:
                    archives[archive] = self._version(archive, archives)
            found = archives[archive]
            return None if found is None else of_member(found, address)
        with place.lock:
            return identify(place.fs, address, self._options)

    def _digest(self, address):
        try:
            with self._downloaded(address) as data:
                self._downloads.put(address, data)
                return digest_bytes(data)
        except BadImageError as error:
            return error

    @contextlib.contextmanager
    def _downloaded(self, address):
        """Lend the content of a file; if it is large, that of no other large file."""
        with contextlib.ExitStack() as stack:

            def wait_for_turn():
                stack.enter_context(self._large)

            with self._explained(address, explain):
                place = self._place(address)
                with place.lock:
                    if _is_wrapped(address):
                        # A cache of single files: fsspec keeps this instance.
                        fs, path = opened(address, _copied(self._options))
                    else:
                        fs, path = place.fs, address.partition("::")[0]
                        if _is_archive(fs) and fs.isdir(path):
                            raise IsADirectoryError(path)
                    data = bytes(_read(fs, path, self._limit, wait_for_turn))
            if not data:
                raise BadImageError("it is empty (0 bytes)")
            yield data

    def _place(self, address):
        """Return the `RemotePlace` of an address; raise what is wrong with it."""
        fsspec = import_fsspec()
        head, _, tail = address.partition("::")
        protocol = head.partition("://")[0]
        with self._lock, self._explained(address, _explain_unusable):
            kind = fsspec.get_filesystem_class(protocol)
            if _is_wrapped(address):
                return self._place(tail)
            # Some addresses name the host, the user or the repository.
            options = sorted(kind._get_kwargs_from_urls(head).items())
            key = protocol, tail, repr(options)
            if key not in self._places:
                self._places[key] = open_place(address, self._options)
            return self._places[key]

    @contextlib.contextmanager
    def _explained(self, address, explain):
        """Turn what fsspec raises into a BadImageError that says what is wrong."""
        try:
            yield
        except BadImageError:
            raise
        except Exception as error:
            # Each file system raises the errors of its own library (botocore, aiohttp,
            # zipfile ...): there is no common base.
            text = redacted(explain(error, address), self._options)
            raise BadImageError(text) from without_secrets(error, self._options)


def import_fsspec():
    """Return the module, or raise the ImportError that names the extra."""
    return import_optional("fsspec", extra="remote", purpose="Reading addresses")


def opened(address: str, options: Mapping) -> tuple[Any, str]:
    """Return the file system of an address, and the path in it."""
    from fsspec.core import url_to_fs

    return url_to_fs(address, **options)


def open_place(address: str, options: Mapping) -> RemotePlace:
    """Return the file system of an address, newly opened."""
    from fsspec.implementations.local import LocalFileSystem
    from fsspec.implementations.memory import MemoryFileSystem

    fs, _ = opened_anew(address, options)
    # fsspec gives each thread an instance of its own of all other file systems. For an
    # archive, each of them would read the list of files.
    is_shareable = fs.async_impl or isinstance(fs, (LocalFileSystem, MemoryFileSystem))
    return RemotePlace(
        fs, contextlib.nullcontext() if is_shareable else threading.RLock()
    )


def opened_anew(address: str, options: Mapping) -> tuple[Any, str]:
    """Return the same with a new file system.

    Those that fsspec keeps remember listings, in which a replaced file is the old one.
    """
    fresh = _copied(options)
    for protocol in _protocols(address):
        inner = fresh.get(protocol, {})
        if isinstance(inner, dict):
            fresh[protocol] = {**inner, "skip_instance_cache": True}
    return opened(address, fresh)


def _copied(options):
    # Copied, because fsspec modifies the inner dicts.
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
    """Return whether an address begins with a protocol alone: ``simplecache::...``."""
    return "://" not in address.partition("::")[0]


def _is_archive(fs):
    from fsspec.archive import AbstractArchiveFileSystem

    return isinstance(fs, AbstractArchiveFileSystem)


def absolute_address(address: str, folder: str) -> str:
    """Return an address in which the last part, if it is a local path, is absolute.

    Without this, ``zip://1.jpg::../all.zip`` would depend on the working folder.
    """
    fsspec = import_fsspec()
    before, chain, last = address.rpartition("::")
    protocol, _, path = last.rpartition("://")
    is_local = protocol in ("", "file", "local")
    if not is_local or last in fsspec.available_protocols():
        return address
    if not path.startswith(("/", "~")):  # fsspec expands the home folder
        path = absolute_path(path, folder)
    if "::" in path:  # fsspec would split the path there
        return address
    return f"{before}{chain}{protocol or 'file'}://{path}"


def _read(fs, path, limit, on_large):
    """Return the content of a file that has at most `limit` bytes."""
    from fsspec import AbstractFileSystem

    # In a stream, because servers and archives may claim a wrong length, and compressed
    # files may become any size.
    is_opened = type(fs).cat_file is AbstractFileSystem.cat_file and not fs.async_impl
    # With `size` given, HTTP does not ask for the size first.
    http = {"block_size": 0, "size": 1} if "http" in fs.protocol else {}
    if is_opened or _is_archive(fs) or http:
        with fs.open(path, "rb", **http) as file:
            return read_until(file, limit, LARGE - 1, on_large)
    data = _read_range(fs, path, limit)
    check_length(len(data), limit)
    if len(data) >= LARGE:
        on_large()
    return data


def _read_range(fs, path, limit):
    if limit is None:
        return fs.cat_file(path)
    try:
        return fs.cat_file(path, start=0, end=limit + 1)
    except Exception:
        # Stores refuse a range of an empty file.
        with contextlib.suppress(Exception):
            if fs.info(path).get("size") == 0:
                return b""
        raise


# -- Errors


def without_secrets(error: Exception, options: Mapping) -> Exception | None:
    """Return an error that can be a ``__cause__``, None if its text has secrets."""
    text = str(error)
    return error if redacted(text, options) == text else None


def _explain_unusable(error, address):
    protocol = _innermost_protocol(address)
    text = _text(error)
    if isinstance(error, ImportError):
        if protocol in ("http", "https"):  # fsspec does not say how
            text = "use pip install 'skdeepfeat[remote]'"
        return (
            f"the protocol {protocol!r} needs a package that is not installed: {text}"
        )
    if isinstance(error, ValueError) and "not known" in text:
        known = import_fsspec().available_protocols()
        return (
            f"fsspec knows no protocol {protocol!r}.{did_you_mean(protocol, known)} "
            "fsspec.available_protocols() lists those it knows"
        )
    if isinstance(error, TypeError):
        return (
            f"storage_options do not fit the protocol {protocol!r} ({text}): they are "
            "the options of its file system in fsspec"
        )
    return explain(error, address)


def explain(error: Exception, address: str) -> str:
    """Return why an address cannot be read, and how to fix it."""
    # fsspec raises FileNotFoundError for most HTTP errors; the status says more.
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


def _innermost_protocol(address):
    return address.partition("://")[0].rpartition("::")[2]


def _anonymous(address):
    protocol = _innermost_protocol(address)
    names = {"s3": "{'anon': True}", "s3a": "{'anon': True}", "gs": "{'token': 'anon'}"}
    if protocol not in names:
        return ""
    return f", or read a public one with storage_options={names[protocol]}"


def _text(error):
    return redacted(" ".join(str(error).split()))[:300] or type(error).__name__
