"""EmbeddingDisplay: images as points in the plane, similar ones near each other."""

import numpy as np
from sklearn.base import is_regressor
from sklearn.pipeline import Pipeline
from sklearn.utils import check_consistent_length

from .._utils._columns import check_table
from .._utils._parameter_errors import choice_error, look_up
from .._utils._shown import shown
from ..inspection import check_targets, embedding
from ._axes import class_colors, import_pyplot, set_axes
from ._pictures import legend_beside
from ._thumbnails import load_thumbnails

_THUMBNAIL = 64  # pixels
# The least distance of two thumbnails, of the side of the axes. Others are dots.
_DISTANCE = 0.07
_LONG, _FRAME = 26, 5  # points: of a thumbnail, and of its frame
_COLORS = {"correct": "tab:blue", "wrong": "tab:red"}  # of predictions
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
        is_regression = is_regressor(estimator)
        values, name = _values_of(features, y, y_pred, color_by, is_regression)
        images = images if show_images else None
        display = cls._mapped(
            features, values, name, images, method, random_state, estimator
        )
        return display.plot(ax=ax)

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
        values, name = _values_of(features, y, y_pred, color_by, is_regression)
        display = cls._mapped(features, values, name, images, method, random_state)
        return display.plot(ax=ax)

    @classmethod
    def _mapped(
        cls, features, values, name, images, method, random_state, estimator=None
    ):
        features = check_table(features, "features", ensure_all_finite="allow-nan")
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
        return cls(
            points=points, values=values, values_name=name, thumbnails=thumbnails
        )

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
        of_label = class_colors(self, len(labels), cmap)
        if set(labels.tolist()) <= _COLORS.keys():
            colors = import_pyplot(self).matplotlib.colors
            of_label = colors.to_rgba_array([_COLORS[one] for one in labels])
        for i, label in enumerate(labels):
            mine = points[numbers == i]
            drawn = ax.scatter(*mine.T, color=of_label[i], label=str(label), **style)
            self.scatter_.append(drawn)
        # The points leave no space inside.
        title = self.values_name
        legend_beside(ax, self.scatter_, labels, title=title, markerscale=2)
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


def _values_of(features, y, y_pred, color_by, is_regression):
    """Return what the colors show, and its name."""
    if y is None:
        return None, None
    check_consistent_length(features, y, y_pred)
    values = check_targets(y, "y", "EmbeddingDisplay", one_column=True)
    if color_by == "class":
        return values, None
    if is_regression:
        return np.abs(values - np.asarray(y_pred)), "absolute error"
    return np.where(values == np.asarray(y_pred), "correct", "wrong"), "prediction"


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
