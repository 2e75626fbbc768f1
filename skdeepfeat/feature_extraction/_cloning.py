"""What `get_params` and `clone` hand out: no passwords, no copies of caches or locks.

scikit-learn shows, clones and compares an estimator by what `get_params` returns, also
where it is a step of a pipeline. There is no other place to say, once for text and
HTML, that a value is not to be shown.
"""

from collections.abc import Mapping, MutableMapping

from sklearn.utils._param_validation import InvalidParameterError
from torch import nn

from .._utils._forks import survives_fork
from .._utils._shown import shown
from ..cache import MappingCache
from ..networks import copy_module

__all__ = ["HandsOutParameters", "StorageOptions"]


class StorageOptions(dict):
    """A dict that shows the names in it and not the values."""

    def __repr__(self):
        return f"{{{', '.join(f'{name!r}: <hidden>' for name in self)}}}"

    __str__ = __repr__


class _NoOptions:
    """What was given as `storage_options` and is no mapping: refused, and not shown."""

    def __init__(self, value):
        self._kind = type(value).__name__

    def __repr__(self):
        return f"<hidden {self._kind}>"


class HandsOutParameters:
    """Estimators with the parameters `model`, `cache` and `storage_options`."""

    @survives_fork  # it may copy a network
    def __sklearn_clone__(self):
        try:
            return super().__sklearn_clone__()
        except Exception:  # deepcopy raises what it likes
            if not isinstance(self.model, nn.Module):
                raise
        # The module holds what deepcopy refuses, such as a lock, which copies share.
        model = copy_module(self.model)
        without = object.__new__(type(self))
        vars(without).update({**vars(self), "model": "none"})
        cloned = super(HandsOutParameters, without).__sklearn_clone__()
        return cloned.set_params(model=model)

    def get_params(self, deep=True):
        """Return the parameters of this estimator.

        Parameters
        ----------
        deep : bool, default=True
            Also those of parameters that are estimators.

        Returns
        -------
        params : dict
            A mapping given as `cache` comes as the `MappingCache` over it, which
            clones share instead of copying it. `storage_options` is equal to what was
            given, but shows no values.
        """
        params = super().get_params(deep=deep)
        options, cache = params.get("storage_options"), params.get("cache")
        # Numbers are refused later and are not secrets.
        if not isinstance(options, (StorageOptions, _NoOptions, float, type(None))):
            kind = StorageOptions if isinstance(options, Mapping) else _NoOptions
            params["storage_options"] = kind(options)
        if isinstance(cache, MutableMapping):
            params["cache"] = MappingCache(cache)
        return params

    def _validate_params(self):
        """Check the parameters as scikit-learn does, but do not show all of a value."""
        try:
            super()._validate_params()
        except InvalidParameterError as error:
            raise InvalidParameterError(_with_short_value(str(error), self)) from None


def _with_short_value(text, estimator):
    """Return the message about a parameter with its value cut, or left out."""
    wanted, got, _ = text.partition(" Got ")
    name = wanted.removeprefix("The '").partition("'")[0]
    if not got or not hasattr(estimator, name):
        return text
    value = getattr(estimator, name)
    if name == "storage_options":  # there may be a password among its values
        return f"{wanted} Got an object of type {type(value).__name__} instead."
    return f"{wanted} Got {shown(value)} instead."
