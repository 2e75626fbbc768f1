"""What all public functions have in common: they survive forks, errors are short."""

import functools

from ._forks import call_after_fork
from ._short_errors import shorten


def public_function(function):
    """Decorate a public function or method.

    It then also works in a forked process (see `call_after_fork`). Long texts of its
    errors are cut (see `shorten`), because other packages show whole values in them.
    """

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        try:
            return call_after_fork(function, *args, **kwargs)
        except Exception as error:
            shorten(error)
            raise

    return wrapper
