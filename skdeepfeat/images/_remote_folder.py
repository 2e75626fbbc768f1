"""The files below an address, for `load_image_folder`."""

from collections.abc import Mapping

from skdeepfeat._utils._optional import import_optional
from skdeepfeat._utils._printable import redacted

from ._leftovers import is_left_over
from ._remote import fresh_options, in_words, without_secrets

__all__ = ["is_folder", "list_below"]


def list_below(root: str, storage_options: Mapping) -> dict[tuple[str, ...], str]:
    """Return the addresses of all files in a tree, under their path as parts.

    What systems leave behind (`is_left_over`) is passed over.

    Parameters
    ----------
    root : str
        The address of a folder: ``s3://bucket/train``, ``zip://train::all.zip``.
    storage_options : mapping
        The file system's options.

    Returns
    -------
    dict of tuple of str to str
        ``("cat", "1.jpg"): "s3://bucket/train/cat/1.jpg"``, sorted.

    Raises
    ------
    OSError
        If it cannot be listed.
    """
    import_optional("fsspec", extra="remote", purpose="Reading addresses")
    from fsspec.core import url_to_fs

    head, chain, tail = root.partition("::")
    if "://" not in head:  # a cache of fsspec's, which has each file to itself
        below = list_below(tail, storage_options)
        return {parts: f"{head}::{address}" for parts, address in below.items()}
    try:
        fs, path = url_to_fs(root, **fresh_options(root, storage_options))
        names = fs.find(path)
    except Exception as error:
        # Each file system has errors of its own; see RemoteFiles.
        text = f"{root!r} cannot be listed: {in_words(error, root)}."
        cause = without_secrets(error, storage_options)
        raise OSError(redacted(text, storage_options)) from cause
    before = head if head.endswith("://") else f"{head.rstrip('/')}/"
    prefix = f"{path.rstrip('/')}/" if path.strip("/") else ""
    found = {}
    for name in names:
        inside = name.lstrip("/") if not prefix else name.removeprefix(prefix)
        parts = tuple(inside.split("/"))
        if not any(map(is_left_over, parts)):
            found[parts] = f"{before}{inside}{chain}{tail}"
    return dict(sorted(found.items()))


def is_folder(address: str, storage_options: Mapping) -> bool:
    """Return whether an address leads to a folder; False where that is not to be had.

    Parameters
    ----------
    address : str
    storage_options : mapping
        The file system's options.
    """
    import_optional("fsspec", extra="remote", purpose="Reading addresses")
    from fsspec.core import url_to_fs

    head, _, tail = address.partition("::")
    if "://" not in head:
        return is_folder(tail, storage_options)
    if head.endswith("/"):
        return True
    if head.lower().startswith(("http:", "https:")):
        return False  # it has pages, and would look for links in what may be an image
    try:
        fs, path = url_to_fs(address, **fresh_options(address, storage_options))
        return fs.isdir(path)
    except Exception:
        # Reading it as an image says what is wrong, in words; see RemoteFiles.
        return False
