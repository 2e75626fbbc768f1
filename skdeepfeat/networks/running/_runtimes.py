"""What runs a network: torch itself, or a form that another library has compiled.

The runtime NAME is the module `_NAME_runtime`. All but torch's own define

- ``TITLE``: its name in messages;
- ``BATCH_PIXELS``: how many pixels to run at once on a CPU;
- ``check(device, precision)``: raises if it cannot be used, when requested by name;
- ``pays(device, precision, n_pixels)``: whether ``"auto"`` selects it; in float32,
  `MeasuredNetwork` may still find that torch is cheaper;
- ``compile_network(module, pixels, device, precision)``: compiles a `PixelsToRows`,
  with a batch of pixels as the example, and returns a function that makes one user's
  access to the compiled network, a callable as `Runner` wants it;
- and, if compiled networks can be kept on disk, ``dump_network(make) -> bytes``,
  ``restore_network(data, precision) -> make`` and ``installed_code()``, JSON types that
  differ between versions.
"""

import importlib

from ..._utils._choices import RUNTIMES

# Finding and checking them takes as long as 4 images. It saves between a tenth
# (ResNet-50) and a third (the embedded network) of the time.
_WORTH_FOLDING = 64 * 224 * 224

# Pixels to run at once. On a CPU, the C library returns maps of more than 32 MB to the
# system immediately, which fills new maps with zeros. With 8 images of 224 x 224, most
# maps are smaller; `benchmarks/extraction.py --parts sweep` prints the rates.
_BATCH_PIXELS = 8 * 224 * 224
_BATCH_PIXELS_ACCELERATOR = 128 * 224 * 224
_MAX_BATCH_SIZE = 512


def load_runtime(name):
    """Return the module of a runtime."""
    return importlib.import_module(f"._{name}_runtime", __package__)


def choose_runtime(runtime, device, precision, crop, n_images):
    """Return what is to run a network, or may be cheapest in float32.

    The choice follows a rule and not a measurement. Below float32, where runtimes
    differ by percents, it is final, and the number of images does not matter either:
    the row of an image does not depend on other images. In float32, `MeasuredNetwork`
    may run some or all images in torch: rows agree to a tested tolerance.

    Parameters
    ----------
    runtime : {"auto", "torch", "compile", "openvino"}
    device : torch.device
    precision : {"float32", "tf32", "bfloat16", "float16"}
    crop : tuple of (int, int)
        Height and width of the images, pixels.
    n_images : int or None
        None for unknown, which counts as many.

    Returns
    -------
    {"torch", "compile", "openvino"}

    Raises
    ------
    ImportError, ValueError
        If a runtime is requested by name and cannot be used.
    """
    if runtime == "auto":
        n_pixels = _count_pixels(n_images, crop)
        compilers = [one for one in RUNTIMES if one not in ("auto", "torch")]
        paying = (
            one
            for one in compilers
            if load_runtime(one).pays(device, precision, n_pixels)
        )
        return next(paying, "torch")
    if runtime != "torch":
        load_runtime(runtime).check(device, precision)
    return runtime


def is_worth_folding(device, precision, crop, n_images):
    """Return whether torch should fold batch norms into convolutions first.

    It depends on the number of pixels. Below float32 it is always so, for the reason
    given in `choose_runtime`, whose parameters these are.
    """
    # A CPU has no TF32.
    is_exact = precision == "float32" or (precision == "tf32" and device.type == "cpu")
    return not is_exact or _count_pixels(n_images, crop) >= _WORTH_FOLDING


def batch_size_for(runtime, device, crop):
    """Return how many images to run at once."""
    n_pixels = _BATCH_PIXELS_ACCELERATOR
    if device.type == "cpu":
        is_torch = runtime == "torch"
        n_pixels = _BATCH_PIXELS if is_torch else load_runtime(runtime).BATCH_PIXELS
    return max(1, min(_MAX_BATCH_SIZE, n_pixels // (crop[0] * crop[1])))


def _count_pixels(n_images, crop):
    return float("inf") if n_images is None else n_images * crop[0] * crop[1]
