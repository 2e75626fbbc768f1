"""Files that are written as a whole or not at all."""

import contextlib
import errno
import os
import pathlib
import secrets


def write_atomically(path, content):
    """Write a file so that other readers, also after a crash, see all of it or nothing.

    Parameters
    ----------
    path : path-like
        An existing file is replaced; missing folders are created.
    content : bytes
    """
    path = pathlib.Path(path)
    if path.is_dir():  # `os.replace` would name the temporary file
        raise IsADirectoryError(errno.EISDIR, "It is a folder", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not `tempfile`, whose files only the owner may read.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
