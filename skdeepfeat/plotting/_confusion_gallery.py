"""ConfusionGalleryDisplay: a confusion matrix with an image in each cell."""

import numpy as np

from ..inspection import confusion_examples, predict_graded
from ._axes import TURNED, set_axes
from ._pictures import shortened, show_in_cell
from ._thumbnails import load_thumbnails

_THUMBNAIL = 128  # pixels
_CELL = 0.95  # inches
_LARGEST = 20.0  # inches
# Characters of a label; inches of a character, and of all else around the matrix.
_LABEL, _CHARACTER, _MARGIN = 30, 0.085, 0.8


class ConfusionGalleryDisplay:
    """Visualization of a confusion matrix with an example image in each cell.

    It is recommended to use `from_estimator` or `from_predictions` to create one. All
    parameters are stored as attributes.

    Parameters
    ----------
    examples : DataFrame
        As `skdeepfeat.inspection.confusion_examples` returns it.
    pictures : list of ndarray of uint8, shape (height, width, 3), or None
        The example of each row of `examples`, None if it cannot be read.
    display_labels : array-like, default=None
        The labels in the order of the rows. Those in `examples` that it lacks follow,
        sorted.

    Attributes
    ----------
    matrix_ : ndarray of int, shape (n_labels, n_labels)
        The confusion matrix: true labels are rows, predicted ones are columns.
    images_ : ndarray of object, shape (n_labels, n_labels)
        The matplotlib AxesImage of each cell, None if it is empty.
    counts_ : ndarray of object, shape (n_labels, n_labels)
        The matplotlib Text of each cell, None if it is empty.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    See Also
    --------
    skdeepfeat.inspection.confusion_examples : The numbers without the pictures.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from skdeepfeat import PretrainedFeatureExtractor
    >>> from skdeepfeat.plotting import ConfusionGalleryDisplay
    >>> X, y = load_digits().images[:100] / 16, load_digits().target[:100]
    >>> pipe = make_pipeline(
    ...     PretrainedFeatureExtractor(image_size=32), LogisticRegression(max_iter=1000)
    ... )
    >>> ConfusionGalleryDisplay.from_estimator(pipe, X, y, cv=3)
    <...>
    """

    def __init__(self, *, examples, pictures, display_labels=None):
        self.examples = examples
        self.pictures = pictures
        self.display_labels = display_labels

    @classmethod
    def from_estimator(
        cls, estimator, X, y, *, cv=None, groups=None, images=None, ax=None
    ):
        """Predict images and show the confusion matrix.

        Parameters
        ----------
        estimator : classifier
            Fitted, unless `cv` is given.
        X : array-like of images, shape (n_samples,)
            As for the estimator. With ``cv=None``, pass images that it was not fitted
            to.
        y : array-like, shape (n_samples,)
            Labels.
        cv : int, cross-validation generator, iterable or None, default=None
            If not None, each image is predicted by a clone that was fitted to the other
            folds.
        groups : array-like, shape (n_samples,), or None, default=None
            The groups for `cv`.
        images : array-like of images or None, default=None
            What to show. None means X.
        ax : matplotlib Axes or None, default=None
            Axes to plot on. None creates a new figure.

        Returns
        -------
        display : ConfusionGalleryDisplay
        """
        y_pred, classes = predict_graded(estimator, X, y, cv, groups)
        images = X if images is None else images
        return cls._of(y, y_pred, images, classes, estimator).plot(ax=ax)

    @classmethod
    def from_predictions(cls, y_true, y_pred, images, *, classes=None, ax=None):
        """Show the confusion matrix of given predictions.

        Parameters
        ----------
        y_true, y_pred, classes
            As for `skdeepfeat.inspection.confusion_examples`.
        images : array-like of images, shape (n_samples,)
            In any form that `PretrainedFeatureExtractor` takes, except flat rows.
        ax : matplotlib Axes or None, default=None
            Axes to plot on. None creates a new figure.

        Returns
        -------
        display : ConfusionGalleryDisplay
        """
        return cls._of(y_true, y_pred, images, classes).plot(ax=ax)

    @classmethod
    def _of(cls, y_true, y_pred, images, classes, estimator=None):
        examples = confusion_examples(y_true, y_pred, classes=classes)
        index = examples["index"]
        pictures, _ = load_thumbnails(images, len(y_pred), index, _THUMBNAIL, estimator)
        return cls(examples=examples, pictures=pictures, display_labels=classes)

    def plot(self, ax=None):
        """Draw the matrix: an example in each cell, with the number of such images.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Axes to plot on. None creates a new figure.

        Returns
        -------
        display : ConfusionGalleryDisplay
            With its axes and artists.

        Raises
        ------
        ImportError
            If matplotlib is not installed (extra ``[plot]``).
        """
        labels = [] if self.display_labels is None else list(self.display_labels)
        found = np.unique(self.examples[["true", "predicted"]].to_numpy().ravel())
        labels += [label for label in found if label not in labels]
        n = len(labels)
        texts = [shortened(label, _LABEL) for label in labels]
        longest = max(map(len, texts))
        side = _MARGIN + _CELL * n + _CHARACTER * longest
        side = min(_LARGEST, side)
        ax = set_axes(self, ax, figsize=(side, side))
        self.matrix_ = np.zeros((n, n), dtype=np.int64)
        self.images_ = np.full((n, n), None, dtype=object)
        self.counts_ = np.full((n, n), None, dtype=object)
        place = {label: i for i, label in enumerate(labels)}
        box = {"boxstyle": "round,pad=0.15", "color": "white", "alpha": 0.85}
        style = {"ha": "right", "va": "bottom", "fontsize": "small", "bbox": box}
        for picture, (_, row) in zip(
            self.pictures, self.examples.iterrows(), strict=True
        ):
            i, j = place[row["true"]], place[row["predicted"]]
            self.matrix_[i, j] = row["count"]
            if picture is not None:
                self.images_[i, j] = show_in_cell(
                    ax, picture, j, i, 0.92, y_points_down=True
                )
            count = ax.text(j + 0.44, i + 0.44, str(row["count"]), **style)
            self.counts_[i, j] = count
        ax.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5), aspect="equal")
        ax.set(xlabel="Predicted label", ylabel="True label")
        turned = TURNED if longest > 8 else {}
        ax.set_xticks(range(n), texts, parse_math=False, **turned)
        ax.set_yticks(range(n), texts, parse_math=False)
        ax.tick_params(length=0)
        for edge in np.arange(-0.5, n + 0.5):
            ax.axhline(edge, color="0.8", linewidth=0.8)
            ax.axvline(edge, color="0.8", linewidth=0.8)
        from matplotlib.patches import Rectangle

        for i in range(n):  # the correct ones
            frame = {"fill": False, "edgecolor": "tab:green", "linewidth": 2}
            ax.add_patch(Rectangle((i - 0.48, i - 0.48), 0.96, 0.96, **frame))
        return self
