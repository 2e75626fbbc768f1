"""EmbeddingDisplay: images as points in the plane, similar ones near each other."""

import numpy as np
from sklearn.base import is_regressor
from sklearn.pipeline import Pipeline
from sklearn.utils import check_array, check_consistent_length

from .._utils._parameter_errors import choice_error, look_up
from .._utils._shown import shown
from .._utils._tensors import without_tensors
from ..inspection import check_targets, embedding
from ._axes import import_pyplot, set_axes
from ._pictures import plain_legend, shortened
from ._thumbnails import load_thumbnails

_THUMBNAIL = 64  # pixels
# The least distance of two thumbnails, of the side of the axes. Others are dots.
_DISTANCE = 0.07
_LONG, _FRAME = 26, 5  # points: of a thumbnail, and of its frame
_MOST_CLASSES = 20  # up to which there is a legend
_LABEL = 30  # characters in the legend
_CORRECT = ("wrong", "correct")
_COLORS_BY = dict.fromkeys(("class", "error"))


class EmbeddingDisplay:
    """Visualization of features in the plane, with some images as markers.

    It is recommended to use `from_estimator` or `from_features` to create one. All
    parameters are stored as attributes.

    Parameters
    ----------
    points : ndarray of float, shape (n_samples, 2)
        As `skdeepfeat.inspection.embedding` returns them.
    values : array-like, shape (n_samples,), or None, default=None
        The values that the colors show: labels or numbers.
    values_name : str or None, default=None
        The title of the legend or the label of the color bar.
    thumbnails : dict of int to ndarray of uint8, shape (height, width, 3), or None
        Pictures of some of the samples, by index.

    Attributes
    ----------
    scatter_ : list of matplotlib PathCollection
        The dots: one for each label, or one for all.
    thumbnails_ : dict of int to matplotlib AnnotationBbox
        The pictures that are drawn, by index.
    colorbar_ : matplotlib Colorbar or None
        None for labels.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    See Also
    --------
    skdeepfeat.inspection.embedding : The points without the plot.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdeepfeat import PretrainedFeatureExtractor
    >>> from skdeepfeat.plotting import EmbeddingDisplay
    >>> X, y = load_digits().images[:100] / 16, load_digits().target[:100]
    >>> extractor = PretrainedFeatureExtractor(image_size=32)
    >>> EmbeddingDisplay.from_estimator(extractor, X, y, method="pca")
    <...>
    """

    def __init__(self, *, points, values=None, values_name=None, thumbnails=None):
        self.points = points
        self.values = values
        self.values_name = values_name
        self.thumbnails = thumbnails

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y=None,
        *,
        color_by="class",
        method="tsne",
        images=None,
        show_images=True,
        random_state=0,
        ax=None,
    ):
        """Map the features of an estimator to the plane and plot them.

        Parameters
        ----------
        estimator : transformer or Pipeline
            Its features are mapped: those of an extractor, of the steps of a fitted
            Pipeline before its last one, or of a fitted FineTune estimator.
        X : array-like of images, shape (n_samples,)
            As for the estimator.
        y : array-like, shape (n_samples,), or None, default=None
            Labels or numbers.
        color_by : {"class", "error"}, default="class"
            What the colors show: ``"class"`` shows `y`, and ``"error"`` whether the
            estimator predicts `y` correctly, or the absolute error of a regressor.
        method, random_state
            As for `skdeepfeat.inspection.embedding`.
        images : array-like of images or None, default=None
            What to show. None means X.
        show_images : bool, default=True
            Whether to draw some of the points as images. Points whose images would
            overlap are dots.
        ax : matplotlib Axes or None, default=None
            Axes to plot on. None creates a new figure.

        Returns
        -------
        display : EmbeddingDisplay
            Images that cannot be read are left out with ``on_error="nan"``.
        """
        _check_color_by(
            color_by,
            y is not None and hasattr(estimator, "predict"),
            "without 'y', or for an estimator that cannot predict",
        )
        features = _features_of(estimator, X)
        y_pred = estimator.predict(X) if color_by == "error" else None
        images = X if images is None else images
        return cls._from_arrays(
            features,
            images if show_images else None,
            y,
            y_pred,
            is_regressor(estimator),
            color_by,
            method,
            random_state,
            ax,
            estimator,
        )

    @classmethod
    def from_features(
        cls,
        features,
        images=None,
        y=None,
        y_pred=None,
        *,
        color_by="class",
        method="tsne",
        random_state=0,
        ax=None,
    ):
        """Map given features to the plane and plot them.

        Parameters
        ----------
        features : array-like, shape (n_samples, n_features)
            One row per sample.
        images : array-like of images, shape (n_samples,), or None, default=None
            In any form that `PretrainedFeatureExtractor` takes, except flat rows. None
            plots dots only.
        y : array-like, shape (n_samples,), or None, default=None
            Labels or numbers.
        y_pred : array-like, shape (n_samples,), or None, default=None
            Predictions, for ``color_by="error"``.
        color_by, method, random_state, ax
            As for `from_estimator`.

        Returns
        -------
        display : EmbeddingDisplay
        """
        _check_color_by(
            color_by, y is not None and y_pred is not None, "without 'y' and 'y_pred'"
        )
        is_regression = y is not None and _are_numbers(y)
        return cls._from_arrays(
            features,
            images,
            y,
            y_pred,
            is_regression,
            color_by,
            method,
            random_state,
            ax,
            None,
        )

    @classmethod
    def _from_arrays(
        cls,
        features,
        images,
        y,
        y_pred,
        is_regression,
        color_by,
        method,
        random_state,
        ax,
        estimator,
    ):
        if y is not None:
            check_consistent_length(features, y, y_pred)
        features = check_array(
            without_tensors(features, "features"),
            ensure_all_finite="allow-nan",
            input_name="features",
        )
        values = None if y is None else check_targets(y, "y", "EmbeddingDisplay")
        if values is not None and values.ndim > 1:
            raise ValueError(
                "The 'y' parameter of EmbeddingDisplay must have one column. Got "
                f"shape {values.shape}."
            )
        name = None
        if color_by == "error":
            name = "absolute error" if is_regression else "prediction"
            if is_regression:
                values = np.abs(values - np.asarray(y_pred))
            else:
                values = np.where(values == np.asarray(y_pred), *_CORRECT[::-1])
        # An image that cannot be read may have a row of NaN.
        known = np.flatnonzero(~np.isnan(features).any(axis=1))
        points = embedding(features[known], method, random_state=random_state)
        values = None if values is None else values[known]
        thumbnails = None
        if images is not None:
            size = np.ptp(points, axis=0)
            chosen = _spread_out(points / np.where(size > 0, size, 1.0), _DISTANCE)
            pictures, _ = load_thumbnails(
                images, len(features), known[chosen], _THUMBNAIL, estimator
            )
            thumbnails = dict(zip(chosen, pictures, strict=True))
        display = cls(
            points=points, values=values, values_name=name, thumbnails=thumbnails
        )
        return display.plot(ax=ax)

    def plot(self, ax=None, *, cmap=None, **kwargs):
        """Plot the points.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Axes to plot on. None creates a new figure.
        cmap : str, Colormap or None, default=None
            None means ``"tab10"`` or ``"tab20"`` for labels and ``"viridis"`` for
            numbers.
        **kwargs : dict
            Passed to matplotlib's `scatter`.

        Returns
        -------
        display : EmbeddingDisplay
            With its axes and artists.

        Raises
        ------
        ImportError
            If matplotlib is not installed (extra ``[plot]``).
        """
        is_own = ax is None
        ax = set_axes(self, ax, figsize=(8, 7))
        self.scatter_, self.colorbar_ = [], None
        points = np.asarray(self.points)
        style = {"s": 14} | kwargs
        if self.values is None:
            self.scatter_.append(ax.scatter(*points.T, **style))
            colors = np.tile(self.scatter_[0].get_facecolor(), (len(points), 1))
        elif _are_numbers(self.values):
            drawn = ax.scatter(*points.T, c=self.values, cmap=cmap, **style)
            self.scatter_.append(drawn)
            self.colorbar_ = self.figure_.colorbar(
                drawn, ax=ax, label=self.values_name or ""
            )
            colors = drawn.to_rgba(np.asarray(self.values, dtype=float))
        else:
            colors = self._draw_labels(ax, points, cmap, style)
        ax.set(xticks=[], yticks=[])
        if self.thumbnails:
            ax.margins(0.08)  # thumbnails at the edge stay inside
        if is_own:  # the legend takes part of the width
            self.figure_.draw_without_rendering()
        self._draw_thumbnails(ax, points, colors)
        return self

    def _draw_labels(self, ax, points, cmap, style):
        """Draw a set of dots for each label; return the color of each point."""
        labels, numbers = np.unique(self.values, return_inverse=True)
        if cmap is None:
            cmap = "tab10" if len(labels) <= 10 else "tab20"
        plt = import_pyplot(self)
        palette = plt.get_cmap(cmap)
        if set(labels.tolist()) <= set(_CORRECT):
            palette = plt.matplotlib.colors.ListedColormap(
                ["tab:blue" if one == "correct" else "tab:red" for one in labels]
            )
        of_label = palette(np.arange(len(labels)) % palette.N)
        for i, label in enumerate(labels):
            mine = points[numbers == i]
            drawn = ax.scatter(*mine.T, color=of_label[i], label=str(label), **style)
            self.scatter_.append(drawn)
        if len(labels) <= _MOST_CLASSES:
            # Beside the axes: the points leave no space inside.
            plain_legend(
                ax,
                self.scatter_,
                [shortened(label, _LABEL) for label in labels],
                loc="upper left",
                bbox_to_anchor=(1.01, 1.0),
                borderaxespad=0.0,
                title=self.values_name,
                markerscale=2,
                frameon=False,
            )
        return of_label[numbers]

    def _draw_thumbnails(self, ax, points, colors):
        from matplotlib.offsetbox import AnnotationBbox, OffsetImage

        self.thumbnails_ = {}
        pictures = self.thumbnails or {}
        shown = [i for i, picture in pictures.items() if picture is not None]
        # Axes of the user may be small.
        ax.autoscale_view()
        places = ax.transData.transform(points[shown]) * 72 / self.figure_.dpi
        for i in np.array(shown, int)[_spread_out(places, _LONG + _FRAME)].tolist():
            picture = pictures[i]
            zoom = _LONG / max(picture.shape[:2])
            box = AnnotationBbox(
                OffsetImage(picture, zoom=zoom),
                points[i],
                pad=0.12,
                bboxprops={"edgecolor": colors[i], "linewidth": 1.8},
            )
            self.thumbnails_[i] = ax.add_artist(box)


def _check_color_by(color_by, has_predictions, without):
    look_up(_COLORS_BY, color_by, "color_by")
    if color_by == "error" and not has_predictions:
        raise choice_error("color_by", f"'class' {without}", color_by)


def _features_of(estimator, X):
    if isinstance(estimator, Pipeline) and len(estimator.steps) > 1:
        last = estimator.steps[-1][1]
        if hasattr(last, "predict"):
            return estimator[:-1].transform(X)
    if not hasattr(estimator, "transform"):
        raise TypeError(
            "The 'estimator' parameter of EmbeddingDisplay must be an extractor, a "
            f"Pipeline or a FineTune estimator. Got {shown(estimator)} instead."
        )
    return estimator.transform(X)


def _are_numbers(values):
    values = np.asarray(values)
    return values.dtype.kind == "f" and bool((values % 1 != 0).any())


def _spread_out(points, distance):
    """Return indices of points that keep some distance from each other."""
    chosen = []
    for i, point in enumerate(points):
        away = np.abs(points[chosen] - point).max(axis=1) if chosen else [distance]
        if min(away) >= distance:
            chosen.append(i)
    return chosen
