"""Messages of Pillow and libtiff, attached to the image that they are about.

Pillow's plugins warn about a corrupt EXIF block, an odd TIFF tag or a large size.
libtiff writes its errors to the terminal. Neither names the file. Both can be
redirected, but only for the whole process. So the hooks in this module collect the
messages of threads that decode images, and pass on all others.

If users turn warnings into errors, a warning becomes an exception in the middle of a
decoder. Only then is the decoder called again, with warnings ignored.
`warnings.catch_warnings` is not used from the start, because it replaces the filters of
the whole process: threads that leave it in another order restore the wrong filters.
"""

import contextlib
import ctypes
import functools
import logging
import pathlib
import sys
import threading
import warnings

import PIL

from skdeepfeat._utils._forks import released_after_fork

_lock = released_after_fork(threading.Lock())
_MESSAGE_LENGTH = 200  # characters of one message
_MAX_MESSAGES = 10  # of one image: a damaged TIFF has one for each strip


class _Collected(threading.local):
    messages: list | None = None

    def add(self, message):
        if len(self.messages) < _MAX_MESSAGES:
            self.messages.append(" ".join(message.split())[:_MESSAGE_LENGTH])


_collected = _Collected()


@contextlib.contextmanager
def collect_messages():
    """Collect the messages of Pillow in this thread, instead of showing them.

    Yields
    ------
    list of str
        Filled as messages come. Nested contexts share the list.
    """
    if _collected.messages is not None:
        yield _collected.messages
        return
    _hook_warnings()
    _hook_logging()
    _collected.messages = []
    try:
        yield _collected.messages
    finally:
        _collected.messages = None


def call_despite_warnings(function, *arguments):
    """Call a function; if a warning stops it, call it again with warnings ignored.

    Parameters
    ----------
    function : callable
        May be called twice.
    *arguments
        Its arguments.

    Returns
    -------
    object
        Its result.
    """
    try:
        return function(*arguments)
    except Warning:
        # One thread at a time, so that the filters are restored in order.
        with _lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(*arguments)


@functools.cache
def _hook_logging():
    # If the user has set no handler, logging writes errors to the terminal.
    logging.getLogger("PIL.TiffImagePlugin").addFilter(_collect_record)


def _collect_record(record):
    """Collect a warning of Pillow; return whether it is logged instead."""
    if _collected.messages is None or record.levelno < logging.WARNING:
        return True
    _collected.add(record.getMessage())
    return False


def _hook_warnings():
    # Checked each time, because users and catch_warnings set it, too.
    before = warnings.showwarning
    if getattr(before, "collects", False):
        return

    @functools.wraps(before)
    def showwarning(message, *args, **kwargs):
        if _collected.messages is None:
            return before(message, *args, **kwargs)
        _collected.add(str(message))

    showwarning.collects = True
    warnings.showwarning = showwarning


@functools.cache
def collect_messages_of_libtiff():
    """Collect libtiff's messages from now on, if Pillow's copy of it is found."""
    for path in _paths_of_libtiff():
        with contextlib.suppress(OSError, AttributeError):
            _hooked.append(_hook_libtiff(ctypes.CDLL(str(path))))


_hooked: list = []  # protects callbacks of C from garbage collection
_HANDLER = ctypes.CFUNCTYPE(
    None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p
)  # TIFFErrorHandler(module, format, va_list)


def _paths_of_libtiff():
    """Return the paths of the libtiff that Pillow has loaded, if it is a file."""
    package = pathlib.Path(PIL.__file__).parent
    if sys.platform == "darwin":
        return list(package.glob(".dylibs/libtiff*.dylib"))
    if sys.platform != "linux":
        return []  # in Pillow's wheels for Windows it is linked statically
    found = set()
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/self/maps").read_text().splitlines():
            path = pathlib.Path(line[line.find("/") :])
            if path.name.startswith("libtiff"):
                found.add(path)
    bundled = {path for path in found if "pillow.libs" in path.parts}
    return sorted(bundled or found)


def _hook_libtiff(library):
    library.TIFFSetErrorHandler.restype = ctypes.c_void_p
    library.TIFFSetErrorHandler.argtypes = [_HANDLER]
    vsnprintf = ctypes.CDLL(None).vsnprintf
    vsnprintf.argtypes = [
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_char_p,
        ctypes.c_void_p,
    ]

    @_HANDLER
    def handle(module, text, arguments):
        if _collected.messages is None:
            if before:
                before(module, text, arguments)
            return
        buffer = ctypes.create_string_buffer(_MESSAGE_LENGTH)
        vsnprintf(buffer, len(buffer), text, arguments)
        _collected.add(buffer.value.decode("utf-8", "replace"))

    address = library.TIFFSetErrorHandler(handle)
    before = _HANDLER(address) if address else None
    return handle
