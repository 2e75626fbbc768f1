"""The files below an address, for `load_image_folder`."""

from collections.abc import Mapping

from skdeepfeat._utils._printable import redacted

from ._remote import explain, import_fsspec, opened_anew, without_secrets


def list_below(root: str, storage_options: Mapping) -> dict[tuple[str, ...], str]:
    """Return the addresses of all files in a tree, by the parts of their paths.

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
    import_fsspec()
    head, chain, tail = root.partition("::")
    if "://" not in head:  # one of fsspec's caches, which are for single files
        below = list_below(tail, storage_options)
        return {parts: f"{head}::{address}" for parts, address in below.items()}
    try:
        fs, path = opened_anew(root, storage_options)
        names = fs.find(path)
    except Exception as error:
        text = f"{root!r} cannot be listed: {explain(error, root)}."
        cause = without_secrets(error, storage_options)
        raise OSError(redacted(text, storage_options)) from cause
    before = head if head.endswith("://") else f"{head.rstrip('/')}/"
    prefix = f"{path.rstrip('/')}/" if path.strip("/") else ""
    found = {}
    for name in names:
        inside = name.lstrip("/") if not prefix else name.removeprefix(prefix)
        found[tuple(inside.split("/"))] = f"{before}{inside}{chain}{tail}"
    return dict(sorted(found.items()))


def is_folder(address: str, storage_options: Mapping) -> bool:
    """Return whether an address leads to a folder; False if that cannot be found out.

    Parameters
    ----------
    address : str
    storage_options : mapping
        The file system's options.
    """
    import_fsspec()
    head, _, tail = address.partition("::")
    if "://" not in head:
        return is_folder(tail, storage_options)
    if head.endswith("/"):
        return True
    if head.lower().startswith(("http:", "https:")):
        return False  # fsspec would search the page for links
    try:
        fs, path = opened_anew(address, storage_options)
        return fs.isdir(path)
    except Exception:
        return False  # reading it as an image gives the error
