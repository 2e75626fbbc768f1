"""Positions of maps and tokens: from what a layer returns to (n, channels, h, w)."""

import math

from .._utils._parameter_errors import choice_error


def layer_with_positions(neck, layer):
    """Return the `Layer` that a parameter `layer` means, which must have positions.

    Parameters
    ----------
    neck : networks.Neck
    layer : str, int or None
        None is the last map before the features.

    Raises
    ------
    TypeError, ValueError
    """
    found = neck.last_map() if layer is None else neck.at_layer(layer).outputs[0].source
    if found is not None and found.n_positions > 1:
        return found
    wanted = (
        f"a layer of {neck.spec.name!r} with positions, a map or tokens. list_layers "
        "shows the shapes"
    )
    if found is not None:
        size = " x ".join(map(str, neck.preprocessing.crop))
        wanted += (
            f": that of {found.name!r} is {found.shape} for images of {size} pixels, "
            "and a larger 'image_size' has more positions"
        )
    raise choice_error("layer", wanted, layer)


def to_maps(tensor, layer, neck):
    """Return what a layer returns as maps; class and register tokens are left out.

    Parameters
    ----------
    tensor : Tensor
    layer : Layer
        With positions.
    neck : networks.Neck

    Returns
    -------
    Tensor, shape (n_images, n_channels, height, width)
    """
    if layer.layout == "NCHW":
        return tensor
    if layer.layout == "NHWC":
        return tensor.permute(0, 3, 1, 2)
    patches = tensor[:, layer.n_prefix_tokens :]
    grid = grid_of_tokens(patches.shape[1], neck, layer.name)
    return patches.transpose(1, 2).unflatten(2, grid)


def grid_of_tokens(n_tokens, neck, name):
    """Return the (height, width) of the grid in which a number of patches lie.

    It is that of the map which the network makes tokens of. Without one, it is the grid
    with the ratio of the image.

    Raises
    ------
    ValueError
        If the tokens do not lie in a grid.
    """
    for layer in neck.probe.layers.values():
        if layer.layout in ("NCHW", "NHWC"):
            grid = layer.shape[1:] if layer.layout == "NCHW" else layer.shape[:2]
            if math.prod(grid) == n_tokens:
                return tuple(grid)
    height, width = neck.preprocessing.crop
    rows = round(math.sqrt(n_tokens * height / width))
    if rows and n_tokens % rows == 0:
        return rows, n_tokens // rows
    wanted = f"a layer whose {n_tokens} tokens lie in a grid of the image"
    raise choice_error("layer", wanted, name)
