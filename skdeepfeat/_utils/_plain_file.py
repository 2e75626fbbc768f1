"""Open and lock plain files only, never through links; write files as a whole.

Anyone who can write to a folder can put a link where a lock or a partial file will be.
Following it would overwrite another file of the user. A named pipe would make `open`
wait forever.
"""

import contextlib
import errno
import os
import pathlib
import secrets
import stat

from filelock import FileLock, Timeout

# On systems without these flags, other users cannot create such links.
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)

# Seconds between two attempts to acquire a lock. Locked work takes longer, and twenty
# attempts per second are a negligible load.
_POLL = 0.05


def open_plain(path, mode="rb", *, buffering=-1, create=False, permissions=0o666):
    """Open a file like `open`, but only if it is a plain file and not a link.

    Parameters
    ----------
    path : str or path-like
    mode : str, default="rb"
        As for `open`.
    buffering : int, default=-1
        As for `open`.
    create : bool, default=False
        Create the file if it does not exist, even if `mode` would not.
    permissions : int, default=0o666
        Of a new file, before the umask is applied.

    Returns
    -------
    file object

    Raises
    ------
    FileExistsError
        If the path is a link, a folder, a pipe or a device.
    """

    def opener(name, flags):
        flags |= _FLAGS | (os.O_CREAT if create else 0)
        return os.open(name, flags, permissions)

    if is_special(path):
        raise _refusal(path)
    try:
        file = open(path, mode, buffering=buffering, opener=opener)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise _refusal(path) from error
        raise
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise _refusal(path)
    return file


def lock_plain(path, on_wait, *, permissions=0o666, timeout=-1):
    """Acquire the lock of a plain file; return a context that releases it at its end.

    Parameters
    ----------
    path : str or path-like
        Created if it does not exist.
    on_wait : callable
        Called if another thread or process holds the lock.
    permissions : int, default=0o666
        Of a new file, before the umask is applied.
    timeout : float, default=-1
        Seconds to wait; negative waits forever.

    Raises
    ------
    FileExistsError
        If the path is a link, a folder, a pipe or a device.
    filelock.Timeout
        An OSError.
    NotImplementedError
        If the file system has no locks.
    """
    # Created here, because older versions of filelock follow links and ignore the
    # umask. Some versions would change the permissions.
    with open_plain(path, "ab", permissions=permissions) as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    lock = FileLock(path, mode=mode | 0o600)
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        on_wait()
        return lock.acquire(timeout=timeout, poll_interval=_POLL)


def read_file_of_user(path):
    """Return the content of a file that the user names, which may be a link.

    Raises
    ------
    OSError
        Also if it is a pipe, which would be waited for, or a device, which may have no
        end.
    """
    flags = getattr(os, "O_NONBLOCK", 0)
    # Checked before it is opened, because opening a device may already have an effect.
    if stat.S_ISREG(os.stat(path).st_mode):
        with open(path, "rb", opener=lambda name, f: os.open(name, f | flags)) as file:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return file.read()
    text = "It is not a file, but a folder, a pipe or a device"
    raise OSError(errno.EINVAL, text, os.fspath(path))


def is_special(path):
    """Return whether a path is something other than a plain file."""
    try:
        return not stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def _refusal(path):
    return FileExistsError(
        errno.EEXIST,
        "A plain file belongs here, but there is a link, a folder or a special file. "
        "It is neither followed nor replaced: remove it",
        os.fspath(path),
    )


def write_atomically(path, content):
    """Write a file so that other readers, also after a crash, see all of it or nothing.

    Parameters
    ----------
    path : path-like
        An existing file is replaced, and its permissions stay; missing folders are
        created.
    content : bytes

    Raises
    ------
    OSError
        Also if there is a folder, a pipe or a device, or a link to one. It is not
        replaced: root would replace /dev/null.
    """
    path, permissions = pathlib.Path(path), None
    with contextlib.suppress(FileNotFoundError):
        mode = os.stat(path).st_mode
        permissions = stat.S_IMODE(mode)
        if not stat.S_ISREG(mode):
            text = "There is a folder, a pipe or a device, which is not replaced"
            raise FileExistsError(errno.EEXIST, text, os.fspath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not `tempfile`, whose files only the owner may read.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb") as file:
            if permissions is not None:
                # A file that others must not read stays so, whatever is in the new one.
                with contextlib.suppress(OSError):
                    os.chmod(temporary, permissions)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
