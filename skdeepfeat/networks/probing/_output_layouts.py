"""Telling feature maps, tokens and vectors apart."""

from dataclasses import dataclass

from torch import nn

__all__ = ["TokenLayout", "layout_of", "token_layout"]

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
class TokenLayout:
    """The tokens that a network puts before those of the patches.

    Attributes
    ----------
    n_prefix : int
        Class, distillation and register tokens together.
    has_class : bool
        Whether the first of them is a class token.
    """

    n_prefix: int
    has_class: bool

    @classmethod
    def of(cls, network):
        """Read it off a network: timm says the number, others have a parameter."""
        own = {name.rpartition(".")[2] for name, _ in network.named_parameters()}
        has_class = any(name in own for name in _CLASS_TOKENS)
        n_prefix = getattr(network, "num_prefix_tokens", None)
        if not isinstance(n_prefix, int):
            n_prefix = has_class + ("dist_token" in own)
        return cls(n_prefix, has_class and n_prefix > 0)


def token_layout(n_tokens, tokens, grids):
    """Return (prefix tokens, class token first?) of a layer with `n_tokens` tokens.

    Not every layer of a network has them: patches are embedded before the class
    token joins them. The numbers of positions of the feature maps seen so far
    (`grids`) tell which it is.
    """
    if tokens.n_prefix == 0:
        return 0, False
    if n_tokens == tokens.n_prefix:
        return 0, tokens.has_class
    without = n_tokens in grids and n_tokens - tokens.n_prefix not in grids
    if without or n_tokens < tokens.n_prefix:
        return 0, False
    return tokens.n_prefix, tokens.has_class


def layout_of(shape, module, size, last):
    """Return the layout of an output.

    Parameters
    ----------
    shape : tuple of int
        Without the batch axis.
    module : Module
        What computed it.
    size : tuple of (int, int)
        Height and width of the image: a map has the same ratio, but for rounding.
    last : {"NCHW", "NHWC"}
        That of the map before, which decides where the shape does not.

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
    # Each side may be rounded up or down, so the ratio is kept to one row.
    return (
        rows <= height
        and columns <= width
        and abs(rows * width - columns * height) <= max(height, width)
        and (rows == columns or height != width)
    )
