"""What computes rows below float32, where runtimes and devices differ by percents."""

from dataclasses import replace

import torch

from .._utils._device import resolve_device

__all__ = ["check_device_type", "describe_arithmetic", "settle_arithmetic"]


def settle_arithmetic(neck, devices, settings):
    """Return settings that name the runtime and the kind of device below float32.

    Both then belong to the rows' namespace. How many images there are does not count,
    nor what is installed on the machine of a worker: it computes as named, or fails.

    Parameters
    ----------
    neck : networks.Neck
    devices : list of torch.device
        Of this machine; empty where workers compute.
    settings : ExtractionSettings

    Returns
    -------
    ExtractionSettings

    Raises
    ------
    ValueError
        If the devices are of several kinds.
    """
    if neck.computes_exactly(settings.precision):
        return settings
    kinds = sorted({_kind(one) for one in devices or _as_list(settings.device)})
    if len(kinds) > 1:
        raise ValueError(
            "The 'device' parameter must hold devices of one kind below float32, "
            "because rows of different kinds differ by percents. Got "
            f"{settings.device!r} instead: use one kind, or precision='float32'."
        )
    runtime = settings.runtime
    if runtime == "auto":
        # A module whose own weights are below float32 is run by torch alone.
        is_exact = settings.precision == "float32"
        runtime = "torch" if is_exact else _by_rule(neck, kinds[0], settings)
    return replace(settings, runtime=runtime, device_type=kinds[0])


def _by_rule(neck, kind, settings):
    return neck.chosen_runtime(torch.device(kind), settings.precision, "auto", None)


def _as_list(devices):
    return devices if isinstance(devices, (list, tuple)) else [devices]


def _kind(device):
    if device == "auto":
        return resolve_device("auto").type
    try:
        return torch.device(device).type
    except (RuntimeError, TypeError):
        return resolve_device(device).type  # which says what is wrong with it


def describe_arithmetic(settings):
    """Return what belongs to a namespace's description, and to its label."""
    if settings.device_type is None:
        return {}, ""
    where = {"runtime": settings.runtime, "device": settings.device_type}
    return {"computed by": where}, f" by {settings.runtime} on {settings.device_type}"


def check_device_type(devices, settings):
    """Raise ValueError where devices are not of the kind that was settled."""
    for device in devices:
        if settings.device_type not in (None, device.type):
            raise ValueError(
                "The 'device' parameter must name the kind of device below float32: "
                f"{str(device)!r} was found here, but {settings.device_type!r} where "
                "the work was distributed, and rows of the two differ by percents. Got "
                f"{settings.device!r} instead."
            )
