"""The state of installed code, found without importing it, for what is kept on disk.

torchvision and timm take seconds to import.
"""

import functools
import importlib.util
import inspect
import os
import sys
import time
from importlib.machinery import SourceFileLoader
from importlib.metadata import PackageNotFoundError, distribution

import torch
from blake3 import blake3

LIBRARIES = ("timm", "torchvision")
# How each library returns the function that builds a network.
_BUILDERS = {"timm": "model_entrypoint", "torchvision": "get_model_builder"}


def installed_version(package):
    """Return the version of a package, or None if only importing it could tell.

    Parameters
    ----------
    package : str
        Of the distribution of the same name.

    Returns
    -------
    str or None
        None for a package that is not where its distribution was installed, such as a
        checkout of its sources.
    """
    spec = _find(package)
    try:
        found = distribution(package)
    except PackageNotFoundError:
        return None
    home = found.locate_file(os.path.join(package, "__init__.py"))
    if spec is None or not os.path.exists(home):
        return None
    return found.version if os.path.samefile(home, spec.origin) else None


def digest_code(package):
    """Return the hexadecimal digest of the state of a package's files.

    It differs when a file was added, removed or changed: by size and time, as Python
    decides whether its compiled bytecode is still good.

    Parameters
    ----------
    package : str

    Returns
    -------
    str or None
        None if something other than files in folders would be imported.
    """
    files = _files_of(package)
    if files is None:
        return None
    hasher = blake3()
    for path, status in files:
        state = f"{path}\0{status.st_size} {status.st_mtime_ns}\0"
        hasher.update(os.fsencode(state))
    return hasher.hexdigest()


def is_as_imported(package):
    """Return whether no file of a package has changed since this process started.

    Then a package that is imported already is what `digest_code` describes. False
    where the system does not tell when a process was started.
    """
    files, started = _files_of(package), _process_start()
    if files is None or started is None:
        return False
    return all(status.st_ctime < started for _, status in files)


def _process_start():
    """Return when this process was started, seconds since the epoch, or None."""
    try:
        with open("/proc/self/stat", "rb") as file:
            # The name of the program, in brackets, may have spaces.
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        # Not "btime" of /proc/stat, which in some containers is that of the container.
        boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        # The times of files may be a few milliseconds old.
        return boot + ticks / os.sysconf("SC_CLK_TCK") - 1
    except (AttributeError, OSError, ValueError, LookupError):
        return None


def _files_of(package):
    """Return paths and states of a package's files, in order, or None."""
    spec = _find(package)
    if spec is None:
        return None
    found = []
    for folder, subfolders, files in os.walk(os.path.dirname(spec.origin)):
        subfolders[:] = sorted(one for one in subfolders if one != "__pycache__")
        if any(os.path.islink(os.path.join(folder, one)) for one in subfolders):
            return None
        paths = [os.path.join(folder, one) for one in sorted(files)]
        try:
            found += [(path, os.stat(path)) for path in paths]
        except OSError:
            return None  # a link to nothing, or a file that was just removed
    return found


def _find(package):
    """Return how a package would be imported, None if not as files usually are."""
    if package in sys.modules:
        spec = sys.modules[package].__spec__
    else:
        spec = importlib.util.find_spec(package)
    # Exactly this class, because another loader may change the package on import.
    if spec is None or type(spec.loader) is not SourceFileLoader:
        return None
    return spec


# The files of this package as this process has imported them.
_OWN_CODE = digest_code("skdeepfeat")


@functools.cache
def installed_code():
    """Return versions and files of the packages, or None if they cannot be told.

    Returns
    -------
    dict of JSON types or None
    """
    libraries = {
        name: [installed_version(name), digest_code(name)] for name in LIBRARIES
    }
    if _OWN_CODE is None or not all(map(all, libraries.values())):
        return None
    if digest_code("skdeepfeat") != _OWN_CODE:
        return None  # another version has been installed meanwhile
    return {**libraries, "skdeepfeat": _OWN_CODE, "torch": torch.__version__}


def is_of_library(architecture):
    """Return whether the libraries that are imported build a network themselves.

    A user can register networks, in timm also under a name that it has already. What
    their code computes may change, and no version of a package says so.

    Parameters
    ----------
    architecture : dict
        Of a `NetworkSpec`.
    """
    for name, function in _BUILDERS.items():
        if name in architecture and f"{name}.models" in sys.modules:
            ask = getattr(sys.modules[f"{name}.models"], function)
            builder = inspect.unwrap(ask(architecture[name]))
            # Others may have registered a class.
            is_plain = inspect.isfunction(builder)
            file = builder.__code__.co_filename if is_plain else ""
            home = os.path.dirname(sys.modules[name].__file__)
            if not file.startswith(os.path.join(home, "")):
                return False
    return True
