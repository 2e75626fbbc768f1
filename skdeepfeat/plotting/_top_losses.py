"""TopLossesDisplay: the images with the worst predictions."""

import math
import pathlib

from .._utils._parameter_errors import check_count
from ..inspection import predict_graded, top_losses
from ._axes import set_axes
from ._pictures import shortened, show_in_cell
from ._thumbnails import load_thumbnails

_THUMBNAIL = 160  # pixels
_CELL = 2.0  # inches
_CAPTION = 0.36  # of the height of a picture
_LINE = 24  # characters
_FONT_SIZE = 8.3  # points, for a picture of that size


class TopLossesDisplay:
    """Visualization of the images with the worst predictions, as a gallery.

    It is recommended to use `from_estimator` or `from_predictions` to create one. All
    parameters are stored as attributes.

    Parameters
    ----------
    losses : DataFrame
        As `skdeepfeat.inspection.top_losses` returns it, one row for each picture.
    pictures : list of ndarray of uint8, shape (height, width, 3), or None
        The images, None for one that cannot be read.

    Attributes
    ----------
    images_ : list of matplotlib AxesImage or None
        One for each picture.
    captions_ : list of matplotlib Text
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    See Also
    --------
    skdeepfeat.inspection.top_losses : The numbers without the pictures.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from skdeepfeat import PretrainedFeatureExtractor
    >>> from skdeepfeat.plotting import TopLossesDisplay
    >>> X, y = load_digits().images[:100] / 16, load_digits().target[:100]
    >>> pipe = make_pipeline(
    ...     PretrainedFeatureExtractor(image_size=32), LogisticRegression(max_iter=1000)
    ... )
    >>> TopLossesDisplay.from_estimator(pipe, X, y, cv=3, k=6)
    <...>
    """

    def __init__(self, *, losses, pictures):
        self.losses = losses
        self.pictures = pictures

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y,
        *,
        cv=None,
        groups=None,
        images=None,
        k=12,
        n_columns=None,
        ax=None,
    ):
        """Predict images and show the worst predictions.

        Parameters
        ----------
        estimator : classifier or regressor
            Fitted, unless `cv` is given. For a classifier without probabilities, the
            values of its `decision_function` are used as logits.
        X : array-like of images, shape (n_samples,)
            As for the estimator. With ``cv=None``, pass images that it was not fitted
            to.
        y : array-like, shape (n_samples,)
            Labels or numbers.
        cv : int, cross-validation generator, iterable or None, default=None
            To look for wrong labels in the training images, set a number of folds. Each
            image is then predicted by a clone of the estimator that was fitted to the
            other folds.
        groups : array-like, shape (n_samples,), or None, default=None
            The groups for `cv`.
        images : array-like of images or None, default=None
            What to show. None means X.
        k, n_columns, ax
            As for `from_predictions`.

        Returns
        -------
        display : TopLossesDisplay
        """
        check_count("k", k, may_be_none=True)
        check_count("n_columns", n_columns, may_be_none=True)
        y_pred, classes = predict_graded(estimator, X, y, cv, groups)
        images = X if images is None else images
        display = cls._of(y, y_pred, images, classes, k, estimator)
        return display.plot(ax=ax, n_columns=n_columns)

    @classmethod
    def from_predictions(
        cls, y_true, y_pred, images, *, classes=None, k=12, n_columns=None, ax=None
    ):
        """Show the worst of given predictions.

        Parameters
        ----------
        y_true, y_pred
            As for `skdeepfeat.inspection.top_losses`.
        images : array-like of images, shape (n_samples,)
            In any form that `PretrainedFeatureExtractor` takes, except flat rows.
        classes : array-like, shape (n_classes,), or None, default=None
            As for `skdeepfeat.inspection.top_losses`.
        k : int or None, default=12
            The number of images to show. None means all.
        n_columns : int or None, default=None
            None chooses it such that few cells are empty.
        ax : matplotlib Axes or None, default=None
            Axes to plot on. None creates a new figure.

        Returns
        -------
        display : TopLossesDisplay
        """
        display = cls._of(y_true, y_pred, images, classes, k)
        return display.plot(ax=ax, n_columns=n_columns)

    @classmethod
    def _of(cls, y_true, y_pred, images, classes, k, estimator=None):
        losses = top_losses(y_true, y_pred, classes=classes, k=k)
        pictures, losses["path"] = load_thumbnails(
            images, len(y_pred), losses["index"], _THUMBNAIL, estimator
        )
        return cls(losses=losses, pictures=pictures)

    def plot(self, ax=None, *, n_columns=None):
        """Show the images with their true and predicted labels, the worst first.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Axes to plot on. None creates a new figure.
        n_columns : int or None, default=None
            None chooses it such that few cells are empty.

        Returns
        -------
        display : TopLossesDisplay
            With its axes and artists.

        Raises
        ------
        ImportError
            If matplotlib is not installed (extra ``[plot]``).
        """
        check_count("n_columns", n_columns, may_be_none=True)
        n = len(self.losses)
        if n_columns is None:
            widths = range(math.ceil(math.sqrt(n)), math.ceil(math.sqrt(2 * n)) + 1)
            n_columns = min(widths, key=lambda width: -n % width)  # fewest empty cells
        n_columns = min(n_columns, n)
        n_rows = math.ceil(n / n_columns)
        height = 1 + _CAPTION
        is_own = ax is None
        ax = set_axes(self, ax, figsize=(_CELL * n_columns, _CELL * height * n_rows))
        self.images_, self.captions_ = [], []
        ax.set(xlim=(0, n_columns), ylim=(-height * n_rows, 0), aspect="equal")
        ax.set_axis_off()
        ax.apply_aspect()
        # In axes of the user, pictures and captions may be smaller.
        inches = ax.get_window_extent().width / self.figure_.dpi / n_columns
        font_size = _FONT_SIZE if is_own else _FONT_SIZE * min(1.0, inches / _CELL)
        style = {"ha": "center", "va": "top", "linespacing": 1.25, "parse_math": False}
        for i, (picture, (_, row)) in enumerate(
            zip(self.pictures, self.losses.iterrows(), strict=True)
        ):
            middle, top = i % n_columns + 0.5, -height * (i // n_columns)
            if picture is None:
                place = {"ha": "center", "va": "center"}
                ax.text(middle, top - 0.5, "cannot be read", **place)
                self.images_.append(None)
            else:  # a margin between pictures
                drawn = show_in_cell(ax, picture, middle, top - 0.5, 0.94)
                self.images_.append(drawn)
            text = _caption(row)
            caption = ax.text(middle, top - 1.02, text, fontsize=font_size, **style)
            self.captions_.append(caption)
        return self


def _caption(row):
    true, predicted = _value(row["true"]), _value(row["predicted"])
    if row["probability"] == row["probability"]:  # not NaN
        predicted = f"{predicted} ({row['probability']:.0%})"
    place = f"image {row['index']}"
    if row["path"] is not None:
        # The end of a path tells images apart: the folder and the name.
        path = pathlib.PurePath(str(row["path"]))
        place = "/".join(path.parts[-2:])
        if len(place) > _LINE:
            place = f"…{place[1 - _LINE :]}"
    return f"true: {true}\nsaid: {predicted}\n{place}"


def _value(value):
    text = f"{value:.4g}" if isinstance(value, float) else value
    return shortened(text, _LINE - 6)
