"""How X is read and the network run."""

from dataclasses import dataclass

__all__ = ["ExtractionSettings"]


@dataclass(frozen=True)
class ExtractionSettings:
    """How to read X and run the network; what the rows are does not depend on it.

    Attributes
    ----------
    image_shape : tuple of int or None
        (height, width[, channels]) of flat rows.
    max_pixels : int or None
        Larger images are refused before they are decoded.
    device : str or torch.device
    precision : {"float32", "bfloat16", "float16"}
    batch_size : int or "auto"
    on_error : {"raise", "nan"}
    verbose : int
        Above 0, a progress bar counts the images that go through the network.
    """

    image_shape: tuple | None = None
    max_pixels: int | None = None
    device: object = "auto"
    precision: str = "float32"
    batch_size: int | str = "auto"
    on_error: str = "raise"
    verbose: int = 0
