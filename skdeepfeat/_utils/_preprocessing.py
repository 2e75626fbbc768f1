"""How images are preprocessed for a network.

Two packages use it: `networks` reads it from the weights, `images` applies its
geometry.
"""

from dataclasses import asdict, dataclass, replace

# Pixels, height or width of a network's input. Many more would exhaust the memory.
MAX_SIDE = 4096

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")


@dataclass(frozen=True)
class Preprocessing:
    """The geometry and normalization that belong to a set of weights.

    Attributes
    ----------
    resize : int or tuple of (int, int)
        Pixels. An int is the length of the shorter side (the longer one for
        ``crop_mode="border"``), a pair is (height, width).
    crop : tuple of (int, int)
        Height and width of the network's input, in pixels.
    interpolation : {"nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"}
        Pillow's resampling filter.
    mean, std : tuple of 3 floats
        Per channel, for pixels scaled to [0, 1].
    crop_mode : {"center", "border"}
        What to do with the resized image: crop its center (after padding it with
        `fill` if it is smaller), or pad it to `crop` (timm's "border" mode).
    fill : tuple of 3 ints
        The color of the padding, 0 to 255.
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

        `resize` is scaled with `crop`, so that the network still sees the same part of
        the image.

        Parameters
        ----------
        size : int or tuple of (int, int)
            Pixels: the side of a square, or (height, width).

        Returns
        -------
        Preprocessing
            A copy with this size.
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
        """Return a dict of JSON types, for a cache's namespace.

        Returns
        -------
        description : dict
            The fields, with lists instead of tuples.
        """
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }
