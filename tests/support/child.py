"""Functions that run in a child process, which may be harmed.

Limits, signals and dropped privileges are never for pytest's own process: it could not
write its report any more.
"""

import ctypes
import os
import pathlib
import pickle
import resource
import sys
import tempfile

import cloudpickle
import pytest

from benchmarks._forks import run_python

# The file of the result is open before the function gives up rights; what limits the
# size of files does not limit it, nor what is said of an error.
MAIN = """
import pickle, resource, sys, warnings
with open(sys.argv[1], "rb") as file:
    function, arguments = pickle.load(file)
warnings.simplefilter("error")
with open(sys.argv[2], "wb") as file:
    try:
        value = function(*arguments)
    finally:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    pickle.dump(value, file)
"""


def in_child(function, *arguments):
    """Call a function in a child process.

    Parameters
    ----------
    function : callable
        May be nested. What is defined in test files is sent by value.
    *arguments : object
        Are pickled, as is everything that the function holds.

    Returns
    -------
    object
        What the function returns.
    """
    modules = [sys.modules[name] for name in sys.modules if name.startswith("tests.")]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        job = cloudpickle.dumps((function, arguments))
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)
    with tempfile.TemporaryDirectory(prefix="skdeepfeat-child-") as folder:
        files = [pathlib.Path(folder, name) for name in ("job", "result")]
        files[0].write_bytes(job)
        child = run_python(
            ["-c", MAIN, *files],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        if child.returncode != 0:
            pytest.fail(
                f"The child ended with {child.returncode}:\n{child.stderr}",
                pytrace=False,
            )
        return pickle.loads(files[1].read_bytes())


def limit_files(n_bytes=None):
    """Let no file of this process grow beyond so many bytes; None lifts the limit.

    A write is then an OSError as on a full disk.
    """
    # Of a module that is imported later, Python 3.11 would keep the first bytes.
    sys.dont_write_bytecode = True
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    soft = hard if n_bytes is None else n_bytes
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def drop_privileges():
    """Give up root's right to read and write everything, for good.

    The process stays root's, so that it can still import what only root may read. With
    no capability it is an owner as any other, which file modes apply to.
    """
    if os.geteuid() == 0:
        version_3, this_process = 0x20080522, 0
        header = (ctypes.c_uint32 * 2)(version_3, this_process)
        none = (ctypes.c_uint32 * 6)()
        assert ctypes.CDLL(None).capset(header, none) == 0


def forbid_writing(folder):
    """Give up the right to change a folder and everything in it."""
    drop_privileges()
    for path in [folder, *folder.rglob("*")]:
        path.chmod(path.stat().st_mode & 0o555)
