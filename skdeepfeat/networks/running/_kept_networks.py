"""Compiled networks on disk, so that another process need not compile them.

What is kept is given as `files`: ``key in files``, ``files.read(key)`` and
``files.write(key, data)``, of bytes. They return only what this user has written.
`cache.PrivateFiles` are such files.
"""

import functools
import json
import logging
import platform

import numpy as np
import torch

from ..._utils._digests import digest_description, digest_file
from ..._utils._filestat import stat_file
from ..._utils._printable import printable
from .._installed_code import installed_code, is_of_library
from ._row_difference import random_pixels
from ._runtimes import load_runtime

logger = logging.getLogger(__name__)

# Increase this when the content of the files changes.
_FORMAT = 1
# What tells one kind of processor from another in /proc/cpuinfo.
_PROCESSOR_FIELDS = ("model name", "flags", "features")


def key_of_network(form):
    """Return the hexadecimal digest of everything that a compiled network depends on.

    Parameters
    ----------
    form : CompiledForm
        The code of a user's own network is not known, so its rows have to be compared
        as well.

    Returns
    -------
    str or None
        None if it cannot be kept: the runtime has no form on disk, or what the network
        or the packages are cannot be told.
    """
    library = load_runtime(form.runtime)
    if not hasattr(library, "restore_network"):
        return None
    spec, code, version = form.neck.spec, installed_code(), library.installed_code()
    if code is None or version is None or not is_of_library(spec.architecture):
        return None
    return digest_description(
        {
            "format": _FORMAT,
            "runtime": [form.runtime, version],
            "code": code,
            "processor": _describe_processor(),
            "hub": spec.hub_config,
            "rows": form.neck.descriptions(form.precision, _digest_of),
        }
    )


@functools.cache
def _describe_processor():
    """Return the name of the processor and what it can compute, in JSON types."""
    # Not `platform.processor`, which starts a program on some systems.
    found = {
        "machine": platform.machine(),
        "system": platform.system(),
        "capability": torch.backends.cpu.get_cpu_capability(),
    }
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            # All cores are the same except for their clock rates. The description of
            # the first one ends at an empty line.
            for line in iter(file.readline, "\n"):
                name, colon, value = line.partition(":")
                if not colon:
                    break
                if name.strip().lower() in _PROCESSOR_FIELDS:
                    found[name.strip().lower()] = value.strip()
    except OSError:
        pass  # there is no such file outside Linux
    return found


def _digest_of(path):
    """Return the digest of a file, which is read once unless it changes."""
    return _digest_in_state(stat_file(path))


@functools.lru_cache(maxsize=16)
def _digest_in_state(file):
    return digest_file(file.path)


def keep_network(form, key, make, rows):
    """Write a network that has just been compiled and compared.

    Parameters
    ----------
    form : CompiledForm
    key : str
        From `key_of_network`.
    make : callable
        As the runtime's `compile_network` returns it.
    rows : list of ndarray of float32, shape (n_compared, n_features)
        What torch computes for `random_pixels`.
    """
    fingerprint = form.neck.fingerprint
    head = {
        "probe": fingerprint and fingerprint.summary(),
        "n_features": [one.shape[1] for one in rows],
    }
    if installed_code.__wrapped__() != installed_code():
        return  # another version has been installed meanwhile
    try:
        network = load_runtime(form.runtime).dump_network(make)
    except Exception:  # it may fail in untested cases
        logger.debug("the compiled network cannot be stored", exc_info=True)
        return
    head = json.dumps(head).encode()
    size = len(head).to_bytes(8, "little")
    first = [np.ascontiguousarray(one[0], "<f4").tobytes() for one in rows]
    form.files.write(key, b"".join([size, head, *first, network]))


def recall_network(form, key):
    """Return a network that was kept and computes what torch did for one image.

    Parameters
    ----------
    form : CompiledForm
    key : str
        From `key_of_network`.

    Returns
    -------
    callable or None
        None if there is none, or one that is of no use.
    """
    data = form.files.read(key)
    if data is None:
        return None
    try:
        start = 8 + int.from_bytes(data[:8], "little")
        head = json.loads(data[8:start])
        fingerprint = form.neck.fingerprint
        if fingerprint and not fingerprint.agrees_with_summary(head["probe"]):
            return None  # its code differs
        wanted = []
        for n_features in head["n_features"]:
            wanted.append(np.frombuffer(data, "<f4", n_features, start)[np.newaxis])
            start += 4 * n_features
        network = memoryview(data)[start:]
        make = load_runtime(form.runtime).restore_network(network, form.precision)
        form.compare(make()(random_pixels(1, form.neck.preprocessing.crop)), wanted)
        return make
    except Exception as error:  # damage was detected before, but never fail here
        logger.info("the stored network cannot be used: %s", printable(error))
        return None
