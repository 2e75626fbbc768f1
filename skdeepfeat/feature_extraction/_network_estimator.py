"""What every estimator with a network has in common: its handling of parameters.

scikit-learn shows, clones and compares an estimator by what `get_params` returns, also
as a step of a pipeline.
"""

from collections.abc import MutableMapping

from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import InvalidParameterError
from torch import nn

from .._utils._address import shown_addresses
from .._utils._estimator_html import DocumentationLinkMixin
from .._utils._forks import survives_fork
from .._utils._shown import shown
from ..cache import MappingCache
from ..networks import copy_module


def refuse_estimator(model):
    """Raise if the parameter `model` is an estimator, such as a fitted classifier."""
    if isinstance(model, BaseEstimator):
        raise ValueError(
            "The 'model' parameter must be the network of an estimator, model="
            "fitted.body_, and not the estimator: clone, and so every search, would "
            "unfit it. If body_ is None, the network was not trained: give the same "
            f"'model' again. Got {type(model).__name__} instead."
        )


class NetworkEstimatorMixin(DocumentationLinkMixin):
    """Mixin class for estimators with the parameters `model` and `cache`."""

    @survives_fork  # it may copy a network
    def __sklearn_clone__(self):
        try:
            return super().__sklearn_clone__()
        except Exception:  # deepcopy can raise anything
            if not isinstance(self.model, nn.Module):
                raise
        # The module holds something that deepcopy refuses, such as a lock. The copies
        # share it.
        model = copy_module(self.model)
        without = object.__new__(type(self))
        vars(without).update({**vars(self), "model": "copied below"})
        cloned = super(NetworkEstimatorMixin, without).__sklearn_clone__()
        return cloned.set_params(model=model)

    def get_params(self, deep=True):
        """Return the parameters of this estimator.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include the parameters of parameters that are estimators.

        Returns
        -------
        params : dict
            A mapping given as `cache` is returned as a `MappingCache`, which clones
            share instead of copying it. An address does not show its password.
        """
        params = shown_addresses(super().get_params(deep=deep))
        cache = params.get("cache")
        if isinstance(cache, MutableMapping):
            params["cache"] = MappingCache(cache)
        return params

    def _validate_params(self):
        """Check the parameters as scikit-learn does, but shorten the value."""
        refuse_estimator(self.model)
        try:
            super()._validate_params()
        except InvalidParameterError as error:
            expected, got, _ = str(error).partition(" Got ")
            name = expected.removeprefix("The '").partition("'")[0]
            if not got or not hasattr(self, name):
                raise
            in_words = self._shown_parameter(name)
            raise InvalidParameterError(f"{expected} Got {in_words} instead.") from None

    def _shown_parameter(self, name):
        return shown(getattr(self, name))
