"""The record of how an image becomes what a network was trained to see.

Two packages use it: `networks` reads it from the weights, `images` applies its
geometry.
"""

from dataclasses import asdict, dataclass, replace

__all__ = ["MAX_SIDE", "Preprocessing"]

# Pixels, height or width of what a network sees. Many more would fill the memory.
MAX_SIDE = 4096


@dataclass(frozen=True)
class Preprocessing:
    """Geometry and normalization that belong to one set of weights.

    Attributes
    ----------
    resize : int or tuple of (int, int)
        Pixels. An int is the length of the shorter side (the longer one for
        ``crop_mode="border"``), a pair is (height, width).
    crop : tuple of (int, int)
        Height and width in pixels of what the network sees.
    interpolation : {"nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"}
        Pillow's resampling filter.
    mean, std : tuple of 3 floats
        Per channel, for pixels scaled to [0, 1].
    crop_mode : {"center", "border"}
        What to do with the resized image: cut out its center (padding it with
        `fill` where it is smaller), or pad it to `crop` (timm's "border" mode).
    fill : tuple of 3 ints
        The colour of padding, 0 to 255.
    """

    resize: int | tuple[int, int]
    crop: tuple[int, int]
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    crop_mode: str = "center"
    fill: tuple[int, int, int] = (0, 0, 0)

    def with_crop(self, size):
        """Return the same preprocessing for another input size.

        The resize keeps its ratio to the crop, so the share of the picture that the
        network sees stays what the weights were trained with.

        Parameters
        ----------
        size : int or tuple of (int, int)
            Pixels: a square's side, or (height, width).

        Returns
        -------
        Preprocessing
        """
        crop = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        if isinstance(self.resize, int):
            resize = round(self.resize * min(crop) / min(self.crop))
        else:
            resize = tuple(
                round(r * new / old)
                for r, new, old in zip(self.resize, crop, self.crop, strict=True)
            )
        return replace(self, resize=resize, crop=crop)

    def describe(self):
        """Return a plain dict of JSON types, for a cache's namespace."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }
