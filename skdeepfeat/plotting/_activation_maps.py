"""ActivationMapDisplay: which parts of images are evidence for a class."""

import numpy as np
import torch

from .._utils._parameter_errors import check_count, check_several
from .._utils._public_function import public_function
from ..inspection import explain
from ._axes import set_axes_cells
from ._pictures import set_title, show_picture

_KINDS = ("image", "map", "overlay")


class ActivationMapDisplay:
    """Visualization of activation maps.

    Red parts of an image are evidence for the target, and blue parts against it. An
    overlay shows the image in gray. Maps are enlarged onto the part of the image that
    the network sees. The colors of each map are scaled by its largest absolute value.

    It is recommended to use `from_estimator` to create one. All parameters are stored
    as attributes.

    Parameters
    ----------
    maps : ndarray of float, shape (n_images, map_height, map_width)
        As `activation_maps` returns them.
    images : sequence of ndarray, shape (height, width, 3) or (height, width)
        What the network sees: uint8, or floats in [0, 1].
    titles : sequence of str or None, default=None
        The titles of the images.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (n_rows, n_columns)
    figure_ : matplotlib Figure
    images_ : list of matplotlib AxesImage
        Of an overlay, both the image and the map.

    See Also
    --------
    skdeepfeat.inspection.activation_maps : The numbers without the plot.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from skdeepfeat import PretrainedFeatureExtractor
    >>> from skdeepfeat.plotting import ActivationMapDisplay
    >>> rng = np.random.default_rng(0)
    >>> X = rng.integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    >>> X[::2, :32, :32] = 255
    >>> y = np.tile(["square", "noise"], 4)
    >>> features = PretrainedFeatureExtractor(image_size=64, cache=None)
    >>> pipe = make_pipeline(features, LogisticRegression()).fit(X, y)
    >>> ActivationMapDisplay.from_estimator(pipe, X[:2], method="cam")
    <...>
    """

    def __init__(self, *, maps, images, titles=None):
        self.maps = maps
        self.images = images
        self.titles = titles

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        target="predicted",
        *,
        method="gradcam",
        layer=None,
        relu=False,
        grid=7,
        flat_image_shape=None,
        kind="overlay",
        n_columns=None,
        ax=None,
        **kwargs,
    ):
        """Compute activation maps and plot them.

        Parameters
        ----------
        estimator, X, target, method, layer, relu, grid, flat_image_shape :
            As for `skdeepfeat.inspection.activation_maps`.
        kind, n_columns, ax, **kwargs :
            As for `plot`.

        Returns
        -------
        display : ActivationMapDisplay
        """
        check_several("kind", kind, _KINDS)
        check_count("n_columns", n_columns, may_be_none=True)
        found = explain(
            estimator, X, target, method, layer, relu, grid, flat_image_shape
        )
        titles = ["not read" if one is None else str(one) for one in found.targets]
        display = cls(maps=found.maps, images=found.images, titles=titles)
        return display.plot(ax=ax, kind=kind, n_columns=n_columns, **kwargs)

    def plot(
        self, ax=None, *, kind="overlay", n_columns=None, cmap="RdBu_r", alpha=0.7
    ):
        """Plot images and maps.

        Parameters
        ----------
        ax : matplotlib Axes, array-like of Axes or None, default=None
            Axes to plot on: one, which is divided if there are several pictures, or one
            for each picture. None creates a new figure.
        kind : {"image", "map", "overlay"} or sequence of these, default="overlay"
            What to draw of each image, side by side.
        n_columns : int or None, default=None
            Number of images in a row. None means as many as about 6 pictures.
        cmap : str or matplotlib Colormap, default="RdBu_r"
            Colors of the maps, from the most negative to the most positive value.
        alpha : float, default=0.7
            Opacity of the map's largest absolute value in an overlay. Smaller values
            are proportionally more transparent.

        Returns
        -------
        display : ActivationMapDisplay
            With its axes and artists.

        Raises
        ------
        ImportError
            If matplotlib is not installed (extra ``[plot]``).
        """
        kinds = check_several("kind", kind, _KINDS)
        check_count("n_columns", n_columns, may_be_none=True)
        n_columns = n_columns or max(1, 6 // len(kinds))
        shape = (1, len(kinds))
        cells = set_axes_cells(self, ax, len(self.images), n_columns, shape)
        self.images_ = []
        for i, axes in enumerate(cells):
            for one, cell in zip(kinds, axes, strict=True):
                self._draw(cell, i, one, cmap, alpha)
            if self.titles is not None:
                set_title(axes[len(axes) // 2], self.titles[i], len(axes))
        return self

    def _draw(self, ax, i, kind, cmap, alpha):
        image = np.asarray(self.images[i])
        if kind != "map":
            # Gray, because the colors of a photograph hide those of the map.
            below = image if kind == "image" else _gray(image)
            self.images_.append(show_picture(ax, below))
        values = _enlarged(self.maps[i], image.shape[:2])
        if kind == "image" or not np.isfinite(values).any():
            ax.set(xticks=[], yticks=[])
            return
        size = np.nanmax(np.abs(values)) or 1
        limits = {"cmap": cmap, "vmin": -size, "vmax": size}
        opacity = alpha * np.abs(values) / size if kind == "overlay" else None
        self.images_.append(show_picture(ax, values, alpha=opacity, **limits))


def _gray(image):
    """Return the luminance of an image, rather light, in [0, 1]."""
    values = image / 255 if image.dtype == np.uint8 else image
    if values.ndim == 3 and values.shape[2] >= 3:
        values = values[:, :, :3] @ np.array([0.299, 0.587, 0.114])
    return 0.25 + 0.75 * values


@public_function
def _enlarged(values, shape):
    """Return a map at the size of an image, with bilinear interpolation."""
    tensor = torch.as_tensor(np.asarray(values, np.float32))[None, None]
    enlarged = torch.nn.functional.interpolate(tensor, shape, mode="bilinear")
    return enlarged[0, 0].numpy()
