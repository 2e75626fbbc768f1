"""The state of the code that a named network depends on, for what is kept on disk."""

import functools
import inspect
import os
import sys

import torch

from .._utils._installed import digest_code, installed_version

LIBRARIES = ("timm", "torchvision")
# How each library returns the function that builds a network.
_BUILDERS = {"timm": "model_entrypoint", "torchvision": "get_model_builder"}

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
