"""A secret of the user, by which files are recognized that this user has written.

It lies outside the cache. So who can write to a cache, or has made one that the user
unpacks, still cannot make a file that passes for the user's own.
"""

import contextlib
import logging
import os
import secrets

import platformdirs

from .._utils._plain_file import open_plain

logger = logging.getLogger(__name__)

_N_BYTES = 32


def find_secret(*, create: bool = False) -> bytes | None:
    """Return the secret of the user who runs this process.

    Parameters
    ----------
    create : bool, default=False
        Make one if there is none, or if others may have read the one that is there.

    Returns
    -------
    bytes or None
        None if there is none: no home directory, one that cannot be written, one of
        another user.
    """
    try:
        folder = platformdirs.user_state_dir("skdeepfeat", appauthor=False)
        folder = os.path.expanduser(folder)
    except (RuntimeError, OSError):  # what platformdirs raises without a home directory
        return None
    if not os.path.isabs(folder):
        return None
    path = os.path.join(folder, "secret")
    try:
        if create:
            os.makedirs(folder, 0o700, exist_ok=True)
        if not is_own(os.stat(folder), 0o022):
            return None
        found = _read(path)
        if found is None and create:
            _write(path)
            found = _read(path)
        return found
    except OSError as error:
        logger.debug("%s cannot be used: %s", path, error)
        return None


def is_own(status: os.stat_result, forbidden: int) -> bool:
    """Return whether something is this user's and lacks some permissions.

    Parameters
    ----------
    status : os.stat_result
    forbidden : int
        The permissions that it must not have, such as 0o022.
    """
    if not hasattr(os, "geteuid"):
        return True  # Windows: what lies in a user's profile is the user's
    return status.st_uid == os.geteuid() and not status.st_mode & forbidden


def _read(path: str) -> bytes | None:
    try:
        with open_plain(path) as file:
            if not is_own(os.fstat(file.fileno()), 0o077):
                return None
            secret = file.read(_N_BYTES + 1)
    except FileNotFoundError:
        return None
    return secret if len(secret) == _N_BYTES else None


def _write(path: str) -> None:
    """Write a secret, unless another process has just done so."""
    temporary = f"{path}.{secrets.token_hex(8)}"
    try:
        with open_plain(temporary, "xb", permissions=0o600) as file:
            file.write(os.urandom(_N_BYTES))
        try:
            # Unlike renaming, linking fails if the name is taken.
            os.link(temporary, path)
        except FileExistsError:
            # `_read` refuses all but plain files. What another process has written
            # just now stays.
            if _read(path) is None:
                os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
