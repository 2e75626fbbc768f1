"""What FineTuneClassifier and FineTuneRegressor have in common."""

import numpy as np
import pandas as pd
from sklearn.utils.validation import (
    check_consistent_length,
    check_is_fitted,
    validate_data,
)
from torch import nn

from .._utils._callbacks import FitCallbacks, LearnedTransformer, with_callbacks
from .._utils._columns import given_together
from .._utils._device import free_device_memory
from .._utils._parameter_errors import choice_error
from .._utils._public_function import public_function
from .._utils._shown import shown
from ..exceptions import TrainingDivergedError
from ..feature_extraction import (
    DescribedMixin,
    ExtractionSettings,
    ImageEstimatorMixin,
    errors_about,
)
from ..networks import RowNeck
from ._export import check_export, make_export
from ._fit import Fit
from ._fit_settings import FitData, FitSettings
from ._onnx import check_onnx_installed, write_onnx
from ._openvino import check_openvino_installed, write_openvino
from ._outputs import compute_outputs, compute_outputs_of_views
from ._parameters import FineTuneParameters
from ._rows import are_rows, check_row_parameters, open_features, refuse_rows
from ._saving import at_rest, load_estimator, pack_fitted, save_estimator, unpack_fitted
from ._targets import checked_weights, checked_y
from ._teachers import Teachers, frozen


class BaseFineTune(
    FineTuneParameters, DescribedMixin, ImageEstimatorMixin, LearnedTransformer
):
    """Fit, prediction and saving of both estimators."""

    # -- Defined by the two estimators

    _y_dtype: type | None = None

    # Whether X holds rows of numbers; each fit decides.
    _takes_rows = False

    def _learn_targets(self, y, weight, classes):
        """Set the attributes that `_encode` needs."""

    def _weigh(self, y, weight):
        """Return the weights of samples, given those that the user passed."""
        return weight

    def _encode(self, y):
        """Return `Targets`."""

    def _score_outputs(self, outputs, targets):
        """Return the score of raw outputs (n_samples, n_outputs), more is better."""

    def _decode(self, targets):
        """Return y from `Targets`."""

    def _predictions(self, outputs):
        """Return probabilities or targets of raw outputs, (n_samples, n_outputs)."""

    def _export_result(self):
        """Return a module from raw outputs to results, their name, and metadata."""

    def _outputs_of_results(self, results):
        """Return raw outputs from the results of an exported file."""

    # -- Parameters

    def get_params(self, deep=True):
        """Return the parameters of this estimator.

        Parameters
        ----------
        deep : bool, default=True
            Ignored. Only `teacher` is an estimator. It is fitted, so its parameters
            cannot be set.

        Returns
        -------
        params : dict
            `teacher` is returned in a `sklearn.frozen.FrozenEstimator`, which clones
            share instead of copying it. `cache` and `storage_options` are returned as
            by `PretrainedFeatureExtractor`.
        """
        params = super().get_params(deep=False)
        return {**params, "teacher": frozen(params["teacher"])}

    # -- Fitting

    @public_function
    @with_callbacks
    def fit(
        self, X, y, sample_weight=None, *, X_val=None, y_val=None, X_probe=None,
        X_unlabeled=None,
    ):  # fmt: skip
        """Fit a new head, then train body and head together.

        Parameters
        ----------
        X : array-like of images, shape (n_samples,) or as the Notes say
            The images.
        y : array-like, shape (n_samples,) or (n_samples, n_outputs)
            For a classifier labels of any type, or an indicator matrix of several
            labels per image. For a regressor one or several targets.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples. None weights all alike.
        X_val, y_val : like X and y, default=None
            A validation set, which is scored after each epoch. Early stopping uses it
            instead of a part of X.
        X_probe : like X, default=None
            Images whose predictions are recorded after each epoch, in
            `probe_predictions_`. The network does not learn from them. In a
            cross-validation, scikit-learn slices every argument of `fit` that is as
            long as X, as it does with `sample_weight`. So use a number of probe images
            that differs from the length of X.
        X_unlabeled : like X, default=None
            Images without labels, for which the network learns only the predictions of
            the `teacher`. Each has the average weight of the images of X. In a
            cross-validation, they are sliced like `X_probe` if there are as many as in
            X.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        BadImageError
            With ``on_error="raise"``: an image cannot be read.
        TrainingDivergedError
            The loss, or an output for the validation set, is NaN or infinite. The
            estimator is still fitted, with the weights of the last good epoch.
        NonFiniteOutputError
            The network returns NaN or infinite values for an image that can be read,
            whatever `on_error` is. The estimator is not changed.
        OutOfMemoryError
            Not even one image can be trained in the memory of the device.
        """
        continues = self._continues()
        data = self._prepare(
            X, y, sample_weight, X_val, y_val, X_probe, X_unlabeled,
            reset=not continues,
        )  # fmt: skip
        settings = FitSettings.of(self)
        n_phases = int(not continues) + settings.trains_body
        callbacks = FitCallbacks(self, n_phases, X, y, sample_weight)
        self._fit(data, settings, continues=continues, callbacks=callbacks)
        callbacks.close()
        return self

    def _prepare(
        self, X, y, sample_weight=None, X_val=None, y_val=None, X_probe=None,
        X_unlabeled=None, *, classes=None, reset=True,
    ):  # fmt: skip
        """Return `FitData`."""
        self._validate_params()
        # As given by the user, for teachers whose input is not images.
        originals = {"X": X, "X_unlabeled": X_unlabeled}
        if X_unlabeled is not None and self.teacher is None:
            raise ValueError(
                "X_unlabeled must be None without a 'teacher', because only the "
                "predictions of a teacher can be learned for images without labels. "
                f"Pass a fitted estimator as 'teacher' to {type(self).__name__}."
            )
        X = self._check_images(X, reset=reset)
        y = checked_y(self, y, X, dtype=self._y_dtype)
        weight = checked_weights(sample_weight, y)
        if reset:
            self._learn_targets(y, weight, classes)
        if X_probe is not None:
            with errors_about("X_probe"):
                X_probe = self._check_images(X_probe, reset=False)
        if X_unlabeled is not None:
            if hasattr(X_unlabeled, "__len__") and len(X_unlabeled) == 0:
                raise ValueError(
                    "X_unlabeled must have at least one image, or be None. Got an "
                    f"empty {type(X_unlabeled).__name__} instead."
                )
            with errors_about("X_unlabeled"):
                X_unlabeled = self._check_images(X_unlabeled, reset=False)
        targets, teachers = self._encode(y), None
        if self.teacher is not None:
            teachers = Teachers(self, targets, originals)
        weights, targets_val = self._weigh(y, weight), None
        if given_together(X_val=X_val, y_val=y_val):
            with errors_about("X_val"):
                X_val = self._check_images(X_val, reset=False)
            with errors_about("X_val and y_val"):
                check_consistent_length(X_val, y_val)
            y_val = checked_y(self, y_val, X_val, "y_val", dtype=self._y_dtype)
            with errors_about("y_val", instead_of="y"):
                targets_val = self._encode(y_val)
        return FitData(
            X, targets, weights, X_val, targets_val, X_probe, X_unlabeled, teachers
        )

    def _fit(self, data, settings, *, continues, callbacks=None):
        """Fit head and body to `FitData`."""
        if continues and settings.unfreeze in (None, 0):
            raise choice_error(
                "unfreeze",
                "neither None nor 0 if a fit is continued (partial_fit, warm_start), "
                "because only the first one fits the head alone, and these images "
                "would be ignored. Call fit, without warm_start, with all images",
                settings.unfreeze,
            )
        fit = Fit(self, data, settings, continues=continues, callbacks=callbacks)
        try:
            fit.run()
        except TrainingDivergedError:
            if fit.result.head is not None:
                self._keep(fit)
            raise
        self._keep(fit)
        return self

    def _continues(self):
        """Whether `fit` continues an earlier one."""
        return self.warm_start and hasattr(self, "head_")

    def _settings_of_part(self):
        """Return the settings of `partial_fit`."""
        return FitSettings.of(
            self,
            max_epochs=1,
            schedule="constant",
            warmup=0.0,
            early_stopping=False,
            checkpoint=None,
        )

    def _keep(self, fit):
        vars(self).update(self._fitted_attributes(fit, fit.result))
        # They describe the network before this fit.
        for name in ("compression_report_", "compression_summary_"):
            vars(self).pop(name, None)
        free_device_memory(fit.device)

    def _fitted_attributes(self, fit, result):
        """Return the fitted attributes of a `FitResult`."""
        probes = None
        if fit.data.X_probe is not None and result.probes:
            # An earlier fit may have had another number of probe images.
            n_images = len(result.probes[-1])
            probes = np.stack([one for one in result.probes if len(one) == n_images])
        return {
            "head_": at_rest(result.head),
            "body_": None if result.body is None else at_rest(result.body),
            "history_": pd.DataFrame(result.history),
            "n_epochs_": result.n_epochs,
            "best_epoch_": result.best_epoch,
            "best_validation_score_": result.best_score,
            "probe_predictions_": probes,
            "_n_features_out": fit.neck.n_features()[0],
            "_hub_config": None if self._takes_rows else fit.neck.spec.hub_config,
            "_fitted_model": self.model if isinstance(self.model, str) else None,
        }

    def _check_images(self, X, *, reset):
        """Check the form of X: images, or rows of numbers."""
        if reset:
            is_own = isinstance(self.model, nn.Module)
            is_table = is_own and self.flat_image_shape is None and are_rows(X)
            self._takes_rows = is_table
        if not self._takes_rows:
            return super()._check_images(X, reset=reset)
        check_row_parameters(self)
        X = validate_data(self, X, reset=reset, dtype=np.float32)
        # Those of frames may be read-only, of which torch warns.
        return np.require(X, requirements="W")

    def _resolve_neck(self, needs_weights=True):
        if self._takes_rows:
            return RowNeck(self.model, self.n_features_in_)
        # From a loaded file, so that loading opens no connection.
        hub_config = getattr(self, "_hub_config", None)
        return self._neck_of_parameters(
            needs_weights=needs_weights, hub_config=hub_config
        )

    def _extraction_settings(self):
        # The parameter `batch_size` is the batch size of the training.
        return ExtractionSettings.of(self, batch_size="auto")

    def _fitted_neck(self):
        # Files of older versions lack it.
        fitted_model = getattr(self, "_fitted_model", None)
        if fitted_model is not None and self.model != fitted_model:
            raise ValueError(
                "The 'model' parameter must be that of the fit, "
                f"{shown(fitted_model)}, until it is fitted again: call fit, or set it "
                f"back. Got {shown(self.model)} instead."
            )
        if self.body_ is None:
            return self._resolve_neck()
        return self._resolve_neck(needs_weights=False).with_network(self.body_)

    # -- Predicting

    @public_function
    def transform(self, X):
        """Return the features of the tuned neck, which enter the head.

        Parameters
        ----------
        X : array-like of images, shape (n_samples,) or as for `fit`
            The images.

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
        neck, settings = self._fitted_neck(), self._extraction_settings()
        with open_features(X, neck, self.cache, settings) as extraction:
            return extraction.features()

    def _inspected(self, X):
        """Return X as checked, the neck and the settings, to look into the network."""
        check_is_fitted(self)
        refuse_rows(self, "functions that look into the network")
        if X is not None:
            X = self._check_images(X, reset=False)
        return X, self._fitted_neck(), self._extraction_settings()

    def _training_in_words(self):
        if self.body_ is None:
            return "the head"
        what = "all stages" if self.unfreeze == "all" else f"unfreeze={self.unfreeze!r}"
        return f"the head and {what}; epochs: {self.n_epochs_}"

    def _outputs(self, X, *, refuse_failures=False):
        """Return the raw outputs of the head; see `compute_outputs`."""
        check_is_fitted(self)
        X = self._check_images(X, reset=False)
        neck, settings = self._fitted_neck(), self._extraction_settings()
        if (views := self.test_time_augmentation) is not None:
            return compute_outputs_of_views(
                X, neck, self.head_, settings, views, refuse_failures=refuse_failures
            )
        # Features of a tuned body are rarely needed twice, except after an error about
        # a broken image. Those of the original body are the same as the extractor's.
        keeps = self.body_ is None or self.on_error == "nan"
        cache = self.cache if keeps else None
        return compute_outputs(
            X, neck, self.head_, settings, cache, refuse_failures=refuse_failures
        )

    # -- Saving

    @public_function
    def save(self, path):
        """Write the fitted estimator into one file, without code in it.

        The safetensors file holds the head, the parameters, the fitted attributes and,
        if the body was trained, the tuned network. Unlike a pickle, a file from a
        stranger can be loaded safely. It can also be loaded with other versions of the
        packages that this one uses.

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
        parameters `cache`, `checkpoint`, `storage_options` and `teacher` are not saved.
        """
        check_is_fitted(self)
        save_estimator(path, self)

    @classmethod
    @public_function
    def load(cls, path, *, model=None):
        """Return the estimator that `save` wrote; it predicts the same to the last bit.

        Loading opens no connection and runs no code from the file. `cache`,
        `checkpoint`, `storage_options` and `teacher` have their defaults, and
        `max_pixels` is at most its default.

        Parameters
        ----------
        path : str or path-like
            The file that `save` wrote.
        model : torch.nn.Module or None, default=None
            Your own network, if the estimator was created with one. Its weights do not
            matter: the file has the weights, but no code. It is not changed.

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

    @public_function
    def to_onnx(self, path, dtype="float32", X_calibration=None):
        """Write the fitted estimator as one ONNX file, which runs without Python.

        Parameters
        ----------
        path : str or path-like
            It must end in ``".onnx"``. An older file there is replaced when the new one
            is complete.
        dtype : {"float32", "float16", "int8"}, default="float32"
            * ``"float16"``: weights are stored in half the bytes. The computations are
              in float32, so nothing becomes faster or overflows.
            * ``"int8"``: layers compute with 8-bit integers. This takes a quarter of
              the bytes, and less time on processors with instructions for them. Results
              differ by a few percent. `skdeepfeat.compression.export_report` shows the
              loss. ONNX Runtime quantizes the trained weights.
        X_calibration : array-like of images, default=None
            For ``dtype="int8"`` only: at least 10 images, as for `predict`, which
            determine the ranges that the 8 bits span. About a hundred of the training
            images are enough. At most 300 are used, spread over X.

        Raises
        ------
        BadImageError
            With ``on_error="raise"``, if an image of `X_calibration` cannot be read.
            With ``"nan"`` it is left out.
        ImportError
            Without the extra ``[onnx]`` or, for ``dtype="int8"``, ``[int8]``.
        ValueError
            If the network does something that ONNX cannot express, if a weight is too
            large for float16, or with `test_time_augmentation`, which needs more of an
            image than the exported network sees.

        See Also
        --------
        skdeepfeat.compression.export_report : Scores, sizes and times of such files.

        Notes
        -----
        The input ``images`` is uint8 of shape (n, height, width, 3): RGB, already
        resized and cropped to the size that the network sees. Everything after that is
        in the file. The output is ``probabilities``, as of `predict_proba`;
        ``decision_function``, as of that method, if `loss` estimates no probabilities;
        or ``targets``, as of a regressor's `predict`. With ``precision="float32"`` and
        ``dtype="float32"``, it is within 1e-4 of this estimator's own. The metadata of
        the file have ``preprocessing`` (how to resize images, as JSON), ``dtype``, and
        the ``classes`` of a classifier.
        """
        check_export("to_onnx", ".onnx", path, dtype, X_calibration)
        check_onnx_installed(dtype)
        write_onnx(path, make_export("to_onnx", self, dtype, X_calibration))

    @public_function
    def to_openvino(self, path, dtype="float32", X_calibration=None):
        """Write the fitted estimator as a pair of files for OpenVINO.

        Parameters
        ----------
        path : str or path-like
            The file of the graph. It must end in ``".xml"``. The weights are next to
            it, in a file that ends in ``".bin"``. Older files there are replaced when
            the new ones are complete.
        dtype, X_calibration
            As for `to_onnx`. For ``"int8"``, NNCF quantizes the trained weights.

        Raises
        ------
        BadImageError
            As of `to_onnx`.
        ImportError
            Without the extra ``[openvino]`` or, for ``dtype="int8"``, ``[int8]``.
        ValueError
            As of `to_onnx`.

        See Also
        --------
        skdeepfeat.compression.export_report : Scores, sizes and times of such files.

        Notes
        -----
        Input, output and metadata are those of `to_onnx`; the metadata are in the
        graph's runtime information, under ``skdeepfeat``. OpenVINO computes in bfloat16
        on processors that can, unless its property ``INFERENCE_PRECISION_HINT`` is
        ``"f32"``. No usage statistics are sent.
        """
        check_export("to_openvino", ".xml", path, dtype, X_calibration)
        check_openvino_installed(dtype)
        write_openvino(path, make_export("to_openvino", self, dtype, X_calibration))

    @public_function
    def __getstate__(self):
        return pack_fitted(super().__getstate__())

    @public_function
    def __setstate__(self, state):
        super().__setstate__(state)
        unpack_fitted(self)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.non_deterministic = self.random_state is None
        return tags
