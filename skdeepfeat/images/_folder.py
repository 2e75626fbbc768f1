"""A folder per class, read as scikit-learn's `load_files` reads texts."""

import os
import pathlib

import numpy as np
from PIL import Image
from sklearn.utils import Bunch, check_random_state

from skdeepfeat._utils._address import is_address
from skdeepfeat._utils._parameter_errors import did_you_mean
from skdeepfeat._utils._printable import redacted
from skdeepfeat._utils._shown import shown

from ._decode import readable_formats
from ._files import home_hint
from ._remote_folder import is_folder, list_below

# Created by operating systems and programs; compared in lower case.
_IGNORED_NAMES = frozenset(
    {
        "__macosx",  # in ZIP archives made on a Mac
        "network trash folder",
        "temporary items",
        "@eadir",  # Synology's thumbnails
        "@tmp",
        "#recycle",
        "#snapshot",
        "@recycle",  # of QNAP
        "@recently-snapshot",
        "$recycle.bin",
        "recycler",
        "system volume information",
        "lost+found",
        "__pycache__",
    }
)


def load_image_folder(
    root,
    *,
    categories=None,
    extensions=None,
    shuffle=False,
    random_state=None,
    return_X_y=False,
    storage_options=None,
):
    """Find the images of a folder that holds one folder per class.

    The folder must look like this::

        root/
            cat/
                1.jpg
                more/2.png
            dog/
                3.jpg

    Only paths are returned; no image is read. Subfolders of a class folder belong to
    the class. Symbolic links are followed. A folder that is reached again is skipped,
    and so is one that holds the class folder.

    Files and folders that operating systems and programs create are ignored. These are
    those whose names begin with a dot (``.DS_Store``, ``.ipynb_checkpoints``),
    ``__MACOSX``, ``Network Trash Folder``, ``Temporary Items``, ``__pycache__``,
    ``@eaDir``, ``@tmp``, ``#recycle``, ``#snapshot``, ``@Recycle``,
    ``@Recently-Snapshot``, ``$RECYCLE.BIN``, ``RECYCLER``, ``System Volume
    Information`` and ``lost+found``.

    Parameters
    ----------
    root : str or os.PathLike
        The path of the folder. With `storage_options` it can be an address, such as
        ``"s3://bucket/train"`` or ``"zip://train::all.zip"``.
    categories : list of str, default=None
        The names of the class folders to load. Their order determines the labels, and
        a folder without images keeps its label. If None, all folders are loaded in
        alphabetical order.
    extensions : list of str, default=None
        The file extensions of images, such as ``".jpg"``. Case is ignored. If None,
        the extensions of all formats that can be read are used.
    shuffle : bool, default=False
        Whether to shuffle the images. Otherwise they are sorted by class and path.
    random_state : int, RandomState instance or None, default=None
        Determines the order if `shuffle` is True. Pass an int for reproducible output
        across multiple function calls.
    return_X_y : bool, default=False
        If True, return ``(data, target)`` instead of a Bunch.
    storage_options : dict or None, default=None
        Options of the fsspec file system, if `root` is an address. It may be empty. If
        None, addresses are refused. Pass the same options to the estimator, so that it
        can read the images.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the following attributes.

        data : ndarray of shape (n_images,) of str objects
            The paths of the images. Each begins with `root`.
        filenames : ndarray of shape (n_images,)
            The same as `data`, under the name that
            :func:`~sklearn.datasets.load_files` uses.
        target : ndarray of shape (n_images,) of int
            The label of each image, an index into `target_names`.
        target_names : list of str
            The names of the classes.
        skipped : list of str
            The paths of files that have another extension or are in no class folder.

    (data, target) : tuple if `return_X_y` is True
        The paths and the labels.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If `root` is not a folder.
    OSError
        If `root` is an address that cannot be listed.
    ValueError
        If `root` has no class folders or no images, or if a class folder has no images
        and `categories` is None.

    See Also
    --------
    sklearn.datasets.load_files : The same for text files.

    Examples
    --------
    >>> from skdeepfeat import load_image_folder
    >>> bunch = load_image_folder("photos")  # doctest: +SKIP
    >>> extractor.fit_transform(bunch.data, bunch.target)  # doctest: +SKIP
    """
    root = os.fsdecode(root)
    extensions = _lower_case(extensions)
    if is_address(root):
        tree = _remote_folders(root, storage_options)
        skipped = tree.pop((), [])
        folders = [name for name in tree if name]
    else:
        folders, skipped = _local_folders(root)
    if not folders:
        raise ValueError(
            "root must hold one folder per class, with the images in them. "
            f"Got {len(skipped)} files and no folder in {_quoted(root)}."
        )
    names = _chosen(folders, categories, root)
    paths, target = [], []
    for label, name in enumerate(names):
        if is_address(root):
            files = tree[name]
        else:
            files = _files_below(os.path.join(root, name), skipped)
        found = _with_extension(files, extensions, skipped)
        paths += found
        target += [label] * len(found)
    _check_any(root, names, target, skipped, may_be_empty=categories is not None)
    data = np.array(paths, dtype=object)
    target = np.array(target, dtype=np.intp)
    if shuffle:
        order = check_random_state(random_state).permutation(len(data))
        data, target = data[order], target[order]
    if return_X_y:
        return data, target
    return Bunch(
        data=data,
        filenames=data,
        target=target,
        target_names=list(names),
        skipped=sorted(skipped),
    )


def find_images(folder, storage_options=None):
    """Return the images in a folder and its subfolders.

    As in `load_image_folder`, links are followed once, and no image is read. Images
    are files with an extension of a format that Pillow can read here.

    Parameters
    ----------
    folder : str or os.PathLike
    storage_options : mapping or None, default=None
        With these fsspec lists a folder at an address. An address that is not a folder
        is returned as one image.

    Returns
    -------
    paths : list of str
        Sorted, each beginning with `folder`.
    skipped : list of str
        Files that have another extension.

    Raises
    ------
    OSError
        If a folder cannot be read.
    """
    folder, extensions = os.fsdecode(folder), _lower_case(None)
    skipped = []
    if storage_options is None or not is_address(folder):
        files = _files_below(folder, skipped)
    else:
        # An extension of an image is enough, without asking the file system.
        is_image = _extension(folder) in extensions
        if is_image or not is_folder(folder, storage_options):
            return [folder], []
        files = _tree_below(folder, storage_options).values()
    return _with_extension(files, extensions, skipped), sorted(skipped)


def _lower_case(extensions):
    """Return file extensions as a set, in lower case and with the dot."""
    if extensions is None:
        readable = set(readable_formats())
        known = Image.registered_extensions()
        return {extension for extension, name in known.items() if name in readable}
    if isinstance(extensions, str):
        extensions = [extensions]
    return {f".{extension.lower().removeprefix('.')}" for extension in extensions}


def _extension(path):
    if is_address(path):  # simplecache::zip://1.jpg::all.zip
        path = path.partition("://")[2].partition("::")[0]
    return os.path.splitext(path)[1].lower()


def _with_extension(paths, extensions, skipped):
    """Return the paths that have one of the extensions; add the others to `skipped`."""
    found = []
    for path in paths:
        (found if _extension(path) in extensions else skipped).append(path)
    return found


def _is_ignored(name):
    return name.startswith(".") or name.lower() in _IGNORED_NAMES


def _quoted(root):
    return shown(redacted(root))


def _tree_below(root, storage_options):
    """Return {parts of the path: address} of the files below an address, sorted."""
    tree = list_below(root, storage_options)
    return {
        parts: address
        for parts, address in tree.items()
        if not any(map(_is_ignored, parts))
    }


def _remote_folders(root, storage_options):
    """Return {name: its files} of the folders at an address.

    The files in no folder have the name ``()``.
    """
    if storage_options is None:
        raise ValueError(
            f"root is an address, {_quoted(root)}, which is read only on request: pass "
            "storage_options={} to have fsspec list it."
        )
    files = {}
    for parts, address in _tree_below(root, storage_options).items():
        files.setdefault(parts[0] if len(parts) > 1 else (), []).append(address)
    return files


def _local_folders(root):
    """Return the names of the folders in `root`, and the paths of the files in it."""
    try:
        entries = _sorted_entries(root)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"root must be a folder of class folders: there is no {_quoted(root)}"
            f"{home_hint(root)}."
        ) from None
    except NotADirectoryError:
        raise NotADirectoryError(
            f"root must be a folder of class folders. Got the file {_quoted(root)}."
        ) from None
    except OSError as error:  # such as no permission, or a name that is too long
        raise OSError(
            "root must be a folder of class folders that can be read "
            f"({error.strerror}). Got {_quoted(root)}."
        ) from None
    folders = [entry.name for entry in entries if _leads_to(entry.is_dir)]
    files = [entry.path for entry in entries if not _leads_to(entry.is_dir)]
    return folders, files


def _chosen(folders, categories, root):
    if categories is None:
        return folders
    if isinstance(categories, str):
        raise ValueError(
            f"categories must be a list of folder names. Got {shown(categories)}."
        )
    categories = list(categories)  # it may be an iterator
    for name in categories:
        if name not in folders:
            raise ValueError(
                f"categories must name folders in {_quoted(root)}. Got {shown(name)}."
                f"{did_you_mean(str(name), folders)}"
            )
    if len(set(categories)) < len(categories):
        raise ValueError(f"categories must not repeat a name. Got {shown(categories)}.")
    return categories


def _files_below(folder, skipped):
    """Return the paths of the files in a folder and its subfolders, sorted.

    What is neither a file nor a folder is added to `skipped`.
    """
    # A link to a folder above would give a class the images of the others.
    above = map(os.path.realpath, (folder, os.path.dirname(os.path.abspath(folder))))
    holders = {parent for path in above for parent in pathlib.Path(path, "x").parents}
    seen = set(map(_identity, holders - {pathlib.Path(os.path.realpath(folder))}))
    found, waiting = [], [folder]
    while waiting:
        folder = waiting.pop()
        identity = _identity(folder)
        if identity in seen:
            continue
        seen.add(identity)
        for entry in _sorted_entries(folder):
            if _leads_to(entry.is_dir):
                waiting.append(entry.path)
            else:
                is_file = _leads_to(entry.is_file)
                (found if is_file else skipped).append(entry.path)
    return sorted(found, key=lambda path: path.split(os.sep))


def _identity(folder):
    status = os.stat(folder)
    # Some file systems, mostly on Windows, do not number their files.
    return status.st_dev, status.st_ino or os.path.realpath(folder)


def _leads_to(test):
    """Return the result of an entry's test, or False for a broken link."""
    try:
        return test()
    except OSError:  # it leads to itself, through a file, or into a forbidden folder
        return False


def _sorted_entries(folder):
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not _is_ignored(entry.name)]
    return sorted(visible, key=lambda entry: entry.name)


def _check_any(root, names, target, skipped, *, may_be_empty):
    filled = {names[label] for label in target}
    empty = [name for name in names if name not in filled]
    if not filled or (empty and not may_be_empty):
        extensions = sorted({_extension(path) or "no extension" for path in skipped})
        seen = f" {len(skipped)} files were skipped ({', '.join(extensions[:8])})."
        listed = ", ".join(map(shown, empty[:8])) + (" ..." if len(empty) > 8 else "")
        raise ValueError(
            f"Every class folder must hold an image. Empty in {_quoted(root)}: "
            f"{listed}. Remove these folders, or name the classes with "
            "categories=[...], some of which may then be "
            f"empty.{seen if skipped else ''}"
        )
