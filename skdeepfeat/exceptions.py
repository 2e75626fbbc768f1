"""The errors and warnings of this package."""

from ._utils._printable import has_address, printable, redacted

__all__ = [
    "BadFileError",
    "BadImageError",
    "BadImageWarning",
    "BadItemError",
    "BadItemWarning",
    "CacheWarning",
    "NonFiniteOutputError",
    "OutOfMemoryError",
    "TrainingDivergedError",
    "WeightsNotFoundError",
]


class BadFileError(ValueError):
    """A file of weights, a checkpoint, an estimator or word vectors cannot be used.

    It is damaged, truncated, malicious, or a file of another kind.
    """


class BadItemError(ValueError):
    """An item of X that cannot be made into an input of the network.

    Parameters
    ----------
    cause : str
        What is wrong with it, in words.
    index : int or None, default=None
        Its index in X.
    origin : str or None, default=None
        The path of its file, or what kind of object it was. Passwords and the values of
        queries in addresses are hidden.
    source : str, default="X"
        The name of the parameter that holds the item.
    """

    def __init__(self, cause, index=None, origin=None, source="X"):
        # Origins may be addresses with passwords, and causes may repeat them.
        cause = redacted(cause)
        if isinstance(origin, str) and has_address(origin):
            origin = redacted(origin)
        # All arguments go to `args`, so that the error survives the pickling that
        # brings it back from a joblib worker.
        super().__init__(cause, index, origin, source)
        self.cause = cause
        self.index = index
        self.origin = origin
        self.source = source

    def at(self, index, origin, source=None):
        """Return the same error with its place in X filled in.

        Parameters
        ----------
        index : int
            The index in X.
        origin : str or None
            The path of the file, or what kind of object it was.
        source : str or None, default=None
            The name of the parameter that holds the item. None keeps it.

        Returns
        -------
        error : BadItemError
            Of the same class.
        """
        error = type(self)(self.cause, index, origin, source or self.source)
        for note in getattr(self, "__notes__", ()):
            error.add_note(note)
        return error

    def __str__(self):
        place = [] if self.source == "X" else [self.source]
        if self.index is not None:
            place.append(f"index {self.index}")
        place += [printable(self.origin)] if self.origin else []
        cause = printable(self.cause)
        return f"{', '.join(place)}: {cause}" if place else cause


class BadImageError(BadItemError):
    """An image that cannot be turned into pixels.

    Parameters
    ----------
    cause : str
        What is wrong with it, in words.
    index : int or None, default=None
        Its index in X.
    origin : str or None, default=None
        The path of its file, or what kind of object it was. Passwords and the values of
        queries in addresses are hidden.
    source : str, default="X"
        The name of the parameter that holds the image.
    """


class BadItemWarning(UserWarning):
    """Items were replaced by NaN rows; `failures` lists them.

    Parameters
    ----------
    message : str
        The text shown.
    failures : tuple of BadItemError, default=()
        One error for each item, by ascending `index`.
    """

    def __init__(self, message, failures=()):
        super().__init__(message, failures)
        self.message = message
        self.failures = tuple(failures)

    def __str__(self):
        return self.message


class BadImageWarning(BadItemWarning):
    """Images were replaced by NaN rows; `failures` lists them.

    Parameters
    ----------
    message : str
        The text shown.
    failures : tuple of BadImageError, default=()
        One error for each image, by ascending `index`.
    """


class CacheWarning(UserWarning):
    """The feature cache could not be used as requested; results are still correct.

    Attributes
    ----------
    cause : str or None
        The reason why rows cannot be read or stored; None for a lesser problem.
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
    indices : sequence of int
        The indices of these images in X, in ascending order.
    source : str, default="X"
        The name of the parameter that holds the images.
    kind : str, default="image"
        The word for one of them.
    """

    def __init__(self, cause, indices, source="X", kind="image"):
        # All arguments go to `args`, as for `BadItemError`.
        super().__init__(cause, tuple(indices), source, kind)
        self.cause = cause
        self.indices = tuple(indices)
        self.source = source
        self.kind = kind

    def at(self, indices, source=None):
        """Return the same error with other indices.

        Parameters
        ----------
        indices : sequence of int
            The indices of the images in X, in ascending order.
        source : str or None, default=None
            The name of the parameter that holds the images. None keeps it.

        Returns
        -------
        error : NonFiniteOutputError
            With the same cause.
        """
        return NonFiniteOutputError(
            self.cause, indices, source or self.source, self.kind
        )

    def __str__(self):
        named = ", ".join(map(str, self.indices[:_N_NAMED]))
        more = len(self.indices) - _N_NAMED
        more = f" and {more} more" if more > 0 else ""
        return (
            f"The network returned NaN or infinite values for {len(self.indices)} "
            f"{self.kind}(s) of {self.source} that could be read (indices [{named}]"
            f"{more}). {self.cause}"
        )


# How many indices an error names.
_N_NAMED = 10


class WeightsNotFoundError(OSError):
    """The weights of a network are not on this machine and cannot be downloaded."""


class OutOfMemoryError(MemoryError):
    """Not even a batch of one image fits into the memory of the device."""


class TrainingDivergedError(FloatingPointError):
    """The loss became NaN or infinite; the last good weights are kept."""
