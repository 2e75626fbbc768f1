"""What runs a network: torch itself, or a form that another library compiled."""

from ._openvino_runtime import computes_bfloat16, is_installed

__all__ = ["RUNTIMES", "choose_runtime", "is_worth_folding"]

RUNTIMES = ("auto", "torch", "compile", "openvino")

# Converting takes 2 to 4 s. At 224 x 224 on 2 cores, by the rates of the two runtimes
# alone, it is won back after some 90 images of ResNet-50 and 230 of the installed one.
_WORTH_CONVERTING = 256 * 224 * 224

# Finding and checking them takes as long as 4 images, and saves from a tenth of the
# time (ResNet-50) to a third (the installed network).
_WORTH_FOLDING = 64 * 224 * 224

# OpenVINO computes float16 on a CPU in float32.
_PRECISIONS = ("float32", "bfloat16")


def choose_runtime(runtime, device, precision, crop, n_images):
    """Return what is to run a network.

    By rule and not by measuring, so that the same call gives the same numbers. Below
    float32, where runtimes differ by percents, the number of images does not count
    either: an image has the same row whatever it is computed together with.

    Parameters
    ----------
    runtime : {"auto", "torch", "compile", "openvino"}
    device : torch.device
    precision : {"float32", "tf32", "bfloat16", "float16"}
    crop : tuple of (int, int)
        Height and width of the images, pixels.
    n_images : int or None
        None is as many as pay.

    Returns
    -------
    {"torch", "compile", "openvino"}

    Raises
    ------
    ImportError
        If OpenVINO is asked for by name and not installed.
    ValueError
        If it is asked for by name where it cannot be used.
    """
    if runtime == "openvino":
        if device.type != "cpu":
            raise ValueError(
                "The 'runtime' parameter can be 'openvino' on the CPU only. Got it "
                f"with device {str(device)!r}: use device='cpu' or runtime='auto'."
            )
        if precision not in _PRECISIONS:
            raise ValueError(
                "The 'runtime' parameter can be 'openvino' with precision 'float32' "
                f"or 'bfloat16'. Got it with {precision!r}: use one of these, or "
                "runtime='auto'."
            )
        if not is_installed():
            raise ImportError(
                "runtime='openvino' needs the package 'openvino', which is not "
                "installed. Install it with: pip install 'skdeepfeat[openvino]'"
            )
        if precision == "bfloat16" and not computes_bfloat16():
            raise ValueError(
                "The 'runtime' parameter can be 'openvino' with precision 'bfloat16' "
                "only on processors that compute in bfloat16, which this one does not. "
                "Got 'openvino': use precision='float32', which is as fast here, or "
                "runtime='torch'."
            )
        return runtime
    if runtime == "compile":
        return runtime
    if runtime == "torch" or device.type != "cpu" or precision not in _PRECISIONS:
        return "torch"
    if precision == "bfloat16":
        pays = is_installed() and computes_bfloat16()
    else:
        pays = _has_pixels(n_images, crop, _WORTH_CONVERTING) and is_installed()
    return "openvino" if pays else "torch"


def is_worth_folding(device, precision, crop, n_images):
    """Return whether batch norms should be folded into convolutions in torch.

    By the number of pixels; always below float32, for the reason given above.

    Parameters
    ----------
    device : torch.device
    precision : {"float32", "tf32", "bfloat16", "float16"}
    crop : tuple of (int, int)
        Height and width of the images, pixels.
    n_images : int or None
        None is as many as pay.
    """
    # A CPU has no TF32.
    is_exact = precision == "float32" or (precision == "tf32" and device.type == "cpu")
    return not is_exact or _has_pixels(n_images, crop, _WORTH_FOLDING)


def _has_pixels(n_images, crop, n_pixels):
    height, width = crop
    return n_images is None or n_images * height * width >= n_pixels
