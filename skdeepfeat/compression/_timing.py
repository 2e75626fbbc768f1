"""How long networks take for an image, measured side by side."""

import contextlib
import importlib.util
import time

import numpy as np
import torch

from .._utils._optional import import_optional
from .._utils._parameter_errors import choice_error
from ..fine_tuning import PixelsToResult, convert_to_onnx, example_pixels

BATCH_SIZES = (1, 32)
# The runtimes, and the packages and the extra that each needs.
RUNTIMES = {
    "torch": (("torch",), None),
    "openvino": (("openvino",), "openvino"),
    "onnxruntime": (("onnxruntime", "onnx", "onnxscript"), "int8"),
}

_N_WARM_UP = 2
_N_ROUNDS = (5, 20)
# Seconds for one network, runtime and batch size, after the first rounds.
_MAX_SECONDS = 1.0


def checked_runtimes(runtimes):
    """Return the runtimes that times are measured in, as a list.

    Parameters
    ----------
    runtimes : "installed" or list of str

    Raises
    ------
    ValueError
        If there is no such runtime.
    ImportError
        If its packages are not installed.
    """
    if isinstance(runtimes, str) and runtimes == "installed":
        return [
            name
            for name, (packages, _) in RUNTIMES.items()
            if all(map(importlib.util.find_spec, packages))
        ]
    is_list = isinstance(runtimes, (list, tuple)) and len(runtimes) > 0
    for name in runtimes if is_list else [runtimes]:
        if not is_list or not isinstance(name, str) or name not in RUNTIMES:
            wanted = f"'installed' or a list with some of {list(RUNTIMES)}"
            # Without a list, only "installed" can be misspelled.
            names = RUNTIMES if is_list else ["installed"]
            raise choice_error("runtimes", wanted, name, names)
    chosen = [name for name in RUNTIMES if name in runtimes]
    for name in chosen:
        packages, extra = RUNTIMES[name]
        for package in packages:
            import_optional(package, extra=extra, purpose=f"runtimes=[{name!r}]")
    return chosen


def milliseconds_per_image(necks, runtimes):
    """Return the time of networks, from decoded pixels to features.

    In each round, every network runs once, so that a busy machine slows all of them
    down. The best of at most 20 rounds counts.

    Parameters
    ----------
    necks : list of Neck
    runtimes : list of str

    Returns
    -------
    dict of (str, int) to list of float
        For each runtime and batch size, the milliseconds of each network. NaN where the
        runtime cannot run it.
    """
    device = torch.device("cpu")
    size = necks[0].preprocessing.crop
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (max(BATCH_SIZES), *size, 3), dtype=np.uint8)
    found = {}
    for runtime in runtimes:
        with contextlib.ExitStack() as stack:
            runs = [_lent(stack, neck, device, runtime) for neck in necks]
            for n_images in BATCH_SIZES:
                found[runtime, n_images] = best_times(runs, pixels[:n_images])
    return found


def _lent(stack, neck, device, runtime):
    """Return a function that runs a network, or None if the runtime cannot."""
    try:
        if runtime == "onnxruntime":
            return _in_onnx_runtime(neck)
        return stack.enter_context(neck.loaded(device, "float32", runtime))
    except ValueError:
        return None


def _in_onnx_runtime(neck):
    """Return a function that runs a network in ONNX Runtime, or raise ValueError."""
    import onnxruntime

    images = example_pixels(neck.preprocessing.crop)
    proto = convert_to_onnx(PixelsToResult(neck.trainable()), images, "features")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda pixels: session.run(None, {"images": pixels})


def best_times(runs, pixels):
    """Return the least milliseconds per image of each function, for one batch.

    It is NaN for None instead of a function.
    """
    best = [np.nan if run is None else np.inf for run in runs]
    least, most = _N_ROUNDS
    start = time.perf_counter()
    for number in range(_N_WARM_UP + most):
        n_timed = number - _N_WARM_UP
        late = time.perf_counter() - start > _MAX_SECONDS * len(runs)
        if n_timed >= least and late:
            break
        for k, run in enumerate(runs):
            if run is None:
                continue
            before = time.perf_counter()
            run(pixels)
            if n_timed >= 0:
                best[k] = min(best[k], time.perf_counter() - before)
    return [1000 * seconds / len(pixels) for seconds in best]
