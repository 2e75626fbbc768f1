"""DeconvnetDisplay: the pattern in each image that excites a unit."""

from .._utils._parameter_errors import check_count
from ..inspection import project_images
from ._axes import set_axes_cells
from ._pictures import pattern, show_picture


class DeconvnetDisplay:
    """Visualization of the patterns that excite one unit of a network.

    Below each image is the signal that a deconvnet sends from the unit to the pixels.
    It is gray where it is 0.

    It is recommended to use `from_estimator` to create one. All parameters are stored
    as attributes.

    Parameters
    ----------
    images : ndarray of uint8, shape (n_images, height, width, 3)
        What the network sees.
    signals : ndarray of float, shape (n_images, height, width, 3)
        As `skdeepfeat.inspection.deconvnet` returns them. NaN is not drawn.
    name : str or None, default=None
        The unit, for the title.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (2 * n_rows, n_columns)
    figure_ : matplotlib Figure
    images_ : list of matplotlib AxesImage

    Examples
    --------
    >>> import numpy as np
    >>> from skdeepfeat import PretrainedFeatureExtractor
    >>> from skdeepfeat.plotting import DeconvnetDisplay
    >>> X = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    >>> extractor = PretrainedFeatureExtractor(image_size=64)
    >>> DeconvnetDisplay.from_estimator(extractor, X, layer=2, feature=17)
    <...>
    """

    def __init__(self, *, images, signals, name=None):
        self.images = images
        self.signals = signals
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        layer,
        feature,
        *,
        guided=False,
        name=None,
        n_columns=6,
        ax=None,
    ):
        """Compute the signals and plot them.

        Parameters
        ----------
        estimator, X, layer, feature, guided :
            As for `skdeepfeat.inspection.deconvnet`.
        name : str or None, default=None
            The title. None is the layer and the number of the feature.
        n_columns, ax :
            As for `plot`.

        Returns
        -------
        display : DeconvnetDisplay
        """
        check_count("n_columns", n_columns)
        images, signals = project_images(estimator, X, layer, feature, guided=guided)
        name = f"layer {layer}, feature {feature}" if name is None else name
        display = cls(images=images, signals=signals, name=name)
        return display.plot(ax=ax, n_columns=n_columns)

    def plot(self, ax=None, *, n_columns=6):
        """Plot each image, and the signal below it.

        Parameters
        ----------
        ax : matplotlib Axes, array-like of Axes or None, default=None
            Axes to plot on: one, which is divided, or two for each image. None creates
            a new figure.
        n_columns : int, default=6
            Number of images in a row.

        Returns
        -------
        display : DeconvnetDisplay
            With its axes and artists.

        Raises
        ------
        ImportError
            If matplotlib is not installed (extra ``[plot]``).
        """
        check_count("n_columns", n_columns)
        cells = set_axes_cells(self, ax, len(self.images), n_columns, (2, 1))
        self.images_ = []
        for cell, image, signal in zip(cells, self.images, self.signals, strict=True):
            self.images_.append(show_picture(cell[0], image))
            self.images_.append(show_picture(cell[1], pattern(signal)))
        if self.name is not None and ax is None:
            self.figure_.suptitle(self.name)
        elif self.name is not None:
            self.axes_[0, 0].set_title(self.name, loc="left")
        return self
