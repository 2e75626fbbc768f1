"""Errors of other packages, with values cut and passwords hidden."""

import functools
import inspect

import sklearn.utils._param_validation as sklearn_validation
from sklearn.utils._param_validation import InvalidParameterError

from ._shown import shown

# Characters of an error's text, and how many of its beginning and end are kept.
_LONGEST_TEXT = 5000
_KEPT = 1500, 300


def shorten(error):
    """Cut the texts of an error, and of those that led to it, if they are long.

    They may hold whole values of the user, such as images in base64.
    """
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if any(map(_is_long, error.args)):
            error.args = tuple(map(_cut, error.args))
        error = error.__cause__ or error.__context__


def _is_long(text):
    return isinstance(text, str) and len(text) > _LONGEST_TEXT


def _cut(text):
    if not _is_long(text):
        return text
    n_first, n_last = _KEPT
    return f"{text[:n_first]} ... {text[-n_last:]} ({len(text):,} characters)"


class ShortErrorsMixin:
    """Mixin class for estimators whose parameters may be long or hold a password."""

    def _validate_params(self):
        """Check the parameters as scikit-learn does, but shorten the value."""
        try:
            super()._validate_params()  # type: ignore[misc]
        except InvalidParameterError as error:
            name = _name_in(error)
            if not hasattr(self, name):
                raise
            raise _shortened(
                error, self._shown_parameter(name), self._advice(name)
            ) from None

    def _shown_parameter(self, name):
        """Return the value of a parameter for a message."""
        return shown(getattr(self, name))

    def _advice(self, name):
        """Return a sentence about what to pass instead, after a space, or ""."""
        return ""


def validate_params(**constraints):
    """Return scikit-learn's `validate_params` decorator, but shorten values in errors.

    Parameters
    ----------
    **constraints : list
        Of each parameter, as in `sklearn.utils._param_validation.validate_params`.
    """
    check = sklearn_validation.validate_params(
        constraints, prefer_skip_nested_validation=True
    )

    def decorator(function):
        checked = check(function)
        signature = inspect.signature(function)

        @functools.wraps(checked)
        def wrapper(*args, **kwargs):
            try:
                return checked(*args, **kwargs)
            except InvalidParameterError as error:
                name = _name_in(error)
                values = signature.bind_partial(*args, **kwargs).arguments
                # The error may come from an estimator that the function calls, with a
                # parameter of the same name: scikit-learn replaces the name of the
                # estimator in it with that of the function.
                is_own = name in values and f" Got {values[name]!r} inst" in str(error)
                if not is_own:
                    raise
                raise _shortened(error, shown(values[name])) from None

        return wrapper

    return decorator


def _name_in(error):
    """Return the name of the parameter that an error is about."""
    return str(error).removeprefix("The '").partition("'")[0]


def _shortened(error, in_words, advice=""):
    expected, got, _ = str(error).partition(" Got ")
    return InvalidParameterError(
        f"{expected} Got {in_words} instead.{advice}" if got else str(error)
    )
