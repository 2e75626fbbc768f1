"""scikit-learn's errors about parameters, without values of any length."""

from sklearn.utils._param_validation import InvalidParameterError

from ._shown import shown


class ShortErrorsMixin:
    """Mixin class for estimators, whose parameters may be long or hold a password."""

    def _validate_params(self):
        """Check the parameters as scikit-learn does, but shorten the value."""
        try:
            super()._validate_params()  # type: ignore[misc]
        except InvalidParameterError as error:
            expected, got, _ = str(error).partition(" Got ")
            name = expected.removeprefix("The '").partition("'")[0]
            if not got or not hasattr(self, name):
                raise
            raise InvalidParameterError(
                f"{expected} Got {self._shown_parameter(name)} instead."
                f"{self._advice(name)}"
            ) from None

    def _shown_parameter(self, name):
        """Return the value of a parameter for a message."""
        return shown(getattr(self, name))

    def _advice(self, name):
        """Return a sentence, with a space before it, on what to pass instead."""
        return ""
