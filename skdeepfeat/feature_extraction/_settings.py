"""How X is read and the network run."""

from dataclasses import dataclass, field

from .._utils._item_source import ItemSource
from .._utils._progress import progress_bar
from ..images import make_image_source


@dataclass(frozen=True)
class ExtractionSettings:
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
    jpeg_decoder : {"pillow", "device"}
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
    jpeg_decoder: str = "pillow"
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
