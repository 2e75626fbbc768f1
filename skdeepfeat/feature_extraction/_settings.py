"""How X is read and the network run."""

from dataclasses import dataclass, field

__all__ = ["ExtractionSettings"]


@dataclass(frozen=True)
class ExtractionSettings:
    """How to read X and run the network.

    Below float32, rows depend on what computes them: see `settle_arithmetic`.

    Attributes
    ----------
    flat_image_shape : tuple of int or None
        (height, width[, channels]) of flat rows.
    max_pixels : int or None
        Larger images are refused before they are decoded.
    storage_options : dict or None
        With these fsspec reads addresses; None refuses them. Not shown.
    device : str, torch.device, or list of these
    precision : {"float32", "tf32", "bfloat16", "float16"}
    batch_size : int or "auto"
    runtime : {"auto", "torch", "compile", "openvino"}
    jpeg_decoder : {"pillow", "device"}
    on_error : {"raise", "nan"}
    cache_layers : "stages", list of str and int, or None
        Layers that are computed besides, for the cache, where anything is.
    n_jobs : int or None
        Workers among which images are shared out; None asks `joblib.parallel_config`.
    n_images : int or None
        How many images there are in all, where X is only a part of them.
    device_type : str or None
        The only kind of device that may compute, such as ``"cuda"``; None is any.
    verbose : int
        Above 0, a progress bar counts the images that go through the network.
    """

    flat_image_shape: tuple | None = None
    max_pixels: int | None = None
    storage_options: dict | None = field(default=None, repr=False)
    device: object = "auto"
    precision: str = "float32"
    batch_size: int | str = "auto"
    runtime: str = "auto"
    jpeg_decoder: str = "pillow"
    on_error: str = "raise"
    cache_layers: str | list | tuple | None = None
    n_jobs: int | None = 1
    n_images: int | None = None
    device_type: str | None = None
    verbose: int = 0
