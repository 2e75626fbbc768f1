"""How X is read and the network run.

Below float32, runtimes and devices differ by percents. Both then belong to the key of
the features in the cache.
"""

import contextlib
import sys
from dataclasses import dataclass, field, replace

import joblib
import torch
from joblib.parallel import get_active_backend

from .._utils._device import resolve_device
from .._utils._item_source import ItemSource
from .._utils._progress import progress_bar
from .._utils._settings import Settings
from ..images import make_image_source
from ..networks import is_below_float32


@dataclass(frozen=True)
class ExtractionSettings(Settings):
    """How to read X and run the network.

    Most are parameters of `PretrainedFeatureExtractor`, which describes them.

    Attributes
    ----------
    flat_image_shape : tuple of int or None
    max_pixels : int or None
    storage_options : dict or None
        Not shown.
    device : str, torch.device, or list of these
    precision : {"float32", "tf32", "bfloat16", "float16"}
    batch_size : int or "auto"
    runtime : {"auto", "torch", "compile", "openvino"}
    on_error : {"raise", "nan"}
    cache_layers : "stages", list of str and int, or None
    n_jobs : int or None
    verbose : int
    n_images : int or None
        Number of images in the whole job, if X is only a part of it.
    device_type : str or None
        The only type of device that may compute, such as ``"cuda"``. None means any.
        Set by `settle_arithmetic`.
    converted : cache.PrivateFiles or None
        Where converted networks are kept. Set by `Extraction`; not shown.
    """

    flat_image_shape: tuple | None = None
    max_pixels: int | None = None
    storage_options: dict | None = field(default=None, repr=False)
    device: object = "auto"
    precision: str = "float32"
    batch_size: int | str = "auto"
    runtime: str = "auto"
    on_error: str = "raise"
    cache_layers: str | list | tuple | None = None
    n_jobs: int | None = 1
    verbose: int = 0
    n_images: int | None = None
    device_type: str | None = None
    converted: object = field(default=None, repr=False, compare=False)

    def progress_bar(self, n_items, title, unit="image", **options):
        """Return a bar that counts items. It is shown if `verbose` is above 0."""
        hidden = self.verbose < 1
        return progress_bar(
            total=n_items, desc=title, unit=unit, disable=hidden, **options
        )

    def read(self, X):
        """Return the `ItemSource` of X, which may be one already."""
        if isinstance(X, ItemSource):
            return X
        return make_image_source(
            X,
            flat_image_shape=self.flat_image_shape,
            max_pixels=self.max_pixels,
            storage_options=self.storage_options,
        )


def count_workers(n_jobs):
    """Return the number of workers that `n_jobs` means here. 1 is this process alone.

    Parameters
    ----------
    n_jobs : int or None
        As in scikit-learn: None means 1 unless in a `joblib.parallel_config` context,
        and -1 means all.

    Returns
    -------
    int
        Also 1 inside another parallel job. joblib would use threads there, which share
        the cores of one worker, or the workers of dask, which may all be waiting for
        the features that are to be computed.
    """
    backend, _ = get_active_backend()
    if getattr(backend, "nesting_level", None):
        return 1
    if "distributed" in sys.modules:
        with contextlib.suppress(ValueError):  # not in a task of dask
            sys.modules["distributed"].get_worker()
            return 1
    return joblib.effective_n_jobs(n_jobs)


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
