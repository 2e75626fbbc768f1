"""Rows of numbers instead of images: the replacements for reading images."""

import contextlib

import numpy as np
import torch

from .._utils._device import compute_context, resolve_device
from .._utils._forks import undisturbed_by_forks
from .._utils._parameter_errors import choice_error
from ..exceptions import NonFiniteOutputError
from ..feature_extraction import open_extraction


def are_rows(X):
    """Return whether X is a table of numbers with one sample per row."""
    if isinstance(X, (list, tuple)):
        first = X[0] if X else None
        if not isinstance(first, (list, tuple, np.ndarray)) or np.ndim(first) != 1:
            return False
        return np.asarray(first).dtype.kind in "biuf"
    if len(getattr(X, "shape", ())) != 2:
        return False
    first = X.iloc[:1] if hasattr(X, "iloc") else X[:1]
    return np.asarray(first).dtype.kind in "biuf"


def open_features(X, neck, cache, settings):
    """Return the context of an `Extraction`, or its like for rows of numbers."""
    if neck.takes_rows:
        return contextlib.nullcontext(RowFeatures(X, neck, settings))
    return open_extraction(X, neck, cache, settings)


class RowFeatures:
    """The features of rows; see `Extraction`. No row can fail to be read."""

    digests = None

    def __init__(self, X, neck, settings):
        self._X, self._neck, self._settings = X, neck, settings

    def failures(self):
        """Return no failures."""
        return []

    def failed(self):
        """Return that no row failed."""
        return np.zeros(len(self._X), bool)

    @undisturbed_by_forks()
    def features(self, *, warns=True, in_training=False):
        """Return the features of all rows.

        Raises
        ------
        NonFiniteOutputError
            If the network returns NaN or infinite values.
        """
        device = resolve_device(self._settings.device)
        body = self._neck.trainable().to(device).eval()
        parts = torch.from_numpy(self._X).split(self._neck.suggested_batch_size(device))
        with compute_context(device, self._settings.precision):
            features = [body(part.to(device)).float().cpu() for part in parts]
        features = torch.cat(features).numpy()
        refused = ~np.isfinite(features).all(axis=1)
        if refused.any():
            raise non_finite_rows_error(np.flatnonzero(refused).tolist())
        return features


def non_finite_rows_error(indices):
    """Return the error about rows for which the network returns no finite numbers."""
    cause = "Scale X, or check the weights of 'model'."
    return NonFiniteOutputError(cause, indices, kind="row")


def check_row_parameters(estimator):
    """Raise if a parameter of an estimator has no meaning for rows."""
    for name, wanted in {"test_time_augmentation": None, "activation_l1": 0}.items():
        value = getattr(estimator, name)
        if value != wanted:
            raise choice_error(name, f"{wanted} if X holds rows of numbers", value)


def refuse_rows(estimator, what):
    """Raise if an estimator was fitted to rows, and something needs images."""
    if estimator._takes_rows:
        raise ValueError(
            f"X must hold images for {what}. This {type(estimator).__name__} was "
            "fitted to rows of numbers."
        )
