"""Images of one size in one array or tensor, never copied as a whole."""

import copy
from collections.abc import Callable

import numpy as np

from skdeepfeat._utils._digests import digest_pixels
from skdeepfeat.exceptions import BadImageError

from ._budget import ByteBudget, share_of
from ._canonical import canonical_pixels, value_fault
from ._elements import CHANGED
from ._files import FileMemo
from ._geometry import fit_to_network
from ._tensors import is_tensor, tensor_to_array
from ._thread_pool import ThreadPool, resolve_threads

__all__ = ["StackSource"]

# Values converted at a time: enough to hide numpy's overhead, few enough to stay in
# the processor's cache.
_BLOCK = 2**20


class StackSource:
    """Images along the first axis of one array; an `ImageSource`.

    Parameters
    ----------
    images : ndarray of shape (n, H, W) or (n, H, W, C), or tensor (n, H, W) or \
(n, C, H, W)

    Raises
    ------
    ValueError
        If the values are not those of images: integers wider than 16 bits, floats
        outside of [0, 1].
    """

    def __init__(self, images):
        self._images = images
        self._expected: list[bytes | None] | None = None
        self._has_channels = images.ndim == 4
        n_values = int(np.prod(images.shape[1:]))
        self._step = max(1, _BLOCK // max(1, n_values))
        if len(images):
            # The first image tells the dtype that numpy sees, bfloat16 included.
            dtype = self._take(0, 1).dtype
            fault = value_fault(dtype, self._range, "X")
            if fault:
                raise ValueError(f"X does not hold images: {fault}.")

    def __len__(self):
        return len(self._images)

    def describe(self, i):
        """Return what kind of object image `i` is."""
        kind = "tensor" if is_tensor(self._images) else "array"
        return f"{kind} of shape {tuple(self._images.shape[1:])}"

    def path(self, i):
        """Return None: images in an array have no files."""

    def part(self, rows):
        """Return the images `rows` as a source that can be sent to another process."""
        rows = np.asarray(rows, np.intp)
        part = copy.copy(self)  # the values have been looked at already
        if is_tensor(self._images):
            # A copy, because a view of a tensor is pickled with all that is behind it;
            # in the main memory, because a device is nobody else's.
            part._images = self._images[rows].detach().cpu()
        elif len(rows) and np.array_equal(
            rows, np.arange(rows[0], rows[0] + len(rows))
        ):
            part._images = self._images[rows[0] : rows[0] + len(rows)]
        else:
            part._images = self._images[rows]
        if self._expected is not None:
            part._expected = [self._expected[row] for row in rows]
        return part

    def expect(self, digests):
        """Have images whose content has another digest than before be bad images."""
        self._expected = list(digests)

    def digests(
        self,
        memo: FileMemo | None = None,
        n_threads: int | None = None,
        on_done: Callable[[int], object] | None = None,
    ):
        """Return the content digest of each image; none of them can fail."""
        n_threads = resolve_threads(n_threads)
        starts = range(0, len(self), self._step)
        if n_threads == 1 or len(starts) <= 1:
            blocks = list(map(self._digest_block, starts))
        else:
            with ThreadPool(n_threads, "skdeepfeat-hash") as pool:
                blocks = list(pool.map(self._digest_block, starts))
        digests = [digest for block in blocks for digest in block]
        self.expect(digests)
        return digests, {}

    def pixels(self, i):
        """Return the canonical pixels of image `i`, a view of X if that will do."""
        return self._checked(i, self._take(i, i + 1))

    def fitted(self, i, preprocessing, budget: ByteBudget | None = None):
        """Return image `i`, resized and cropped."""
        with share_of(budget) as share:
            if share is not None:
                share.take(2 * self._images[i].nbytes)
            # A copy: nobody can change it once its digest has been looked at.
            image = np.array(self._take(i, i + 1))
            return fit_to_network(self._checked(i, image), preprocessing)

    def _checked(self, i, image):
        pixels = canonical_pixels(image, has_channels=self._has_channels)[0]
        expected = None if self._expected is None else self._expected[i]
        if expected is not None and digest_pixels(pixels) != expected:
            raise BadImageError(CHANGED, i, self.describe(i))
        return pixels

    def for_device(self, i, preprocessing, budget: ByteBudget | None = None):
        """Return image `i`, resized and cropped: there is nothing to decode."""
        return self.fitted(i, preprocessing, budget)

    def _take(self, start, stop):
        block = self._images[start:stop]
        if is_tensor(block):
            return tensor_to_array(block, has_channels=self._has_channels)
        return block

    def _canonical(self, start, stop):
        block = self._take(start, stop)
        return canonical_pixels(block, has_channels=self._has_channels)

    def _digest_block(self, start):
        block = self._canonical(start, start + self._step)
        return [digest_pixels(pixels) for pixels in block]

    def _range(self):
        starts = range(0, len(self), self._step)
        blocks = (self._take(start, start + self._step) for start in starts)
        ranges = [(block.min(), block.max()) for block in blocks]
        # np.min, unlike min, lets a NaN of any block through.
        return np.min([low for low, _ in ranges]), np.max([high for _, high in ranges])
