"""TopPatchesDisplay: what the units of a layer respond to."""

import math

import numpy as np

from .._utils._parameter_errors import check_count, look_up
from ..inspection import find_top_patches, project_patches
from ._axes import set_axes_cells
from ._pictures import mosaic, pattern, show_picture

# The values of `guided`.
_PROJECTIONS = {"deconvnet": False, "guided": True, None: None}


class TopPatchesDisplay:
    """Visualization of the patches that excite units of a network most.

    For each unit there are two pictures, as in the figure of Zeiler and Fergus [1]_:
    the patches of images, and next to them the deconvnet projections of the same
    patches.

    It is recommended to use `from_estimator` to create one. All parameters are stored
    as attributes.

    Parameters
    ----------
    tops : list of TopPatches
        One for each unit.
    signals : list of (list of ndarray) or None, default=None
        For each unit the signals of its patches, each of shape (patch_height,
        patch_width, 3). None if there are none.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (n_rows, n_columns)
    figure_ : matplotlib Figure
    images_ : list of matplotlib AxesImage
        For each unit the patches, and the signals if there are any.

    References
    ----------
    .. [1] Zeiler and Fergus, "Visualizing and understanding convolutional networks",
       ECCV 2014.

    Examples
    --------
    >>> import numpy as np
    >>> from skdeepfeat import PretrainedFeatureExtractor
    >>> from skdeepfeat.plotting import TopPatchesDisplay
    >>> X = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
    >>> extractor = PretrainedFeatureExtractor(image_size=64)
    >>> TopPatchesDisplay.from_estimator(extractor, X, "blocks.1", [0, 3])
    <...>
    """

    def __init__(self, *, tops, signals=None):
        self.tops = tops
        self.signals = signals

    @classmethod
    def from_estimator(
        cls,
        extractor,
        X,
        layer,
        features,
        *,
        k=9,
        projection="deconvnet",
        n_columns=2,
        ax=None,
    ):
        """Find the patches of some units and plot them.

        Parameters
        ----------
        extractor, X, layer, k :
            As for `skdeepfeat.inspection.top_patches`.
        features : int or sequence of int
            The channels of the units.
        projection : {"deconvnet", "guided"} or None, default="deconvnet"
            What to draw next to the patches. ``"guided"`` is ``guided=True`` of
            `skdeepfeat.inspection.deconvnet`. None draws the patches only, for networks
            with activations other than ReLU.
        n_columns, ax :
            As for `plot`.

        Returns
        -------
        display : TopPatchesDisplay
        """
        guided = look_up(_PROJECTIONS, projection, "projection")
        check_count("n_columns", n_columns)
        features = np.atleast_1d(features).tolist()
        tops = find_top_patches(extractor, X, layer, features, k)
        signals = None
        if guided is not None:
            signals = [project_patches(extractor, top, guided) for top in tops]
        display = cls(tops=tops, signals=signals)
        return display.plot(ax=ax, n_columns=n_columns)

    def plot(self, ax=None, *, n_columns=2):
        """Plot the patches of each unit, and the signals next to them.

        Parameters
        ----------
        ax : matplotlib Axes, array-like of Axes or None, default=None
            Axes to plot on: one, which is divided if there are several pictures, or one
            for each picture. None creates a new figure.
        n_columns : int, default=2
            Number of units in a row.

        Returns
        -------
        display : TopPatchesDisplay
            With its axes and artists.

        Raises
        ------
        ImportError
            If matplotlib is not installed (extra ``[plot]``).
        """
        check_count("n_columns", n_columns)
        shape = (1, 1 if self.signals is None else 2)
        units = set_axes_cells(self, ax, len(self.tops), n_columns, shape)
        self.images_ = []
        for i, (top, cells) in enumerate(zip(self.tops, units, strict=True)):
            n_wide = math.ceil(math.sqrt(len(top.indices)))
            title = f"{top.layer}, feature {top.feature}"
            picture = mosaic(top.patches, n_wide)
            self.images_.append(show_picture(cells[0], picture, title))
            if self.signals is not None:
                picture = mosaic([pattern(one) for one in self.signals[i]], n_wide)
                self.images_.append(show_picture(cells[1], picture))
            for cell in cells:
                cell.set_axis_off()
        return self
