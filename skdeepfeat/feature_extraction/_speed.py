"""How long an extractor takes for an image that is not in the cache."""

import contextlib
import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from .._utils._device import resolve_devices
from .._utils._public_function import public_function
from ._extraction import open_extraction

# Approximate seconds of each timed run. The fastest of several runs counts, because
# other programs can only make a run slower.
_SECONDS = 0.2
_N_REPEATS = 4
_N_WARM_UP = 4
_N_MOST = 64


@dataclass(frozen=True)
class ImageSeconds:
    """How long an image takes from its file or array to its features.

    Attributes
    ----------
    alone : float
        Seconds if no other program runs. On a CPU this is computed from the CPU time
        and the number of threads, which are taken to share the work evenly.
    now : float
        Seconds on this machine, as busy as it is.
    """

    alone: float
    now: float


@public_function
def seconds_per_image(extractor, X, n_images, layers=None):
    """Return how long an image takes from its file or array to its features.

    Parameters
    ----------
    extractor : DescribedMixin
        Its cache is not used.
    X : images, as for its `transform`
        A part of the images to be computed. At most 64 of them are used.
    n_images : int
        The number of images to be computed, which decides what runs the network.
    layers : list of str and int, "stages" or None, default=None
        As for `extract_layers`. None is the `layer` of the extractor.

    Returns
    -------
    ImageSeconds
        Of the fastest of several runs. Loading and compiling are not included.
    """
    X, neck, settings = extractor._inspected(X)
    if layers is not None:
        neck = neck.with_layers(layers)
    settings = replace(settings, n_images=n_images, verbose=0, n_jobs=1)
    devices = resolve_devices(settings.device)
    on_cpu = all(device.type == "cpu" for device in devices)
    runtime = neck.chosen_runtime(
        devices[0], settings.precision, settings.runtime, n_images
    )

    source = settings.read(X)

    def run(n):
        part = source.part(np.arange(n))
        with open_extraction(part, neck, None, settings) as extraction:
            start, start_computing = time.perf_counter(), time.process_time()
            extraction.fetch(np.arange(n))
            computing = time.process_time() - start_computing
            return computing / n, (time.perf_counter() - start) / n

    n = min(len(source), _N_WARM_UP)
    run(n)
    # By now the runtime has been selected, and the network compiled if worthwhile.
    is_auto = settings.runtime == "auto" and not neck.is_own
    if is_auto and not neck.is_compiled(runtime, devices[0], settings.precision):
        runtime = "torch"
    n = int(np.clip(_SECONDS / run(n)[1], n, min(len(source), _N_MOST)))
    now = min(run(n)[1] for _ in range(_N_REPEATS))
    if not on_cpu:
        return ImageSeconds(now, now)
    n_threads = torch.get_num_threads()
    # The threads of torch compute while they wait for each other, which on a busy
    # machine takes most of the time.
    with _one_thread() if runtime == "torch" else contextlib.nullcontext():
        computing = min(run(n)[0] for _ in range(_N_REPEATS))
    return ImageSeconds(computing / n_threads, now)


@contextlib.contextmanager
def _one_thread():
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
