"""The version of a remote file, found without reading it.

ETags, checksums and times of the last change are for remote files what mtime and inode
are for local ones. Where a store tells nothing that can be trusted, the file is read
again. fsspec's own `ukey` is not enough: for HTTP it is the same for all contents.
"""

import datetime
import email.utils
import json
import time
from collections.abc import Mapping
from typing import Any

from skdeepfeat._utils._digests import digest_bytes
from skdeepfeat._utils._filestat import FileStat

# Fields that change whenever the content does, as the file systems name them.
_VALIDATORS = (
    "ETag etag e_tag md5Hash Content-MD5 content_md5 Digest generation VersionId "
    "version_id blob_id sha hex"
).split()
_TIMES = (
    "LastModified Last-Modified last_modified updated modified mtime last_write_time"
).split()
# Options that grant access but do not affect the content. They may change every hour.
# All other options may name another server, with other files.
_CREDENTIALS = {
    "s3": {"key", "secret", "token"},
    "gs": {"token"},
    "gcs": {"token"},
    "hf": {"token"},
    "abfs": {"account_key", "sas_token", "credential"},
    "az": {"account_key", "sas_token", "credential"},
}
# Seconds. Times of change have a tick of up to two seconds, and the clock of another
# machine may be wrong.
_MARGIN = 60


def identify(fs: Any, address: str, options: Mapping) -> FileStat | None:
    """Return the version of a file, or None if nothing can be trusted.

    Parameters
    ----------
    fs : fsspec.AbstractFileSystem
    address : str
    options : mapping
        The options that `fs` was opened with.

    Returns
    -------
    FileStat or None
        The key of its digest in the index of file hashes. Its path is a digest, because
        addresses may hold passwords and signatures. It has a time of change only if
        nothing else distinguishes versions.

    Raises
    ------
    Exception
        Any that the file system raises.
    """
    place = _place(fs, address, options)
    info = fs.info(address)
    if place is None or info.get("type") != "file":
        return None
    size = info.get("size")
    said = {name: str(info[name]) for name in _VALIDATORS if info.get(name)}
    # A weak ETag may be the same for different bytes.
    said = {name: text for name, text in said.items() if not text.startswith("W/")}
    changed = None
    if not said:
        changed = _changed(fs, address, info)
        if changed is None or size is None:
            return None
        said = {"changed": repr(changed), "inode": str(info.get("ino"))}
    version = digest_bytes(json.dumps(said, sort_keys=True).encode())
    return FileStat(
        path=place,
        size=-1 if size is None else int(size),
        mtime_ns=int((changed or 0) * 1e9),
        inode=int.from_bytes(version[:16], "little"),
    )


def of_member(archive: FileStat, address: str) -> FileStat:
    """Return the version of a file in an archive of this version."""
    return archive._replace(path=_hidden([address, archive.path]))


def is_settled(version: FileStat) -> bool:
    """Return whether the next change of the file will change its version."""
    return time.time() - version.mtime_ns / 1e9 > _MARGIN


def _place(fs, address, options):
    """Return a name for the address, or None if the options cannot be compared."""
    protocols = [fs.protocol] if isinstance(fs.protocol, str) else fs.protocol
    secret = set().union(*(_CREDENTIALS.get(name, set()) for name in protocols))

    def without_credentials(options):
        return {name: value for name, value in options.items() if name not in secret}

    kept = without_credentials(options)
    for name in protocols:
        if isinstance(kept.get(name), Mapping):
            kept[name] = without_credentials(kept[name])
    try:
        return _hidden([address, kept])
    except (TypeError, ValueError):
        return None  # a session or another object


def _hidden(values):
    text = json.dumps(values, sort_keys=True)
    return f"fsspec:{digest_bytes(text.encode()).hex()}"


def _changed(fs, address, info):
    """Return the time of the last change in seconds since the epoch, or None."""
    for name in _TIMES:
        if info.get(name) and (seconds := _seconds(info[name])) is not None:
            return seconds
    try:
        return _seconds(fs.modified(address))
    except Exception:
        return None  # most file systems lack it, and raise various errors


def _seconds(value):
    if isinstance(value, str):
        for parse in (
            email.utils.parsedate_to_datetime,
            datetime.datetime.fromisoformat,
        ):
            try:
                value = parse(value)
                break
            except ValueError:
                continue
    if isinstance(value, datetime.datetime):
        # Without a time zone it may be hours off.
        return value.timestamp() if value.tzinfo is not None else None
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number else None
