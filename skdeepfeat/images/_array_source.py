"""Images of one size in one array or tensor, which is never copied as a whole."""

import copy

import numpy as np

from skdeepfeat._utils._digests import digest_pixels
from skdeepfeat._utils._tensors import is_tensor

from ._canonical import canonical_pixels, tensor_to_array, value_problem
from ._image_source import ImageSource
from ._thread_pool import hash_in_threads

# Values that are converted at a time: enough to amortize the overhead of numpy, but
# few enough to stay in the processor's cache.
_BLOCK = 2**20

_MAX_PER_TASK = 16


class ArraySource(ImageSource):
    """Images along the first axis of one array.

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
        self._has_channels = images.ndim == 4
        n_values = int(np.prod(images.shape[1:]))
        self._step = max(1, _BLOCK // max(1, n_values))
        # To hand a small image to a thread takes as long as to load it.
        self.n_per_task = min(self._step, _MAX_PER_TASK)
        if len(images):
            # The first image shows the dtype in NumPy, also for bfloat16.
            dtype = self._take(0, 1).dtype
            problem = value_problem(dtype, self._blocks(), "X")
            if problem:
                raise ValueError(f"X does not hold images: {problem}.")

    def __len__(self):
        return len(self._images)

    def describe(self, i):
        kind = "tensor" if is_tensor(self._images) else "array"
        return f"{kind} of shape {tuple(self._images.shape[1:])}"

    def part(self, indices):
        indices = np.asarray(indices, np.intp)
        part = copy.copy(self)
        if is_tensor(self._images):
            # A copy, because a pickled view of a tensor holds the whole tensor; on the
            # CPU, because other processes may not have the device.
            part._images = self._images[indices].detach().cpu()
        elif len(indices) and (np.diff(indices) == 1).all():
            part._images = self._images[indices[0] : indices[-1] + 1]
        else:
            part._images = self._images[indices]
        part._expected = self._expected_of(indices)
        return part

    def digests(self, file_index=None, on_done=None, keeps=False):
        starts = range(0, len(self), self._step)
        blocks = hash_in_threads(self._digest_block, starts, n_per_task=1)
        digests = [digest for block in blocks for digest in block]
        self.expect(digests)
        return digests, {}

    def pixels(self, i):
        return self._checked(i, self._take(i, i + 1))

    def _copied_pixels(self, i, share):
        share.take(2 * self._images[i].nbytes)
        # Copied before it is checked, so that what was checked is what is used.
        return self._checked(i, np.array(self._take(i, i + 1)))

    def _checked(self, i, image):
        pixels = canonical_pixels(image, has_channels=self._has_channels)[0]
        self._check_unchanged(i, digest_pixels, pixels)
        return pixels

    def _take(self, start, stop):
        block = self._images[start:stop]
        if is_tensor(block):
            return tensor_to_array(block, has_channels=self._has_channels)
        return block

    def _digest_block(self, start):
        block = self._take(start, start + self._step)
        block = canonical_pixels(block, has_channels=self._has_channels)
        return [digest_pixels(pixels) for pixels in block]

    def _blocks(self):
        for start in range(0, len(self), self._step):
            yield self._take(start, start + self._step)
