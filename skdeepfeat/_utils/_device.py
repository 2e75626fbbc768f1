"""Where a network runs: choice of device and precision, running out of memory."""

import contextlib
import gc
import threading

import torch

from ._forks import released_after_fork

__all__ = [
    "DTYPES",
    "compute_context",
    "float32_arithmetic",
    "free_device_memory",
    "is_out_of_memory",
    "resolve_device",
    "resolve_devices",
]

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
        ``"auto"`` takes the first of cuda, mps, xpu that is there, else the CPU.

    Returns
    -------
    torch.device

    Raises
    ------
    ValueError
        If there is no such device. It is never replaced silently by another one.
    """
    if device == "auto":
        found = [name for name in _ACCELERATORS if _is_available(name)]
        return _with_index(torch.device(found[0] if found else "cpu"))
    usable = ["cpu"]
    for name in _ACCELERATORS:
        if _is_available(name):
            usable.append(name)
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"The 'device' parameter must be 'auto' or the name of a torch device. "
            f"Got {device!r:.80} instead. Usable here: {', '.join(usable)}."
        ) from error
    if resolved.type not in usable or _index_is_beyond(resolved):
        raise ValueError(
            f"The 'device' parameter is {str(resolved)!r}, which torch does not find "
            f"on this machine. Usable here: {', '.join(usable)}. "
            "device='auto' takes the best of them."
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
        raise ValueError(
            "The 'device' parameter must be a device or a list of different ones, at "
            f"least one. Got {devices!r:.80} instead."
        )
    return resolved


def _is_available(name):
    return getattr(torch, name).is_available() if hasattr(torch, name) else False


def _with_index(device):
    """Return a GPU with its number, so that one has one name in all threads.

    Which of several is the current one is a matter of each thread.
    """
    if device.index is not None or device.type not in ("cuda", "xpu"):
        return device
    module = getattr(torch, device.type)
    # Asking would start it, which takes its memory, in whoever only waits for rows.
    return torch.device(
        device.type, module.current_device() if module.is_initialized() else 0
    )


def _index_is_beyond(device):
    if device.index is None or device.type == "cpu":
        return False
    return device.index >= getattr(torch, device.type).device_count()


@contextlib.contextmanager
def compute_context(device, precision):
    """Inference mode in the given precision, for the body of a ``with``.

    Parameters
    ----------
    device : torch.device
    precision : {"float32", "tf32", "bfloat16", "float16"}
    """
    dtype = DTYPES[precision]
    is_mixed = dtype != torch.float32
    with (
        torch.inference_mode(),
        torch.autocast(device.type, dtype=dtype, enabled=is_mixed),
        float32_arithmetic(device, precision),
    ):
        yield


def float32_arithmetic(device, precision):
    """Return a context in which an NVIDIA GPU computes float32 as `precision` says.

    By default torch's convolutions round their inputs to TF32 there, which moves
    features by 1e-3 from those of a CPU.

    Parameters
    ----------
    device : torch.device
    precision : {"float32", "tf32", "bfloat16", "float16"}
        The last two change nothing here.
    """
    if device.type != "cuda" or DTYPES[precision] != torch.float32:
        return contextlib.nullcontext()
    return _tf32.held(precision == "tf32")


class SharedSetting:
    """A setting of the whole process that several threads need for a while.

    Who wants the value that others are using joins them; who wants another one waits
    until they are done. The last one to leave puts back what was there before.

    Parameters
    ----------
    read : callable
        Returns the value.
    write : callable
        Takes what `read` returned, or a value that is wanted.
    """

    def __init__(self, read, write):
        self._read = read
        self._write = write
        self._changed = released_after_fork(threading.Condition())
        self._value = None
        self._before = None
        self._n_users = 0

    @contextlib.contextmanager
    def held(self, value):
        """Have the setting at a value for the body of a ``with``."""
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


# torch's current interface. Once somebody has used it, reading the old one, allow_tf32,
# is an error.
_WITH_TF32 = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)


def _read_tf32():
    return tuple(place.fp32_precision for place in _WITH_TF32)


def _write_tf32(wanted):
    if isinstance(wanted, bool):
        wanted = ("tf32" if wanted else "ieee",) * len(_WITH_TF32)
    for place, value in zip(_WITH_TF32, wanted, strict=True):
        place.fp32_precision = value


# torch.backends.cudnn.flags would not do: of two threads that use it, the first to
# leave would change what the other computes in.
_tf32 = SharedSetting(_read_tf32, _write_tf32)


def is_out_of_memory(error):
    """Return whether an exception says that a device's memory did not suffice."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # The CPU's allocator and MPS raise plain RuntimeErrors.
    text = str(error).lower()
    signs = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, RuntimeError) and any(sign in text for sign in signs)


def free_device_memory(device):
    """Give what torch's allocator keeps for reuse back to the device."""
    if device.type in _ACCELERATORS:
        gc.collect()
        getattr(torch, device.type).empty_cache()
