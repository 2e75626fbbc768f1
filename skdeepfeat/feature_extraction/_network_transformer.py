"""What the transformers from items to features have in common."""

import contextlib

from sklearn.exceptions import NotFittedError
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted
from torch import device as torch_device
from torch.nn import Module

from .._utils._choices import POOLINGS
from .._utils._constraints import N_JOBS, POSITIVE_INT
from .._utils._device import resolve_devices
from .._utils._html import is_drawn_as_html
from .._utils._public_function import public_function
from ..cache import CACHE_CONSTRAINT
from ..networks import module_on_cpu
from ._extract_to import feature_names
from ._settings import count_workers


class NetworkTransformerMixin:
    """Mixin class for stateless transformers with a network.

    Subclasses define `_resolve_neck`, and set `layers_` in `fit`.
    """

    # For the parameters that all of them have.
    _parameter_constraints: dict = {
        "pooling": [StrOptions(set(POOLINGS))],
        "device": [str, torch_device, list, tuple],
        "cache": CACHE_CONSTRAINT,
        "batch_size": [POSITIVE_INT, StrOptions({"auto"})],
        "n_jobs": N_JOBS,
    }

    @property
    def n_features_out_(self):
        """Number of features."""
        # Examining the network can take a second, so it is not done in `fit`.
        check_is_fitted(self, "layers_")
        if is_drawn_as_html():
            raise AttributeError("the HTML form examines no network")
        with self._described_neck() as neck:
            return sum(neck.n_features())

    @public_function
    def get_feature_names_out(self, input_features=None):
        """Return a name for each feature, such as ``resnet50_layer3_avg_017``.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Only compared with `feature_names_in_`.

        Returns
        -------
        names : ndarray of object, shape (n_features_out,)
            One name for each column.
        """
        if is_drawn_as_html():
            raise NotFittedError("The HTML form examines no network.")
        if input_features is not None:
            _check_feature_names_in(self, input_features)
        with self._described_neck() as neck:
            return feature_names(neck)

    @contextlib.contextmanager
    def _described_neck(self):
        """Lend the neck; it may be one that computes only after `resolved`."""
        yield self._resolve_neck()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        return tags

    @public_function
    def __getstate__(self):
        state = super().__getstate__()
        if isinstance(self.model, Module):
            state = {**state, "model": module_on_cpu(self.model)}
        return state

    def _resolve_device(self):
        """Return `device_`."""
        if count_workers(self.n_jobs) > 1:
            return None
        devices = list(map(str, resolve_devices(self.device)))
        return devices if isinstance(self.device, (list, tuple)) else devices[0]
