"""Python scripts that start at once: forks of a process that has imported torch.

Importing torch, torchvision and timm takes some five seconds of processor time, which
is most of what a small script takes. Only for runs whose times mean nothing: the quick
forms of the benchmarks, and tests.
"""

import contextlib
import multiprocessing
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import types
from multiprocessing import forkserver, reduction, resource_tracker
from unittest import mock

from joblib.externals.loky.backend import resource_tracker as loky_tracker
from joblib.externals.loky.backend.context import LokyContext

# The package itself is not among them: each script imports the one on its path.
_IMPORTED = ["torch", "torchvision", "timm", "sklearn.linear_model", "pandas"]
multiprocessing.set_forkserver_preload(_IMPORTED)

# The first fork starts the process that the others are forks of.
_FOR_LIBRARIES = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

# pytest's own addition to the path.
_NOT_FOR_SCRIPTS = str(pathlib.Path(__file__).parents[1] / "tests" / "support")


class ForkedPython:
    """A process that does what ``python`` would do with the same arguments.

    As `subprocess.Popen`, as far as it goes. The libraries read the environment when
    they were imported: numerical ones use one thread, and a hub is not asked.

    Parameters
    ----------
    arguments : list of str
        A script's path, ``-c`` and code, or ``-m`` and a module; then its arguments.
    method : {"forkserver", "fork"}, default="forkserver"
        Whose fork it is: that of a process that has only imported, or of this one.
    capture : bool, default=True
        Whether `communicate` returns what it writes.
    forked_workers : bool, default=True
        Whether joblib's workers are forks, too, if the script starts any. They are not
        children of the script then, nor in its group.
    cwd : path-like, default=None
    env : dict of str to str, default=None
    """

    def __init__(
        self,
        arguments,
        *,
        method="forkserver",
        capture=True,
        forked_workers=True,
        cwd=None,
        env=None,
    ):
        self._texts, self._folder = None, None
        if capture:
            self._folder = tempfile.TemporaryDirectory(prefix="skdeepfeat-fork-")
        arguments = [str(argument) for argument in arguments]
        environment = dict(os.environ if env is None else env)
        context = multiprocessing.get_context(method)
        self._process = context.Process(
            target=_become,
            args=(arguments, str(cwd or os.getcwd()), environment),
            kwargs={
                "texts": self._folder and self._folder.name,
                "forked_workers": forked_workers and method == "forkserver",
            },
        )
        with mock.patch.dict(os.environ, _FOR_LIBRARIES):
            self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self):
        """The exit status; None before the end."""
        return self._process.exitcode

    def wait(self, timeout=None):
        """Wait for the end and return the exit status."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("a fork", timeout)
        return self.returncode

    def communicate(self, timeout=None):
        """Wait for the end and return what went to stdout and stderr, as text."""
        self.wait(timeout)
        if self._texts is None:
            with self._folder as folder:
                paths = [pathlib.Path(folder, name) for name in ("out", "err")]
                self._texts = tuple(path.read_text("utf-8") for path in paths)
        return self._texts

    def send_signal(self, number):
        """Send a signal to the process, if it still runs."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self):
        """End it where it is."""
        self.send_signal(signal.SIGKILL)


def start_python(arguments, *, forked_workers=True, **options):
    """Start what ``python`` would run; return a `ForkedPython` or its like."""
    if sys.platform == "linux":
        return ForkedPython(arguments, forked_workers=forked_workers, **options)
    # Elsewhere, forks of a process that has imported so much may crash.
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run_python(arguments, *, timeout=None, **options):
    """Run what ``python`` would run; return a `subprocess.CompletedProcess`."""
    process = start_python(arguments, **options)
    try:
        texts = process.communicate(timeout)
    except BaseException:  # a test's time limit, too
        process.kill()
        process.communicate()
        raise
    return subprocess.CompletedProcess(arguments, process.returncode, *texts)


# Windows has no such thing, and no use for it either.
_Forked = getattr(
    multiprocessing.context, "ForkServerProcess", multiprocessing.context.Process
)


class ForkedWorker(_Forked):
    """A worker of joblib's loky, forked where loky starts a new interpreter."""

    def __init__(self, *args, env=None, **kwargs):
        super().__init__(*args, **kwargs)
        self._environment = {**os.environ, **(env or {})}

    def start(self):
        """Start it, with what loky's workers inherit of the process."""
        with mock.patch.dict(os.environ, _FOR_LIBRARIES):
            super().start()

    def __getstate__(self):
        # All processes count memory maps together.
        tracker = reduction.DupFd(loky_tracker.getfd())
        return {**vars(self), "_tracker": tracker}

    def run(self):
        """Work in the environment of the process that has started it."""
        os.environ.clear()
        os.environ.update(self._environment)
        loky_tracker._resource_tracker._fd = self._tracker.detach()
        super().run()


@contextlib.contextmanager
def forked_workers():
    """Let workers of joblib that are started meanwhile be forks, on Linux."""
    kind = ForkedWorker if sys.platform == "linux" else LokyContext.Process
    with mock.patch.object(LokyContext, "Process", kind):
        yield


def _become(arguments, folder, environment, texts, forked_workers):
    """Run a script in this process as if it had been started for it."""
    if forked_workers:
        LokyContext.Process = ForkedWorker
        if sys.version_info < (3, 14):
            # A fork may ask the same process for more forks; it would look for a child
            # of its own, and start one.
            server = forkserver._forkserver
            server.ensure_running = resource_tracker.ensure_running
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    # A shell lets what it starts with `&` ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if texts is not None:
        for stream, name in [(sys.stdout, "out"), (sys.stderr, "err")]:
            with open(pathlib.Path(texts, name), "wb") as file:
                os.dup2(file.fileno(), stream.fileno())
    paths = environment.get("PYTHONPATH", "").split(os.pathsep)
    others = [path for path in sys.path if path != _NOT_FOR_SCRIPTS]
    sys.path[:] = [*filter(None, paths), *others]
    # A process of its own has a tracker of its own, which it starts when it needs it.
    tracker = resource_tracker._resource_tracker
    if tracker._fd is not None:
        os.close(tracker._fd)
    tracker._fd = tracker._pid = None
    try:
        _run(arguments, folder)
    finally:
        # What threads look after, such as joblib's workers, ends here. multiprocessing
        # would wait for those workers first, which are idle for minutes.
        threading._shutdown()


def _run(arguments, folder):
    first, *rest = arguments
    if first == "-m":
        sys.argv = rest
        sys.path.insert(0, folder)
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        code, *rest = rest
        sys.argv = ["-c", *rest]
        sys.path.insert(0, "")
        _run_as_main(compile(code, "<string>", "exec"))
    else:
        sys.argv = arguments
        sys.path.insert(0, os.path.dirname(os.path.abspath(first)))
        code = pathlib.Path(first).read_bytes()
        _run_as_main(compile(code, first, "exec"), __file__=first)


def _run_as_main(code, **names):
    module = types.ModuleType("__main__")
    vars(module).update(names)
    sys.modules["__main__"] = module
    exec(code, vars(module))
