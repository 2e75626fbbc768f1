"""Files that are written as a whole or not at all."""

import contextlib
import errno
import os
import pathlib
import secrets
import stat


def write_atomically(path, content):
    """Write a file so that other readers, also after a crash, see all of it or nothing.

    Parameters
    ----------
    path : path-like
        An existing file is replaced; missing folders are created.
    content : bytes

    Raises
    ------
    OSError
        Also if there is a folder, a pipe or a device, or a link to one. It is not
        replaced: root would replace /dev/null.
    """
    path = pathlib.Path(path)
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(os.stat(path).st_mode):
            text = "There is a folder, a pipe or a device, which is not replaced"
            raise FileExistsError(errno.EEXIST, text, os.fspath(path))
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
