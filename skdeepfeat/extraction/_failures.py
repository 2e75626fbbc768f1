"""What is said of the images that could not be read."""

import warnings

from .._errors import BadImageWarning

__all__ = ["warn_of", "with_duplicates"]

# How many broken images a warning names; its `failures` attribute has them all.
_NAMED_FAILURES = 10


def with_duplicates(failures, digests, source):
    """Return a failure for every row that holds a broken image, not the first only."""
    by_digest = {
        digests[row]: error
        for row, error in failures.items()
        if digests[row] is not None
    }
    every = dict(failures)
    for row, digest in enumerate(digests):
        if digest in by_digest and row not in every:
            every[row] = by_digest[digest].at(row, source.describe(row))
    return [every[row] for row in sorted(every)]


def warn_of(failures):
    """Give one `BadImageWarning` that lists the images whose rows are NaN."""
    listed = "\n".join(f"  {error}" for error in failures[:_NAMED_FAILURES])
    more = len(failures) - _NAMED_FAILURES
    rest = f"\n  ... and {more} more" if more > 0 else ""
    warnings.warn(
        BadImageWarning(
            f"{len(failures)} image(s) could not be read; their rows are NaN "
            f"(the warning's `failures` attribute lists all):\n{listed}{rest}",
            failures,
        ),
        stacklevel=4,
    )
