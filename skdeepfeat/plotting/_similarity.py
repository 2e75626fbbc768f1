"""SimilarityDisplay: how alike layers or networks are, as a heat map."""

import numpy as np

from ..inspection import similarity
from ._axes import TURNED, set_axes

_MOST_VALUES = 14  # layers up to which the values are written into the cells


class SimilarityDisplay:
    """Visualization of the similarity of layers or networks, as a heat map.

    It is recommended to use `from_estimator` or `from_result` to create one. All
    parameters are stored as attributes.

    Parameters
    ----------
    similarity : DataFrame, shape (n_layers, n_layers)
        As `skdeepfeat.inspection.similarity` returns it.

    Attributes
    ----------
    image_ : matplotlib AxesImage
    texts_ : ndarray of matplotlib Text, shape (n_layers, n_layers), or None
        The values. None if there are too many.
    colorbar_ : matplotlib Colorbar
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    See Also
    --------
    skdeepfeat.inspection.similarity : The numbers without the plot.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdeepfeat import PretrainedFeatureExtractor
    >>> from skdeepfeat.plotting import SimilarityDisplay
    >>> extractor = PretrainedFeatureExtractor(image_size=64)
    >>> SimilarityDisplay.from_estimator(extractor, load_digits().images[:50] / 16)
    <...>
    """

    def __init__(self, *, similarity):
        self.similarity = similarity

    @classmethod
    def from_estimator(cls, extractors, X, layers=None, *, ax=None, **kwargs):
        """Compare layers or networks and plot their similarity.

        Parameters
        ----------
        extractors, X, layers
            As for `skdeepfeat.inspection.similarity`.
        ax : matplotlib Axes or None, default=None
            Axes to plot on. None creates a new figure.
        **kwargs : dict
            Passed to matplotlib's `imshow`.

        Returns
        -------
        display : SimilarityDisplay
        """
        return cls.from_result(similarity(extractors, X, layers), ax=ax, **kwargs)

    @classmethod
    def from_result(cls, similarity, *, ax=None, **kwargs):
        """Plot the result of a comparison.

        Parameters
        ----------
        similarity : DataFrame, shape (n_layers, n_layers)
            As `skdeepfeat.inspection.similarity` returns it, or a part of it.
        ax, **kwargs
            As for `from_estimator`.

        Returns
        -------
        display : SimilarityDisplay
        """
        return cls(similarity=similarity).plot(ax=ax, **kwargs)

    def plot(self, ax=None, **kwargs):
        """Plot the heat map.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Axes to plot on. None creates a new figure.
        **kwargs : dict
            Passed to matplotlib's `imshow`.

        Returns
        -------
        display : SimilarityDisplay
            With its axes and artists.

        Raises
        ------
        ImportError
            If matplotlib is not installed (extra ``[plot]``).
        """
        values = self.similarity.to_numpy(dtype=float)
        n_rows, n_columns = values.shape
        size = (max(5.0, 2.5 + 0.55 * n_columns), max(4.0, 1.5 + 0.55 * n_rows))
        ax = set_axes(self, ax, figsize=size)
        style = {"vmin": 0.0, "vmax": 1.0, "cmap": "viridis"}
        self.image_ = ax.imshow(values, **(style | kwargs))
        self.colorbar_ = self.figure_.colorbar(
            self.image_, ax=ax, label="CKA", shrink=0.8
        )
        names = self.similarity
        ax.set_xticks(range(n_columns), names.columns, parse_math=False, **TURNED)
        ax.set_yticks(range(n_rows), names.index, parse_math=False)
        self.texts_ = None
        if max(n_rows, n_columns) <= _MOST_VALUES:
            self.texts_ = np.empty(values.shape, dtype=object)
            style = {"ha": "center", "va": "center", "fontsize": "small"}
            for (i, j), value in np.ndenumerate(values):
                red, green, blue, _ = self.image_.cmap(self.image_.norm(value))
                is_dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
                text = "" if np.isnan(value) else f"{value:.2f}"
                color = "white" if is_dark else "black"
                self.texts_[i, j] = ax.text(j, i, text, color=color, **style)
        return self
