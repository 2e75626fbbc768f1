"""A folder per class, read as scikit-learn's `load_files` reads texts."""

import os

import numpy as np
from PIL import Image
from sklearn.utils import Bunch, check_random_state

from skdeepfeat._utils._address import is_address
from skdeepfeat._utils._printable import redacted
from skdeepfeat._utils._shown import shown
from skdeepfeat._utils._suggestions import did_you_mean

from ._decode import readable_formats
from ._files import home_hint
from ._leftovers import is_left_over
from ._remote_folder import is_folder, list_below

__all__ = ["find_images", "load_image_folder"]


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

    ::

        root/
            cat/
                1.jpg
                more/2.png
            dog/
                3.jpg

    The images themselves are not read. A class may have folders of its own, at any
    depth. Links are followed, once. Endings may be in upper case. What systems and
    programs leave behind is passed over: hidden files and folders, whose names begin
    with a dot (``.DS_Store``, ``._a.jpg``, ``.ipynb_checkpoints``), ``__MACOSX``,
    ``@eaDir``, ``#recycle``, ``$RECYCLE.BIN``, ``System Volume Information`` and
    ``lost+found``.

    Parameters
    ----------
    root : str or os.PathLike
        The folder, or with `storage_options` its address: ``"s3://bucket/train"``,
        ``"zip://train::all.zip"``.
    categories : list of str, default=None
        The classes to read, in the order in which they are numbered; a class that
        has no image here keeps its number. None: all folders, in alphabetical order.
    extensions : list of str, default=None
        Endings of image files, such as ``".jpg"``; upper and lower case are the
        same. None: all that Pillow can read here.
    shuffle : bool, default=False
        Whether to bring the images into random order. Otherwise they are sorted by
        class and path.
    random_state : int, RandomState instance or None, default=None
        Decides the order if `shuffle` is True.
    return_X_y : bool, default=False
        Return only ``(data, target)``.
    storage_options : dict or None, default=None
        None refuses addresses. A dict, which may be empty, has fsspec list them, with
        these options of its file system; give the estimator the same.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        With the attributes

        data : ndarray of shape (n_images,) of str objects
            The paths, each beginning with `root`.
        filenames : ndarray of shape (n_images,)
            The same, under the name that `load_files` gives it.
        target : ndarray of shape (n_images,) of int
            The number of the class.
        target_names : list of str
            The class of each number.
        skipped : list of str
            Files passed over: another ending, or in no class folder.

    (data, target) : tuple, if `return_X_y` is True

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If `root` is not a folder.
    OSError
        If it is an address that cannot be listed.
    ValueError
        If it holds no class folders, or no image at all. Also if a folder has no image
        and `categories` is None: with and without it, the classes would have other
        numbers.

    Examples
    --------
    >>> from skdeepfeat import load_image_folder
    >>> bunch = load_image_folder("photos")  # doctest: +SKIP
    >>> extractor.fit_transform(bunch.data, bunch.target)  # doctest: +SKIP
    """
    root = os.fsdecode(root)
    endings = _endings(extensions)
    if is_address(root):
        tree = _remote_tree(root, storage_options)
        skipped = [address for parts, address in tree.items() if len(parts) == 1]
        folders = _remote_folders(root, tree)
    else:
        folders, skipped = _class_folders(root)
    names = _chosen(folders, categories, root)
    paths, target = [], []
    for label, name in enumerate(names):
        if is_address(root):
            found = _images_of(tree, name, endings, skipped)
        else:
            found = _images_below(os.path.join(root, name), endings, skipped)
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


def find_images(folder, extensions=None, storage_options=None):
    """Return the images in a folder's whole tree, whatever its folders mean.

    As `load_image_folder`: what systems leave behind is passed over, links are followed
    once, no image is read.

    Parameters
    ----------
    folder : str or os.PathLike
    extensions : list of str, default=None
        Endings of image files; None: all that Pillow can read here.
    storage_options : mapping or None, default=None
        With these fsspec lists a folder behind an address, and an address that is no
        folder is returned as it is, as one image.

    Returns
    -------
    paths : list of str
        Sorted, each beginning with `folder`.
    skipped : list of str
        Files passed over because of their endings.

    Raises
    ------
    OSError
        If a folder cannot be read.
    """
    folder, endings = os.fsdecode(folder), _endings(extensions)
    if storage_options is not None and is_address(folder):
        return _images_behind(folder, endings, storage_options)
    skipped = []
    paths = _images_below(folder, endings, skipped)
    return paths, sorted(skipped)


def _images_behind(address, endings, storage_options):
    # What ends like an image is none that a file system has to be asked about.
    if _ending(address.partition("::")[0]) in endings or not is_folder(
        address, storage_options
    ):
        return [address], []
    tree = list_below(address, storage_options)
    found = [name for parts, name in tree.items() if _ending(parts[-1]) in endings]
    images = set(found)
    return found, sorted(name for name in tree.values() if name not in images)


def _endings(extensions):
    if extensions is None:
        readable = set(readable_formats())
        known = Image.registered_extensions()
        return {ending for ending, name in known.items() if name in readable}
    if isinstance(extensions, str):
        extensions = [extensions]
    return {f".{ending.lower().removeprefix('.')}" for ending in extensions}


def _named(root):
    return shown(redacted(root))


def _remote_tree(root, storage_options):
    if storage_options is None:
        raise ValueError(
            f"root is an address, {_named(root)}, which is read only on request: pass "
            "storage_options={} to have fsspec list it."
        )
    return list_below(root, storage_options)


def _remote_folders(root, tree):
    """Return the names of the folders in a tree: those that have a file."""
    folders = sorted({parts[0] for parts in tree if len(parts) > 1})
    if not folders:
        raise ValueError(
            "root must hold one folder per class, with the images in them. "
            f"Got {len(tree)} files and no folder in {_named(root)}."
        )
    return folders


def _images_of(tree, folder, endings, skipped):
    """Return the addresses of the images in a folder of a tree, sorted."""
    inside = [entry for entry in tree.items() if entry[0][0] == folder]
    inside = [entry for entry in inside if len(entry[0]) > 1]
    found = [address for parts, address in inside if _ending(parts[-1]) in endings]
    images = set(found)
    skipped.extend(address for _, address in inside if address not in images)
    return found


def _class_folders(root):
    """Return the names of the folders in `root`, and the files that lie beside them."""
    try:
        entries = _sorted_entries(root)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"root must be a folder of class folders: there is no {_named(root)}"
            f"{home_hint(root)}."
        ) from error
    except NotADirectoryError as error:
        raise NotADirectoryError(
            f"root must be a folder of class folders. Got the file {shown(root)}."
        ) from error
    folders = [entry.name for entry in entries if entry.is_dir()]
    files = [entry.path for entry in entries if not entry.is_dir()]
    if not folders:
        raise ValueError(
            "root must hold one folder per class, with the images in them. "
            f"Got {len(files)} files and no folder in {_named(root)}."
        )
    return folders, files


def _chosen(folders, categories, root):
    if categories is None:
        return folders
    if isinstance(categories, str):
        raise ValueError(
            f"categories must be a list of folder names. Got {shown(categories)}."
        )
    for name in categories:
        if name not in folders:
            raise ValueError(
                f"categories must name folders in {_named(root)}. Got {shown(name)}."
                f"{did_you_mean(str(name), folders)}"
            )
    if len(set(categories)) < len(categories):
        raise ValueError(f"categories must not repeat a name. Got {shown(categories)}.")
    return list(categories)


def _images_below(folder, endings, skipped):
    """Return the paths of the images in a folder's whole tree, sorted."""
    found, waiting, seen = [], [folder], set()
    while waiting:
        folder = waiting.pop()
        status = os.stat(folder)
        # Some file systems, mostly on Windows, do not number their files.
        identity = (status.st_dev, status.st_ino or os.path.realpath(folder))
        if identity in seen:
            continue  # a link to a folder above: around it we go no second time
        seen.add(identity)
        for entry in _sorted_entries(folder):
            if entry.is_dir():
                waiting.append(entry.path)
            elif _ending(entry.name) in endings and entry.is_file():
                found.append(entry.path)
            else:
                skipped.append(entry.path)
    return sorted(found, key=lambda path: path.split(os.sep))


def _ending(name):
    return os.path.splitext(name)[1].lower()


def _sorted_entries(folder):
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not is_left_over(entry.name)]
    return sorted(visible, key=lambda entry: entry.name)


def _check_any(root, names, target, skipped, *, may_be_empty):
    filled = {names[label] for label in target}
    empty = [name for name in names if name not in filled]
    if not filled or (empty and not may_be_empty):
        endings = sorted({_ending(path) or "no ending" for path in skipped})
        seen = f" {len(skipped)} files were passed over ({', '.join(endings[:8])})."
        listed = ", ".join(map(shown, empty[:8])) + (" ..." if len(empty) > 8 else "")
        raise ValueError(
            f"Every class folder must hold an image. Empty in {_named(root)}: "
            f"{listed}. Remove these folders, or name the classes with "
            "categories=[...], some of which may then be "
            f"empty.{seen if skipped else ''}"
        )
