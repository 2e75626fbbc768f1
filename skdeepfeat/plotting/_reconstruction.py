"""ReconstructionDisplay: images, damaged and restored."""

from .._utils._parameter_errors import check_count
from ._axes import set_axes_grid
from ._pictures import show_picture


class ReconstructionDisplay:
    """Visualization of the images that an autoencoder restores.

    It is recommended to use `from_estimator` to create one. All parameters are stored
    as attributes.

    Parameters
    ----------
    images : ndarray of uint8, shape (n_images, height, width, 3)
        The images themselves.
    restored : ndarray of uint8, shape (n_images, height, width, 3)
        The same images, restored.
    corrupted : ndarray of uint8, shape (n_images, height, width, 3), or None, \
default=None
        The damaged images that were restored, if not the images themselves.

    Attributes
    ----------
    images_ : list of list of matplotlib AxesImage
        By row: original, corrupted (if it is shown) and restored.
    axes_ : ndarray of matplotlib Axes, shape (n_rows, n_images)
    figure_ : matplotlib Figure

    Examples
    --------
    >>> import numpy as np
    >>> from skdeepfeat import ConvAutoencoder
    >>> from skdeepfeat.plotting import ReconstructionDisplay
    >>> X = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    >>> autoencoder = ConvAutoencoder(4, image_size=16, max_epochs=1).fit(X)
    >>> ReconstructionDisplay.from_estimator(autoencoder, X[:4])
    <...>
    """

    def __init__(self, *, images, restored, corrupted=None):
        self.images = images
        self.restored = restored
        self.corrupted = corrupted

    @classmethod
    def from_estimator(cls, estimator, X, *, corrupted=None, k=8, ax=None):
        """Restore images and show them.

        Parameters
        ----------
        estimator : ConvAutoencoder
            Fitted.
        X : array-like of images, shape (n_samples,)
            The images.
        corrupted : array-like of images, shape (n_samples,), or None, default=None
            Damaged forms of the same images, which are restored instead of X.
        k : int, default=8
            Number of images, the first of X.
        ax : matplotlib Axes, array-like of Axes or None, default=None
            As for `plot`.

        Returns
        -------
        display : ReconstructionDisplay

        Raises
        ------
        TypeError
            If `estimator` is not a ConvAutoencoder.
        ValueError
            If X and `corrupted` differ in length, or `k` is not positive.
        """
        if not hasattr(estimator, "resized"):
            raise TypeError(
                "The 'estimator' parameter of ReconstructionDisplay must be a fitted "
                f"ConvAutoencoder. Got {type(estimator).__name__} instead. For rows of "
                "pixels, reshape them and the restored ones to images, and use "
                "ReconstructionDisplay(images=..., restored=...).plot()."
            )
        check_count("k", k)
        if corrupted is not None and len(corrupted) != len(X):
            raise ValueError(
                "The 'corrupted' parameter must have as many images as X, which has "
                f"{len(X)}. Got {len(corrupted)} instead."
            )
        images = estimator.resized(X[:k])
        given = None if corrupted is None else estimator.resized(corrupted[:k])
        codes = estimator.transform(X[:k] if corrupted is None else corrupted[:k])
        restored = estimator.inverse_transform(codes)
        return cls(images=images, restored=restored, corrupted=given).plot(ax=ax)

    def plot(self, ax=None):
        """Show original, corrupted and restored images below each other.

        Parameters
        ----------
        ax : matplotlib Axes, array-like of Axes or None, default=None
            One Axes is divided; of several, there must be one for each picture. None
            creates a new figure.

        Returns
        -------
        display : ReconstructionDisplay
            With its axes and artists.

        Raises
        ------
        ImportError
            If matplotlib is not installed (extra ``[plot]``).
        """
        rows = {"original": self.images}
        if self.corrupted is not None:
            rows["corrupted"] = self.corrupted
        rows["restored"] = self.restored
        set_axes_grid(self, ax, len(rows), len(self.images))
        self.images_ = []
        for axes, (label, pictures) in zip(self.axes_, rows.items(), strict=True):
            pairs = zip(axes, pictures, strict=True)
            self.images_.append([show_picture(*pair) for pair in pairs])
            axes[0].set_ylabel(label)
        return self
