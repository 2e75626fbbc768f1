"""What the other packages see of X: images that are read one by one, by index."""

import abc
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from skdeepfeat._utils._filestat import FileStat
from skdeepfeat._utils._item_source import ItemSource
from skdeepfeat._utils._preprocessing import Preprocessing
from skdeepfeat.exceptions import BadImageError

from ._geometry import fit_to_network
from ._thread_pool import ByteBudget, Share

# Otherwise its features would be stored under the digest of its former content.
_CHANGED = (
    "it was changed while it was being read: its content differs from a moment ago"
)


class FileIndex(Protocol):
    """The content digests of files that earlier runs have read."""

    def lookup(self, stats: list[FileStat]) -> list[bytes | None]:
        """Return the digest of each file, None where it is not known."""

    def remember(self, stats: list[FileStat], digests: list[bytes]) -> None:
        """Store the digests of files."""


class ImageSource(ItemSource):
    """Images by index. All methods may be called from many threads at once."""

    kind = "image"

    # The digests of the images when they were first read, None where unknown.
    _expected: Sequence[bytes | None] | None = None

    def pixels(self, i: int) -> np.ndarray:
        """Return the pixels of one image.

        Parameters
        ----------
        i : int

        Returns
        -------
        ndarray of uint8, shape (H, W) or (H, W, 3), in C order
            May be a view of X, so it must not be written to.

        Raises
        ------
        BadImageError
            If the image cannot be read, or has changed since its digest was taken.
        """
        return self._copied_pixels(i, Share(None))

    def path(self, i: int) -> str | None:
        """Return the path of an image as it was given, None if it has none."""
        return None

    def fitted(
        self, i: int, preprocessing: Preprocessing, budget: ByteBudget | None = None
    ) -> np.ndarray:
        """Return one image, resized and cropped for a network.

        Parameters
        ----------
        i : int
        preprocessing : Preprocessing
            Its geometry is applied.
        budget : ByteBudget or None, default=None
            The memory for the image is taken from it, which may wait.

        Returns
        -------
        ndarray of uint8, shape (crop_height, crop_width, 3)

        Raises
        ------
        BadImageError
            As `pixels` does.
        """
        with Share(budget) as share:
            return fit_to_network(self._copied_pixels(i, share), preprocessing)

    def expect(self, digests: Sequence[bytes | None]) -> None:
        """Treat images whose content has another digest as images that cannot be read.

        Parameters
        ----------
        digests : sequence of bytes or None
            What `digests` of another source of the same X returned. `digests` calls
            this with its own result.
        """
        self._expected = digests

    @abc.abstractmethod
    def _copied_pixels(self, i: int, share: Share) -> np.ndarray:
        """Return the pixels of one image, which no other code can change any more."""

    def _expected_of(self, indices):
        if self._expected is None:
            return None
        return [self._expected[i] for i in indices]

    def _check_unchanged(self, i, digest, content):
        expected = None if self._expected is None else self._expected[i]
        if expected is not None and digest(content) != expected:
            raise BadImageError(_CHANGED, i, self.describe(i))
