"""The errors and warnings of this package."""

from ._utils._printable import printable, redacted

__all__ = [
    "BadFileError",
    "BadImageError",
    "BadImageWarning",
    "CacheWarning",
    "NonFiniteOutputError",
    "OutOfMemoryError",
    "TrainingDivergedError",
    "WeightsNotFoundError",
]


class BadFileError(ValueError):
    """A file of weights, a checkpoint or a saved estimator that cannot be used.

    It is damaged, truncated, malicious, or a file of another kind.
    """


class BadImageError(ValueError):
    """An image that cannot be turned into pixels.

    Parameters
    ----------
    cause : str
        What is wrong with it, in words.
    row : int or None, default=None
        Its row in X, counted from 0.
    origin : str or None, default=None
        The path of its file, or what kind of object it was. Passwords and the values of
        queries in addresses are hidden.
    """

    def __init__(self, cause, row=None, origin=None):
        # Origins may be addresses with passwords, and causes may repeat them.
        cause = redacted(cause)
        if isinstance(origin, str) and "://" in origin:
            origin = redacted(origin)
        # All arguments go to `args`, so that the error survives the pickling that
        # brings it back from a joblib worker.
        super().__init__(cause, row, origin)
        self.cause = cause
        self.row = row
        self.origin = origin

    def at(self, row, origin):
        """Return the same error with its place in X filled in."""
        return BadImageError(self.cause, row, origin)

    def __str__(self):
        place = [f"row {self.row}"] if self.row is not None else []
        place += [printable(self.origin)] if self.origin else []
        cause = printable(self.cause)
        return f"{', '.join(place)}: {cause}" if place else cause


class BadImageWarning(UserWarning):
    """Images were replaced by NaN rows; `failures` lists them.

    Parameters
    ----------
    message : str
        The text shown.
    failures : tuple of BadImageError, default=()
        One error a row, in the order of the rows, each with `row`, `origin` and
        `cause`.
    """

    def __init__(self, message, failures=()):
        super().__init__(message, failures)
        self.message = message
        self.failures = tuple(failures)

    def __str__(self):
        return self.message


class CacheWarning(UserWarning):
    """The feature cache could not be used as asked; results are still right.

    Attributes
    ----------
    cause : str or None
        What keeps rows from being read or kept; None if it is about less than that.
    """

    def __init__(self, message="", cause=None):
        super().__init__(message)
        self.cause = cause


class NonFiniteOutputError(ValueError):
    """A network returned NaN or infinite values for images that could be read.

    It is raised whatever `on_error` is, because `on_error` applies only to images that
    cannot be read.

    Parameters
    ----------
    cause : str
        The likely cause and how to fix it, as sentences.
    rows : sequence of int
        The rows of these images in X, counted from 0, in ascending order.
    source : str, default="X"
        The name of the parameter that holds the images.
    """

    def __init__(self, cause, rows, source="X"):
        # All arguments go to `args`, as for `BadImageError`.
        super().__init__(cause, tuple(rows), source)
        self.cause = cause
        self.rows = tuple(rows)
        self.source = source

    def at(self, rows, source="X"):
        """Return the same error with other rows."""
        return NonFiniteOutputError(self.cause, rows, source)

    def __str__(self):
        named = ", ".join(map(str, self.rows[:_N_NAMED]))
        more = len(self.rows) - _N_NAMED
        more = f" and {more} more" if more > 0 else ""
        return (
            f"The network returned NaN or infinite values for {len(self.rows)} "
            f"image(s) of {self.source} that could be read (rows [{named}]{more}). "
            f"{self.cause}"
        )


# How many rows an error names.
_N_NAMED = 10


class WeightsNotFoundError(OSError):
    """The weights of a network are neither on this machine nor to be downloaded."""


class OutOfMemoryError(MemoryError):
    """Not even a batch of one image fits into the memory of the device."""


class TrainingDivergedError(FloatingPointError):
    """The loss is no longer a number; the weights before that are kept."""
