"""What FineTuneClassifier and FineTuneRegressor share: parameters, use, keeping."""

import numbers
import os
from collections.abc import MutableMapping

import numpy as np
import pandas as pd
import torch
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import nn
from torchvision.models import WeightsEnum

from .._utils._device import PRECISIONS, free_device_memory, resolve_device
from .._utils._forks import survives_fork
from .._utils._preprocessing import Preprocessing
from .._utils._shown import shown
from ..cache import FeatureCache, MappingCache
from ..exceptions import NonFiniteOutputError, TrainingDivergedError
from ..feature_extraction import (
    ExtractionSettings,
    ImageEstimatorMixin,
    list_failures,
    load_pixels,
    non_finite_error,
    open_extraction,
    warn_of,
)
from ..networks import resolve_neck
from ..training import AUGMENTATIONS, OPTIMIZERS, SCHEDULES
from ._fit import apply_head, begin_fit
from ._onnx import export_network
from ._saving import load_estimator, pack_fitted, save_estimator, unpack_fitted
from ._views import MAX_BYTES_IN_MEMORY, VIEWS, cut_view, with_margin

__all__ = ["BaseFineTune"]


class BaseFineTune(
    ImageEstimatorMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    BaseEstimator,
):
    """The common part; see the two estimators."""

    _parameter_constraints: dict = {
        "model": [str, nn.Module],
        "weights": [str, os.PathLike, WeightsEnum, None],
        "image_size": [
            Interval(numbers.Integral, 1, None, closed="left"),
            "array-like",
            None,
        ],
        "flat_image_shape": [tuple, list, None],
        "preprocessing": [Preprocessing, dict, callable, None],
        "hidden_layer_sizes": ["array-like"],
        "dropout": [Interval(numbers.Real, 0, 1, closed="left")],
        "head_epochs": [Interval(numbers.Integral, 0, None, closed="left")],
        "unfreeze": [
            StrOptions({"all", "gradual"}),
            None,
            Interval(numbers.Integral, 0, None, closed="left"),
        ],
        "freeze_batch_norm": ["boolean"],
        "max_epochs": [
            StrOptions({"auto"}),
            Interval(numbers.Integral, 0, None, closed="left"),
        ],
        "batch_size": [Interval(numbers.Integral, 1, None, closed="left")],
        "optimizer": [StrOptions(set(OPTIMIZERS))],
        "learning_rate": [Interval(numbers.Real, 0, None, closed="neither")],
        "layer_decay": [Interval(numbers.Real, 0, 1, closed="right")],
        "weight_decay": [Interval(numbers.Real, 0, None, closed="left")],
        "momentum": [Interval(numbers.Real, 0, 1, closed="left")],
        "schedule": [StrOptions(set(SCHEDULES))],
        "warmup": [Interval(numbers.Real, 0, 1, closed="left")],
        "max_grad_norm": [Interval(numbers.Real, 0, None, closed="neither"), None],
        "ema_decay": [Interval(numbers.Real, 0, 1, closed="left")],
        "mixup": [Interval(numbers.Real, 0, None, closed="left")],
        "augment": [StrOptions(set(AUGMENTATIONS) - {None}), callable, None],
        "test_time_augmentation": [StrOptions({"flip", "flip_crop"}), None],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(numbers.Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(numbers.Integral, 1, None, closed="left")],
        "warm_start": ["boolean"],
        "precision": [StrOptions(set(PRECISIONS))],
        "device": [str, torch.device],
        "cache": [str, os.PathLike, FeatureCache, MappingCache, MutableMapping, None],
        "checkpoint": [str, os.PathLike, None],
        "on_error": [StrOptions({"raise", "nan"})],
        "max_pixels": [Interval(numbers.Integral, 1, None, closed="left"), None],
        "storage_options": [dict, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    # -- What the two estimators fill in

    def _score_outputs(self, outputs, targets):
        """Return the score of raw outputs (n_samples, n_outputs), more is better."""
        raise NotImplementedError

    # -- Fitting

    def _fit(self, X, targets, sample_weight, validation=None, plan=None):
        """Fit head and body; the parameters are those of `begin_fit`."""
        fit = begin_fit(self, X, targets, sample_weight, validation, plan)
        try:
            fit.run()
        except TrainingDivergedError:
            if fit.head is not None:
                self._keep(fit)
            raise
        self._keep(fit)
        return self

    def _continues(self):
        """Whether `fit` goes on from what an earlier one learned."""
        return self.warm_start and hasattr(self, "head_")

    @staticmethod
    def _plan_of_part(first):
        """Return how `partial_fit` differs from `fit`."""
        return {
            "warm_start": not first,
            "max_epochs": 1,
            "schedule": "constant",
            "warmup": 0.0,
            "early_stopping": False,
            "checkpoint": None,
        }

    def _keep(self, fit):
        self.head_ = _at_rest(fit.head)
        self.body_ = None if fit.body is None else _at_rest(fit.body)
        self.history_ = pd.DataFrame(fit.history)
        self.n_epochs_ = fit.n_epochs
        self.best_epoch_ = fit.best_epoch
        self.best_validation_score_ = fit.best_score
        self._n_features_out = fit.neck.n_features()[0]
        self._hub_config = fit.neck.spec.hub_config
        free_device_memory(fit.device)

    def _validate_params(self):
        super()._validate_params()
        sizes = self.hidden_layer_sizes
        if not all(isinstance(n, numbers.Integral) and n >= 1 for n in sizes):
            raise ValueError(
                f"The 'hidden_layer_sizes' parameter of {type(self).__name__} must "
                "hold integers of at least 1, one for each hidden layer. Got "
                f"{shown(sizes)} instead."
            )

    def _resolve_neck(self, needs_weights=True):
        return resolve_neck(
            self.model,
            weights=self.weights,
            image_size=self.image_size,
            preprocessing=self.preprocessing,
            random_state=0,
            needs_weights=needs_weights,
            # What a loaded file says, so that loading opens no connection.
            hub_config=getattr(self, "_hub_config", None),
        )

    def _settings(self, verbose=None):
        return ExtractionSettings(
            flat_image_shape=self.flat_image_shape,
            max_pixels=self.max_pixels,
            storage_options=self.storage_options,
            device=self.device,
            precision=self.precision,
            on_error=self.on_error,
            verbose=int(self.verbose if verbose is None else verbose),
        )

    def _fitted_neck(self):
        if self.body_ is None:
            return self._resolve_neck()
        return self._resolve_neck(needs_weights=False).with_network(self.body_)

    # -- Using

    @survives_fork
    def transform(self, X):
        """Return the features of the tuned neck: what enters the head.

        Parameters
        ----------
        X : array-like of images, shape (n_samples,) or as for `fit`

        Returns
        -------
        features : ndarray of float32, shape (n_samples, n_features_out)
            Cached under the tuned weights' own digest.

        Raises
        ------
        NonFiniteOutputError
            The network returns NaN or infinite values for an image that can be read,
            whatever `on_error` is.
        """
        check_is_fitted(self)
        X = self._check_images(X, reset=False)
        neck, settings = self._fitted_neck(), self._settings()
        with open_extraction(X, neck, self.cache, settings) as extraction:
            return extraction.features()

    def _outputs(self, X, *, of_all=False):
        """Return the head's raw outputs as float64, shape (n_samples, n_outputs).

        With `of_all`, images that cannot be read are an error whatever `on_error` is:
        before anything is computed where that can be known.
        """
        check_is_fitted(self)
        X = self._check_images(X, reset=False)
        if self.test_time_augmentation is not None:
            return self._outputs_of_views(X, of_all)
        # Rows of a tuned body are seldom asked for twice, but after an error about a
        # broken image they are. Those of the body as it came are the extractor's rows.
        keeps = self.body_ is None or self.on_error == "nan"
        neck, settings = self._fitted_neck(), self._settings()
        cache = self.cache if keeps else None
        with open_extraction(X, neck, cache, settings) as extraction:
            if of_all:
                _refuse(extraction.failures())
            [features] = extraction.fetch(np.arange(len(extraction)))
            failures, failed = extraction.failures(), extraction.failed()
        if failures:
            if of_all:
                _refuse(failures)
            warn_of(failures)
        return _checked_outputs(self.head_, apply_head(self.head_, features), failed)

    def _outputs_of_views(self, X, of_all):
        """Return the mean outputs of several views of each image."""
        neck, settings = self._fitted_neck(), self._settings()
        size = neck.preprocessing.crop
        pixels, failures = load_pixels(
            X, with_margin(neck.preprocessing), settings, MAX_BYTES_IN_MEMORY
        )
        if failures:
            if of_all:
                _refuse(failures)
            warn_of(failures)
        device = resolve_device(self.device)
        outputs = np.zeros((len(pixels), _last_linear(self.head_).out_features))
        failed, refused = np.zeros((2, len(pixels)), dtype=bool)
        failed[[failure.row for failure in failures]] = True
        views = VIEWS[self.test_time_augmentation]
        n_at_once = neck.suggested_batch_size(device)
        with neck.loaded(device, self.precision) as run:
            for start in range(0, len(pixels), n_at_once):
                part = pixels[start : start + n_at_once]
                for place, mirrored in views:
                    view = cut_view(part, size, place)
                    view = view[:, :, ::-1] if mirrored else view
                    [features] = run(np.ascontiguousarray(view))
                    rows = slice(start, start + len(view))
                    refused[rows] |= ~np.isfinite(features).all(axis=1)
                    outputs[rows] += apply_head(self.head_, features) / len(views)
        # The pixels of images that could not be read are zero.
        outputs[failed] = np.nan
        if (refused & ~failed).any():
            rows = np.flatnonzero(refused & ~failed).tolist()
            raise non_finite_error(neck, self.precision, rows)
        return _checked_outputs(self.head_, outputs, failed)

    # -- Keeping

    @survives_fork
    def save(self, path):
        """Write the fitted estimator into one file, without code in it.

        The file is a safetensors file with the tuned network (nothing of it, if it was
        left as it came), the head, the parameters and the fitted attributes. Unlike a
        pickle, it can be loaded from strangers, and by other versions of the packages
        that this one uses.

        Parameters
        ----------
        path : str or path-like
            An older file there is replaced when the new one is complete.

        Raises
        ------
        ValueError
            If a parameter is code or a handle: a transform as `augment`, a random
            generator.

        Notes
        -----
        Metadata requests (``set_fit_request``), attributes that no fit sets, and the
        parameters `cache`, `checkpoint` and `storage_options` are not saved.
        """
        check_is_fitted(self)
        save_estimator(path, self)

    @classmethod
    @survives_fork
    def load(cls, path, *, model=None):
        """Return the estimator that `save` wrote; it predicts the same to the last bit.

        Loading opens no connection and runs no code from the file. `cache`,
        `checkpoint` and `storage_options` have their defaults, and `max_pixels` is at
        most its default.

        Parameters
        ----------
        path : str or path-like
        model : torch.nn.Module or None, default=None
            A network of the user's own that the estimator was made with, with any
            weights: the file holds these, but no code. It is not changed.

        Returns
        -------
        estimator : instance of this class

        Raises
        ------
        BadFileError
            If the file is damaged, something else, from a newer version of this
            package or of another estimator.
        ValueError
            If `model` is not what the file needs.
        """
        return load_estimator(path, cls, model)

    @survives_fork
    def to_onnx(self, path):
        """Write the fitted estimator as one ONNX file, which needs no Python to run.

        Parameters
        ----------
        path : str or path-like

        Raises
        ------
        ImportError
            Without the extra ``[onnx]``.
        ValueError
            If the network does something that ONNX cannot express, or with
            `test_time_augmentation`, which needs more of an image than the file's
            network sees.

        Notes
        -----
        The input ``images`` is uint8 of shape (n, height, width, 3): RGB, already
        resized and cropped to the size that the network sees. Everything after that is
        in the file. The output, within 1e-4 of this estimator's own at
        ``precision="float32"``, is ``probabilities`` as of `predict_proba`;
        ``decision_function`` as of that method, if `loss` estimates no probabilities;
        or ``targets`` as of a regressor's `predict`. The file's metadata has how images
        are to be resized (``preprocessing``, as JSON), and a classifier's ``classes``.
        """
        check_is_fitted(self)
        if self.test_time_augmentation is not None:
            raise ValueError(
                "The 'test_time_augmentation' parameter must be None for to_onnx, as "
                "the network in the file sees one view of an image. Got "
                f"{self.test_time_augmentation!r} instead. Set it before, "
                "set_params(test_time_augmentation=None)."
            )
        neck = self._fitted_neck()
        finish, output_name, notes = self._onnx_result()
        notes = {"preprocessing": neck.preprocessing.describe(), **notes}
        export_network(path, neck, self.head_, finish, output_name, notes)

    def _onnx_result(self):
        """Return what makes the result of raw outputs, its name, and notes on it."""
        raise NotImplementedError

    @survives_fork
    def __getstate__(self):
        return pack_fitted(super().__getstate__())

    @survives_fork
    def __setstate__(self, state):
        super().__setstate__(state)
        unpack_fitted(self)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.non_deterministic = self.random_state is None
        return tags


def _refuse(failures):
    """Raise if there are images that could not be read, and so have no label."""
    if not failures:
        return
    rows = [failure.row for failure in failures]
    more = ", ..." if len(rows) > 10 else ""
    raise ValueError(
        f"{len(rows)} image(s) could not be read, so they have no label (rows "
        f"{str(rows[:10])[:-1]}{more}]). predict_proba (or decision_function) gives "
        "rows of NaN for them:\n"
        f"{list_failures(failures)}"
    )


def _checked_outputs(head, outputs, failed):
    """Return a head's outputs, which are finite but for images that failed."""
    outputs[failed] = np.nan
    refused = ~np.isfinite(outputs).all(axis=1) & ~failed
    if not refused.any():
        return outputs
    sound = all(bool(torch.isfinite(weight).all()) for weight in head.parameters())
    raise NonFiniteOutputError(
        "The features are finite, and the cause is the head that was fitted to them: "
        + ("its outputs overflow. " if sound else "its weights are NaN or infinite. ")
        + "Fit it again with a smaller 'learning_rate' or without images whose "
        "features are extremely large.",
        np.flatnonzero(refused).tolist(),
    )


def _at_rest(module):
    """Return a module that is done with training, in the main memory."""
    # Gradients are as large as the weights, and a search keeps many estimators.
    module.zero_grad(set_to_none=True)
    return module.cpu().eval().requires_grad_(False)


def _last_linear(head):
    return [layer for layer in head if isinstance(layer, nn.Linear)][-1]
