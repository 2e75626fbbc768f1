"""Files that a decoder reads a limited number of times.

Pillow's plugins read headers in Python, some of them byte by byte, and keep what they
find. In a small file of nothing but comments or empty chunks this takes minutes and
gigabytes, whatever the format. Each step of such a loop reads from the file.
"""

import io

from skdeepfeat.exceptions import BadImageError

# The color table of the largest XPM has a line for each color.
_BEFORE_SIZE = 2**18
# Python's decoders read up to four times for a pixel.
_AFTER_SIZE = 2**16
_PER_PIXEL = 4


class _CountedReads:
    """A binary file that raises BadImageError after too many calls of `read`."""

    _n_left = _BEFORE_SIZE

    def allow_pixels(self, n_pixels: int) -> None:
        """Allow what a decoder needs for this number of pixels."""
        self._n_left = _AFTER_SIZE + _PER_PIXEL * n_pixels

    def read(self, *size):
        self._count()
        return super().read(*size)

    def readline(self, *size):
        self._count()
        return super().readline(*size)

    def _count(self):
        self._n_left -= 1
        if self._n_left < 0:
            raise BadImageError(
                "it consists of too many tiny parts, as files that are made to decode "
                "slowly"
            )


class CountedBytes(_CountedReads, io.BytesIO):
    """Encoded bytes as such a file."""


class CountedFile(_CountedReads, io.BufferedReader):
    """An open file as such a file."""
