"""Telling feature maps, tokens and vectors apart."""

from dataclasses import dataclass

from torch import nn

_CLASS_TOKENS = ("cls_token", "class_token", "class_embedding")
_CHANNELS_FIRST = (
    nn.Conv2d,
    nn.ConvTranspose2d,
    nn.BatchNorm2d,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
)


@dataclass(frozen=True)
class PrefixTokens:
    """The tokens that a network puts before those of the patches.

    Attributes
    ----------
    n : int
        The number of class, distillation and register tokens.
    has_class : bool
        Whether the first of them is a class token.
    """

    n: int
    has_class: bool

    @classmethod
    def of(cls, network):
        """Return those of a network, by timm's attribute or by names of parameters."""
        own = {name.rpartition(".")[2] for name, _ in network.named_parameters()}
        has_class = any(name in own for name in _CLASS_TOKENS)
        n = getattr(network, "num_prefix_tokens", None)
        if not isinstance(n, int):
            n = has_class + ("dist_token" in own)
        return cls(n, has_class and n > 0)

    def among(self, n_tokens, grids):
        """Return how many of a layer's tokens are prefix tokens, and `has_class`.

        Not every layer of a network has them: the class token is added after the
        patches are embedded.

        Parameters
        ----------
        n_tokens : int
            The number of the layer's tokens.
        grids : set of int
            The numbers of positions of the maps so far.
        """
        if self.n == 0:
            return 0, False
        if n_tokens == self.n:
            return 0, self.has_class
        without = n_tokens in grids and n_tokens - self.n not in grids
        if without or n_tokens < self.n:
            return 0, False
        return self.n, self.has_class


def layout_of(shape, module, size, last):
    """Return the layout of an output.

    Parameters
    ----------
    shape : tuple of int
        Without the batch axis.
    module : Module
        The module that computed it.
    size : tuple of (int, int)
        Height and width of the image. A map has the same ratio, up to rounding.
    last : {"NCHW", "NHWC"}
        The layout of the map before, which decides if the shape does not.

    Returns
    -------
    {"NCHW", "NHWC", "NLC", "vector", "other"}
    """
    if len(shape) <= 1:
        return "vector"
    if len(shape) == 2:
        return "NLC"
    if len(shape) > 3:
        return "other"
    if isinstance(module, _CHANNELS_FIRST):
        return "NCHW"
    if isinstance(module, nn.Linear) or type(module) is nn.LayerNorm:
        return "NHWC"
    first, second = _is_grid(shape[1:], size), _is_grid(shape[:2], size)
    if first != second:
        return "NCHW" if first else "NHWC"
    return last if first else "NCHW"


def _is_grid(grid, size):
    (rows, columns), (height, width) = grid, size
    # Each side may be rounded up or down, so the ratio may be off by one row.
    return (
        rows <= height
        and columns <= width
        and abs(rows * width - columns * height) <= max(height, width)
        and (rows == columns or height != width)
    )


_SEQUENCE_CHANNELS_FIRST = (
    nn.Conv1d,
    nn.ConvTranspose1d,
    nn.BatchNorm1d,
    nn.MaxPool1d,
    nn.AvgPool1d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveMaxPool1d,
)


def layout_of_item(shape, module, last):
    """Return the layout of an output for items that are not images.

    Parameters
    ----------
    shape : tuple of int
        Without the batch axis.
    module : Module
        The module that computed it.
    last : tuple of (tuple of int, str) or None
        Shape and layout of the output before, which decide if the shape is the same and
        the module does not tell.

    Returns
    -------
    {"NCHW", "NHWC", "NLC", "NCL", "vector", "other"}
    """
    if len(shape) <= 1:
        return "vector"
    if len(shape) > 3:
        return "other"
    is_linear = isinstance(module, (nn.Linear, nn.LayerNorm, nn.Embedding, nn.RNNBase))
    if not is_linear and not isinstance(
        module, (*_SEQUENCE_CHANNELS_FIRST, *_CHANNELS_FIRST)
    ):
        if last is not None and last[0] == shape:
            return last[1]
        return "NLC" if len(shape) == 2 else "NCHW"
    if len(shape) == 2:
        return "NLC" if is_linear else "NCL"
    return "NHWC" if is_linear else "NCHW"
