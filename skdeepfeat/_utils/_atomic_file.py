"""Files that are there whole or not at all."""

import contextlib
import os
import pathlib
import secrets

__all__ = ["write_atomically"]


def write_atomically(path, content):
    """Write a file; whoever reads it meanwhile, or after a crash, sees all or nothing.

    Parameters
    ----------
    path : path-like
        An older file there is replaced; folders that are missing are made.
    content : bytes
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not `tempfile`, whose files only their owner may read.
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
