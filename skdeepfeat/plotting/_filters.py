"""FilterDisplay: the filters with which a network looks at pixels."""

import math

import numpy as np

from .._utils._parameter_errors import check_count, look_up
from ..inspection import first_filters
from ._axes import set_axes
from ._pictures import mosaic, show_picture


class FilterDisplay:
    """Visualization of the filters of the first convolution, in color.

    It is recommended to use `from_estimator` to create one. All parameters are stored
    as attributes.

    Parameters
    ----------
    filters : ndarray of float, shape (n_filters, height, width, 3)
        As `skdeepfeat.inspection.first_filters` returns them.
    name : str or None, default=None
        The title.

    Attributes
    ----------
    image_ : matplotlib AxesImage
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Examples
    --------
    >>> from skdeepfeat import PretrainedFeatureExtractor
    >>> from skdeepfeat.plotting import FilterDisplay
    >>> FilterDisplay.from_estimator(PretrainedFeatureExtractor())
    <...>
    """

    def __init__(self, *, filters, name=None):
        self.filters = filters
        self.name = name

    @classmethod
    def from_estimator(
        cls, estimator, *, scale="each", name=None, n_columns=None, ax=None
    ):
        """Plot the filters of the network of an estimator.

        Parameters
        ----------
        estimator : estimator
            As for `skdeepfeat.inspection.first_filters`.
        name : str or None, default=None
            The title.
        scale, n_columns, ax :
            As for `plot`.

        Returns
        -------
        display : FilterDisplay
        """
        display = cls(filters=first_filters(estimator), name=name)
        return display.plot(ax=ax, scale=scale, n_columns=n_columns)

    def plot(self, ax=None, *, scale="each", n_columns=None):
        """Plot the filters side by side.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Axes to plot on. None creates a new figure.
        scale : {"each", "all"}, default="each"
            Whether each filter is scaled to the range of colors separately, or all
            filters by the same factor. With ``"all"``, gray is a weight of 0.
        n_columns : int or None, default=None
            Number of filters in a row. None makes the picture about a square.

        Returns
        -------
        display : FilterDisplay
            With its axes and artists.

        Raises
        ------
        ImportError
            If matplotlib is not installed (extra ``[plot]``).
        """
        as_colors = look_up(_SCALES, scale, "scale")
        check_count("n_columns", n_columns, may_be_none=True)
        ax = set_axes(self, ax)
        n_columns = n_columns or math.ceil(math.sqrt(len(self.filters)))
        picture = mosaic(as_colors(self.filters), n_columns)
        self.image_ = show_picture(ax, picture, self.name, interpolation="nearest")
        ax.set_axis_off()
        return self


def _scale_all(filters):
    return 0.5 + filters / (2 * (np.abs(filters).max() or 1))


def _scale_each(filters):
    low = filters.min(axis=(1, 2, 3), keepdims=True)
    spread = filters.max(axis=(1, 2, 3), keepdims=True) - low
    return (filters - low) / np.where(spread == 0, 1, spread)


# Functions that return filters as floats in [0, 1].
_SCALES = {"each": _scale_each, "all": _scale_all}
