"""What every estimator with a network has in common: its handling of parameters and X.

scikit-learn shows, clones and compares an estimator by what `get_params` returns, also
as a step of a pipeline. So passwords are hidden there, and nowhere else.
"""

import enum
import os
from collections.abc import Mapping, MutableMapping

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import HasMethods, StrOptions
from sklearn.utils.validation import _num_samples, check_array, validate_data
from torch import nn

from .._utils._address import shown_addresses
from .._utils._choices import ON_ERROR
from .._utils._constraints import POSITIVE_INT
from .._utils._html import DocumentationLinkMixin
from .._utils._preprocessing import Preprocessing
from .._utils._public_function import public_function
from .._utils._short_errors import ShortErrorsMixin
from ..cache import MappingCache
from ..images import make_image_source
from ..networks import attribute_of, copy_module, resolve_neck


class NetworkEstimatorMixin(ShortErrorsMixin, DocumentationLinkMixin):
    """Mixin class for estimators with the parameters `model` and `cache`."""

    @public_function  # it may copy a network
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
            share instead of copying it. An address does not show its password, and
            `storage_options`, which equals what was given, does not show its values.
        """
        params = shown_addresses(super().get_params(deep=deep))
        cache, options = params.get("cache"), params.get("storage_options")
        if isinstance(cache, MutableMapping):
            params["cache"] = MappingCache(cache)
        # Numbers are refused later and are not secrets.
        if not isinstance(options, (_StorageOptions, _HiddenValue, float, type(None))):
            kind = _StorageOptions if isinstance(options, Mapping) else _HiddenValue
            params["storage_options"] = kind(options)
        return params

    def _validate_params(self):
        """Check the parameters as scikit-learn does."""
        if isinstance(self.model, BaseEstimator):  # such as a fitted classifier
            raise ValueError(
                "The 'model' parameter must be the network of an estimator, model="
                "fitted.body_, and not the estimator: clone, and so every search, "
                "would unfit it. If body_ is None, the network was not trained: pass "
                f"the same 'model' again. Got {type(self.model).__name__} instead."
            )
        super()._validate_params()

    def _note_columns(self, X, is_table, *, reset):
        """Set or check the names and number of the columns of X; 1 if it is no table.

        A stateless estimator need not be fitted, and then there are no columns to
        compare those of X with.
        """
        if is_table and (reset or hasattr(self, "n_features_in_")):
            validate_data(self, X, reset=reset, skip_check_array=True)
        elif reset:
            self.n_features_in_ = 1
            vars(self).pop("feature_names_in_", None)

    def _advice(self, name):
        return _instead_of(self.model) if name == "model" else ""


# Attributes that hold the network of an object, or methods that return it, in
# pipelines, trainers and exported programs.
_NETWORKS = ("model", "network", "net", "module")


def _instead_of(model):
    """Return a sentence about what to pass instead of a `model` that is not a network.

    It begins with a space. If nothing is known, it is "".
    """
    if isinstance(getattr(model, "__self__", None), nn.Module):
        return " Pass the module instead of its method."
    for name in _NETWORKS:
        value = attribute_of(model, name)
        if isinstance(value, nn.Module):
            return f" Pass its network, model.{name}."
        if callable(value):
            return f" Pass its network, model.{name}()."
    if isinstance(model, (Mapping, os.PathLike)):
        return (
            " Pass a weights file as 'weights', and the network's name as 'model'. "
            "Load a state dict with network.load_state_dict."
        )
    if isinstance(model, enum.Enum):
        return " Pass weights as 'weights', and the network's name as 'model'."
    if callable(model):
        return (
            " If this creates a network, call it and pass the result. If it is a "
            "function of images, call it in the forward method of a torch.nn.Module."
        )
    return ""


class _StorageOptions(dict):
    """A dict that shows the names in it and not the values."""

    def __repr__(self):
        return f"{{{', '.join(f'{name!r}: <hidden>' for name in self)}}}"

    __str__ = __repr__


class _HiddenValue:
    """A value of `storage_options` that is not a mapping: refused, and not shown."""

    def __init__(self, value):
        self._kind = type(value).__name__

    def __repr__(self):
        return f"<hidden {self._kind}>"


class ImageEstimatorMixin(NetworkEstimatorMixin):
    """Mixin class for estimators that take images.

    Subclasses have the parameters `model`, `cache`, `storage_options` and
    `flat_image_shape`.
    """

    # For the parameters that all estimators of images have.
    _parameter_constraints: dict = {
        "weights": [str, os.PathLike, enum.Enum, None],
        "preprocessing": [Preprocessing, dict, HasMethods("to_dict"), callable, None],
        "flat_image_shape": [tuple, list, None],
        "max_pixels": [POSITIVE_INT, None],
        "storage_options": [dict, None],
        "on_error": [StrOptions(set(ON_ERROR))],
        "verbose": ["verbose"],
    }

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        is_flat = self.flat_image_shape is not None
        tags.input_tags.two_d_array = is_flat
        tags.input_tags.three_d_array = not is_flat
        tags.input_tags.one_d_array = not is_flat
        tags.input_tags.string = not is_flat
        tags.transformer_tags.preserves_dtype = []  # always float32
        return tags

    def _shown_parameter(self, name):
        if name == "storage_options":  # a value in it may be a password
            return f"an object of type {type(self.storage_options).__name__}"
        return super()._shown_parameter(name)

    def _neck_of_parameters(self, **others):
        """Return the neck that the parameters describe; `others` override them."""
        names = ("weights", "image_size", "preprocessing")
        own = {name: getattr(self, name) for name in names}
        return resolve_neck(self.model, **{**own, **others})

    def _check_images(self, X, *, reset):
        """Check the form of X, and set or check the names and number of its columns.

        Flat rows get scikit-learn's own checks. Other images are a single column,
        whatever holds them; each image is checked when it is read.

        Parameters
        ----------
        X : images in any form
        reset : bool
            Whether this is `fit`.

        Returns
        -------
        X
            As an array, if it holds flat rows.
        """
        is_collection = hasattr(X, "__len__") or hasattr(X, "__array__")
        if isinstance(X, (str, bytes, Mapping)) or not is_collection:
            make_image_source(X)  # says what to give instead
        if self.flat_image_shape is not None:
            dtype = [np.float64, np.float32, np.uint8, np.uint16, np.bool_]
            if not (reset or hasattr(self, "n_features_in_")):
                return check_array(X, dtype=dtype, estimator=self, input_name="X")
            return validate_data(self, X, reset=reset, dtype=dtype)
        self._note_columns(X, hasattr(X, "columns"), reset=reset)
        if hasattr(X, "__len__") and _num_samples(X) == 0:
            raise ValueError(
                "Found array with 0 sample(s) while a minimum of 1 is required by "
                f"{type(self).__name__}."
            )
        return X


def inspected(estimator, X):
    """Return what other packages need to look into the network of an estimator.

    Parameters
    ----------
    estimator : ImageEstimatorMixin
        Fitted, unless it is a PretrainedFeatureExtractor.
    X : images in any form, or None
        None if only the network matters.

    Returns
    -------
    X
        With its form checked.
    neck : networks.Neck
    settings : ExtractionSettings
    """
    return estimator._inspected(X)
