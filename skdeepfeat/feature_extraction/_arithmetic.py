"""What computes features below float32, where runtimes and devices differ by percents.

Both then belong to the key of the features in the cache.
"""

from dataclasses import replace

import torch

from .._utils._device import resolve_device
from ..networks import is_below_float32


def settle_arithmetic(neck, devices, settings):
    """Return settings that name the runtime and the type of device below float32.

    Neither depends on the number of images, nor on what is installed on the machine of
    a worker: it computes with what is named, or fails.

    Parameters
    ----------
    neck : networks.Neck
    devices : list of torch.device
        Of this machine; empty if workers compute.
    settings : ExtractionSettings

    Returns
    -------
    ExtractionSettings

    Raises
    ------
    ValueError
        If the devices have several types.
    """
    is_low = neck.is_own and is_below_float32(neck.spec.module)
    if settings.precision == "float32" and not is_low:
        return settings  # all runtimes and devices agree to 1e-4
    given = settings.device
    given = given if isinstance(given, (list, tuple)) else [given]
    types = sorted({_type_of(device) for device in devices or given})
    if len(types) > 1:
        raise ValueError(
            "The 'device' parameter must hold devices of one type below float32, "
            "because features computed by different types differ by percents. Got "
            f"{settings.device!r} instead. Use one type, or precision='float32'."
        )
    runtime = settings.runtime
    if runtime == "auto" and settings.precision == "float32":
        runtime = "torch"  # a module with weights below float32 is run by torch alone
    elif runtime == "auto":
        device = torch.device(types[0])
        runtime = neck.chosen_runtime(device, settings.precision, "auto", None)
    return replace(settings, runtime=runtime, device_type=types[0])


def _type_of(device):
    if device != "auto":
        try:
            return torch.device(device).type
        except (RuntimeError, TypeError):
            pass  # `resolve_device` explains what is wrong with it
    return resolve_device(device).type


def check_device_type(devices, settings):
    """Raise ValueError if devices do not have the type that was settled."""
    for device in devices:
        if settings.device_type not in (None, device.type):
            raise ValueError(
                "The 'device' parameter must name the type of device below float32: "
                f"{str(device)!r} was found here, but {settings.device_type!r} on the "
                "machine that distributes the work, and features computed by the two "
                f"differ by percents. Got {settings.device!r} instead."
            )
