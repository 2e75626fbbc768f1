"""Which stored values are black and white, where Pillow passes on the bare values."""

import numpy as np
import PIL

from skdeepfeat.exceptions import BadImageError

_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
_WHITE_IS_ZERO, _SIGNED = 0, 2

_CARD = 80  # bytes of a line in the header of a FITS file
# Older versions read the bytes of a value in the wrong order.
_PILLOW_FOR_FITS = 13


def stored_range(image):
    """Return the values of black and white in a TIFF, None if they are the usual ones.

    Parameters
    ----------
    image : PIL.Image.Image
        As it was opened, because copies do not know it.

    Returns
    -------
    (int, int) or None
        Pillow turns values of at most 8 bits around itself.

    Raises
    ------
    BadImageError
        If the values are signed bytes, which Pillow takes for unsigned ones.
    """
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return None
    if image.mode == "L" and tags.get(_SAMPLE_FORMAT, (1,))[0] == _SIGNED:
        raise BadImageError("signed 8-bit pixels are not read: save it as 8 or 16 bits")
    if image.mode == "F":
        white = 1
    elif image.mode.startswith("I;16"):
        white = 2 ** tags.get(_BITS, (16,))[0] - 1
    else:
        return None
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        return white, 0
    return None if white in (1, 65535) else (0, white)


def to_unit_range(values, black_and_white):
    """Return values as floats, 0 for black and 1 for white."""
    black, white = black_and_white
    return (values.astype(np.float32) - black) / np.float32(white - black)


def check_fits(header):
    """Raise BadImageError if Pillow does not apply what a FITS header tells.

    Parameters
    ----------
    header : bytes
    """
    for start in range(0, len(header), _CARD):
        name, _, value = header[start : start + _CARD].partition(b"=")
        is_old = int(PIL.__version__.partition(".")[0]) < _PILLOW_FOR_FITS
        if is_old and name.strip() == b"BITPIX" and int(value.partition(b"/")[0]) != 8:
            raise BadImageError(
                "FITS files of more than 8 bits need Pillow "
                f"{_PILLOW_FOR_FITS} or newer. This is Pillow {PIL.__version__}"
            )
        usual = {b"BZERO": 0, b"BSCALE": 1}.get(name.strip())
        if usual is not None and float(value.partition(b"/")[0]) != usual:
            raise BadImageError(
                "FITS files with BZERO or BSCALE are not read: apply them, and pass "
                "the array with values in [0, 1]"
            )
