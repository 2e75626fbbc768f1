"""Devices: which one a network runs on, in which precision, and its memory."""

import contextlib
import gc
import threading

import torch

from ._forks import released_after_fork
from ._parameter_errors import choice_error, first_line

DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

_ACCELERATORS = ("cuda", "mps", "xpu")


def resolve_device(device):
    """Turn the `device` parameter of an estimator into a torch device that exists.

    Parameters
    ----------
    device : str or torch.device
        ``"auto"`` is the first available of cuda, mps and xpu, otherwise the CPU.

    Returns
    -------
    torch.device

    Raises
    ------
    ValueError
        If there is no such device. A different device is never used silently.
    """
    accelerators = [n for n in _ACCELERATORS if getattr(torch, n).is_available()]
    if device == "auto":
        return _with_index(torch.device(accelerators[0] if accelerators else "cpu"))
    usable = ["cpu", *accelerators]
    usable_here = f"Usable here: {', '.join(usable)}"
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError):
        wanted = f"'auto' or the name of a torch device. {usable_here}"
        # torch's error repeats the value, with what may be a password.
        raise choice_error("device", wanted, device) from None
    is_beyond = (
        resolved.type in accelerators
        and (resolved.index or 0) >= getattr(torch, resolved.type).device_count()
    )
    if resolved.type not in usable or is_beyond:
        raise ValueError(
            f"The 'device' parameter is {str(resolved)!r}, which torch does not find "
            f"on this machine. {usable_here}. device='auto' selects the best of them."
        )
    return _with_index(resolved)


def resolve_devices(devices):
    """Turn a `device` parameter that may hold several into torch devices.

    Parameters
    ----------
    devices : str, torch.device, or list or tuple of these

    Returns
    -------
    list of torch.device

    Raises
    ------
    ValueError
        If there is none, one is named twice, or as `resolve_device`.
    """
    if not isinstance(devices, (list, tuple)):
        return [resolve_device(devices)]
    resolved = [resolve_device(device) for device in devices]
    if not resolved or len(set(resolved)) < len(resolved):
        wanted = "a device or a list of different ones, at least one"
        raise choice_error("device", wanted, devices)
    return resolved


def _with_index(device):
    """Return a GPU with its index, because each thread has its own current GPU."""
    if device.index is not None or device.type not in ("cuda", "xpu"):
        return device
    module = getattr(torch, device.type)
    # Asking for the current device would initialize the GPU, which takes memory also
    # in processes that only wait for features.
    return torch.device(
        device.type, module.current_device() if module.is_initialized() else 0
    )


@contextlib.contextmanager
def compute_context(device, precision):
    """Inference mode in the given precision, for the body of a ``with``.

    Parameters
    ----------
    device : torch.device
    precision : {"float32", "tf32", "bfloat16", "float16"}
    """
    with (
        torch.inference_mode(),
        autocast(device, precision),
        float32_arithmetic(device, precision),
    ):
        yield


def autocast(device, precision):
    """Return torch's autocast context, which does nothing for float32 and TF32."""
    dtype = DTYPES[precision]
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def float32_arithmetic(device, precision):
    """Return a context in which a device computes with float32 or with TF32.

    By default, torch's convolutions round their inputs to TF32 on an NVIDIA GPU, which
    changes features by 1e-3. ``torch.set_float32_matmul_precision("medium")`` lets
    processors that have fast instructions for it compute with bfloat16.

    Parameters
    ----------
    device : torch.device
    precision : {"float32", "tf32", "bfloat16", "float16"}
        The last two have no effect here. A CPU has no TF32.
    """
    if DTYPES[precision] != torch.float32 or device.type not in _ARITHMETIC:
        return contextlib.nullcontext()
    is_tf32 = precision == "tf32" and device.type == "cuda"
    return _ARITHMETIC[device.type].set_to("tf32" if is_tf32 else "ieee")


class SharedSetting:
    """A setting of the whole process that several threads need for a while.

    Threads that want the same value share it. A thread that wants another value waits
    until they are done. The last one restores the former value.

    Parameters
    ----------
    read : callable
        Returns the value.
    write : callable
        Takes what `read` returned, or a value passed to `set_to`.
    """

    def __init__(self, read, write):
        self._read = read
        self._write = write
        self._changed = released_after_fork(threading.Condition())
        self._value = None
        self._before = None
        self._n_users = 0

    @contextlib.contextmanager
    def set_to(self, value):
        """Set it to a value for the body of a ``with``."""
        with self._changed:
            self._changed.wait_for(lambda: not self._n_users or self._value == value)
            if not self._n_users:
                self._before, self._value = self._read(), value
                self._write(value)
            self._n_users += 1
        try:
            yield
        finally:
            with self._changed:
                self._n_users -= 1
                if not self._n_users:
                    self._write(self._before)
                    self._changed.notify_all()


def _arithmetic_of(*places):
    """Return the `SharedSetting` of what float32 is computed with in several places."""

    # torch's current interface. Once it has been used, reading the old one, allow_tf32,
    # is an error.
    def read():
        return [place.fp32_precision for place in places]

    def write(wanted):
        wanted = [wanted] * len(places) if isinstance(wanted, str) else wanted
        for place, value in zip(places, wanted, strict=True):
            place.fp32_precision = value

    return SharedSetting(read, write)


# torch.backends.cudnn.flags is not safe with threads: the first of two to leave would
# change the precision of the other.
_ARITHMETIC = {
    "cpu": _arithmetic_of(
        torch.backends.mkldnn.matmul,
        torch.backends.mkldnn.conv,
        torch.backends.mkldnn.rnn,
    ),
    "cuda": _arithmetic_of(torch.backends.cuda.matmul, torch.backends.cudnn.conv),
}


def is_out_of_memory(error):
    """Return whether an exception says that a device is out of memory."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # The CPU's allocator and MPS raise plain RuntimeErrors.
    text = str(error).lower()
    signs = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, RuntimeError) and any(sign in text for sign in signs)


def try_on_device(device, call):
    """Return what a call returns, and why the memory of a device was not enough.

    Parameters
    ----------
    device : torch.device
    call : callable

    Returns
    -------
    result : object
        None if the memory was not enough. Then it is freed.
    cause : str or None
        None if the memory was enough.

    Raises
    ------
    Exception
        What the call raises for another reason.
    """
    try:
        return call(), None
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        cause = first_line(error)
    # After the except clause, which frees the traceback's tensors.
    free_device_memory(device)
    return None, cause


def free_device_memory(device, *, collects=True):
    """Return the memory that torch's allocator caches to the device.

    Parameters
    ----------
    device : torch.device
    collects : bool, default=True
        Whether to look for garbage first, which takes up to a second. Tensors are
        garbage only where objects refer to each other in a circle, as in a traceback.
    """
    if device.type in _ACCELERATORS:
        if collects:
            gc.collect()
        getattr(torch, device.type).empty_cache()
