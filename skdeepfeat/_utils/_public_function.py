"""What all public functions have in common: they survive forks, errors are short."""

import functools

from ._forks import call_after_fork
from ._short_errors import shorten


def public_function(function):
    """Return a public function or method with what all of them have in common.

    It also works in a forked process (`call_after_fork`). The texts of its errors have
    a limited length (`shorten`), because other packages show whole values in them.
    """

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        try:
            return call_after_fork(function, *args, **kwargs)
        except Exception as error:
            shorten(error)
            raise

    return wrapper
