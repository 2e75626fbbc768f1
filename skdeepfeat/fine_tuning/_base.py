"""What FineTuneClassifier and FineTuneRegressor have in common."""

import numbers
import os
from collections.abc import MutableMapping
from dataclasses import replace

import pandas as pd
import torch
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.metrics import get_scorer_names
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import nn
from torchvision.models import WeightsEnum

from .._utils._choices import ON_ERROR, PRECISIONS
from .._utils._device import free_device_memory
from .._utils._forks import survives_fork
from .._utils._preprocessing import Preprocessing
from .._utils._shown import shown
from ..cache import FeatureCache, MappingCache
from ..exceptions import TrainingDivergedError
from ..feature_extraction import (
    ExtractionSettings,
    ImageEstimatorMixin,
    open_extraction,
)
from ..networks import resolve_neck
from ..training import AUGMENTATIONS, OPTIMIZERS, SCHEDULES, make_optimizer
from ._fit import Fit
from ._fit_settings import EarlierFit, FitData, FitSettings
from ._onnx import export_network
from ._outputs import compute_outputs, compute_outputs_of_views
from ._saving import (
    at_rest,
    load_estimator,
    pack_fitted,
    save_estimator,
    unpack_fitted,
)
from ._scoring import make_score
from ._targets import checked_weights, checked_y, is_given
from ._views import VIEWS

__all__ = ["BaseFineTune"]


_COUNT = Interval(numbers.Integral, 0, None, closed="left")
_POSITIVE_INT = Interval(numbers.Integral, 1, None, closed="left")
_FRACTION = Interval(numbers.Real, 0, 1, closed="left")
_NOT_NEGATIVE = Interval(numbers.Real, 0, None, closed="left")
_POSITIVE = Interval(numbers.Real, 0, None, closed="neither")


class BaseFineTune(
    ImageEstimatorMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    BaseEstimator,
):
    """Parameters, prediction and saving of both estimators.

    `document` adds what is documented here to their own documentation.

    Parameters
    ----------
    model : str or torch.nn.Module, default="efficientnet_lite0"
        The network whose body is used, as for `PretrainedFeatureExtractor`.
        ``"efficientnet_lite0"`` is installed with this package. Other bare names mean
        torchvision if it has them, else timm. A network of your own is copied and not
        changed. Its last linear layer counts as the old head.

    weights : str, path-like or torchvision weights, default="default"
        As for `PretrainedFeatureExtractor`.

    image_size : int, pair of int or None, default=None
        Input size in pixels, instead of the one that the weights were trained with. A
        smaller size trains faster, by the square of the ratio.

    hidden_layer_sizes : array-like of int, default=()
        Number of units of each hidden layer (ReLU) of the new head. Empty: the head is
        linear.

    dropout : float, default=0.0
        Probability, in [0, 1), that an input of a layer of the head is dropped during
        training.

    unfreeze : {"all", "gradual"}, int or None, default="all"
        What phase two trains in addition to the head. ``"all"`` is the whole body. An
        int is the number of the last stages, or all if there are fewer (see
        `skdeepfeat.list_layers`). ``"gradual"`` adds the stages one by one, from the
        last to the first, during the first half of the epochs (Howard and Ruder 2018
        [2]_). None trains the head only, and there is no phase two.

    max_epochs : int or "auto", default="auto"
        Number of epochs of phase two. ``"auto"`` chooses it such that there are about
        1,500 steps, but at least 8 and at most 30 epochs.

    batch_size : int, default=32
        Number of images in a step, over all devices. If the memory of a device is not
        enough, a batch is split and the gradients of its parts are added.

    learning_rate : float, default=4e-4
        Highest learning rate of the head in phase two.

    layer_decay : float, default=0.8
        Factor by which the learning rate shrinks from each stage to the one before it.

    optimizer : {"adamw", "adam", "sgd"}, default="adamw"
        The torch optimizer of phase two.

    optimizer_params : dict or None, default=None
        Keyword arguments for the torch optimizer, such as ``{"betas": (0.9, 0.98)}``.
        None uses the defaults of torch, and for ``"sgd"`` a Nesterov momentum of 0.9. A
        dict replaces these. The learning rate and the weight decay have parameters of
        their own.

    weight_decay : float, default=0.05
        Weight decay of kernels and matrices. Biases, normalizations, class tokens and
        position embeddings do not decay.

    schedule : {"constant", "step", "exponential", "sqrt", "inverse", "cosine", \
    "one_cycle"}, default="one_cycle"
        How the learning rate changes over the T steps of phase two. ``"constant"``
        keeps it. ``"step"`` divides it by 10 after one half and after three quarters.
        ``"exponential"`` falls to a hundredth. ``"sqrt"`` is sqrt(1 - t / T) and
        ``"inverse"`` 1 / (1 + 9 t / T). ``"cosine"`` falls to 0. ``"one_cycle"`` rises
        for 30 % of the steps and then falls to almost 0 (Smith and Topin 2018 [3]_).

    warmup : float, default=0.0
        Fraction of the steps during which the learning rate first rises linearly. Not
        used by ``"one_cycle"``, which has its own rise.

    max_grad_norm : float or None, default=1.0
        Gradients with a larger norm are scaled down to this one. None: never.

    ema_decay : float, default=0.99
        Decay of the exponential moving average of the weights, which is the result of
        the fit. With 0, the weights of the last step are the result.

    freeze_batch_norm : bool, default=True
        Whether batch normalizations of the body keep their pretrained statistics while
        their stage is trained. Their scale and shift are trained in any case. The head
        was fitted to features that use these statistics.

    augment : {"flip_crop", "trivial"}, callable or None, default="flip_crop"
        Random changes to training images. ``"flip_crop"`` takes a random part of half
        to all of the image, and mirrors every other one. ``"trivial"`` also applies one
        random operation to each image (TrivialAugment [4]_). None takes the center. A
        torchvision v2 transform is called with whole batches, uint8 tensors of shape
        (n_images, 3, height, width), and its result is cropped to the center. Training
        images are decoded and resized once, with the margin that the preprocessing of
        the network cuts off.

    mixup : float, default=0.0
        Parameter of the Beta distribution that pairs of images are mixed with (Zhang et
        al. 2018 [5]_). 0 does not mix.

    test_time_augmentation : {"flip", "flip_crop"} or None, default=None
        Average the predictions over an image and its mirror image (``"flip"``), or over
        ten views (``"flip_crop"``): the center and the four corners, each also
        mirrored.

    early_stopping : bool, default=False
        Whether to stop when the validation score has not improved for
        `n_iter_no_change` epochs, and to restore the best weights. The validation set
        is the one that is given to `fit`, else a random `validation_fraction` of the
        images.

    validation_fraction : float, default=0.1
        Fraction of the images, in (0, 1), that early stopping uses as validation set.

    n_iter_no_change : int, default=5
        Number of epochs without a better validation score before training stops.

    scoring : str, callable or None, default=None
        Score of the validation set after each epoch, which early stopping maximizes. A
        str is the name of a scorer of scikit-learn. A callable is called as
        ``scoring(estimator, X, y)``, where X holds the positions of the validation
        images, and the methods of the estimator take X or a part of it. None is the
        `score` of this estimator.

    head_epochs : int, default=20
        Number of epochs of phase one, if it trains by gradient descent. They run on
        cached features, so they take little time.

    warm_start : bool, default=False
        Whether `fit` continues with the body and head of the previous fit.

    precision : {"float32", "tf32", "bfloat16", "float16"}, default="float32"
        What the network computes in. The weights are float32 in any case (mixed
        precision). ``"tf32"`` is float32 with the factors rounded to 10 bits on NVIDIA
        GPUs that can, and float32 elsewhere.

    device : str or torch.device, default="auto"
        ``"auto"`` takes the first of cuda, mps, xpu that is there, else the CPU. Only
        one, unlike that of `PretrainedFeatureExtractor`; the Notes say how to train on
        several.

    random_state : int, RandomState instance or None, default=None
        Determines the validation set, the order of the images, augmentation, dropout
        and random heads. On one CPU, two fits with the same int are equal to the bit.

    cache : "default", path-like, FeatureCache, mapping or None, default="default"
        Where features are kept, as for `PretrainedFeatureExtractor`. Both share the
        features of the frozen body.

    checkpoint : path-like or None, default=None
        File that is written after each epoch of phase two. If it exists, the same call
        resumes from it and ends with the weights of an uninterrupted fit. The file
        remains after the fit. Delete it to start over.

    preprocessing : Preprocessing, dict, transform or None, default=None
        For a network of your own and for weights from a file, as for
        `PretrainedFeatureExtractor`.

    flat_image_shape : tuple of (int, int) or (int, int, int), or None, default=None
        (height, width) or (height, width, channels) of the images if X is a table with
        one flattened image per row. None if X is not such a table.

    max_pixels : int or None, default=89478485
        Images with more pixels are refused before they are decoded.

    storage_options : dict or None, default=None
        With None, paths in X that are addresses (``s3://...``) are bad images. With a
        dict, which may be empty, fsspec reads them, as for
        `PretrainedFeatureExtractor`. It is pickled, but neither shown nor saved.

    verbose : int, default=0
        Above 0, show progress bars.

    Attributes
    ----------
    body_ : torch.nn.Module or None
        The network with its tuned weights, on the CPU. Other pipelines can use it with
        ``PretrainedFeatureExtractor(fitted.body_)``. None if the body was not trained.

    head_ : torch.nn.Sequential
        The new head, on the CPU.

    history_ : DataFrame
        One row per epoch: phase ("head" or "body"), epoch, train_loss, validation_loss,
        validation_score, learning_rate, seconds. `partial_fit`, and `fit` with
        ``warm_start=True``, append their epochs.

    n_epochs_ : int
        Number of epochs of phase two, including those of the fits that this one
        continued.

    best_epoch_, best_validation_score_ : int, float or None
        The epoch of phase two, as counted in `history_`, whose weights were kept, and
        its score. None without early stopping.

    n_features_in_ : int
        Number of columns seen in `fit`: 1, or the length of flattened images.

    feature_names_in_ : ndarray of str, shape (n_features_in_,)
        The names of the columns, if X was a data frame.

    See Also
    --------
    PretrainedFeatureExtractor : Features of a frozen network for any estimator.

    Notes
    -----
    X may be whatever `PretrainedFeatureExtractor` takes.

    To train on several devices, start the program with ``torchrun`` or ``accelerate
    launch``. Every process holds all images, computes its part of each batch and ends
    with the same weights.

    References
    ----------
    .. [1] Kumar et al., "Fine-tuning can distort pretrained features and underperform
       out-of-distribution", ICLR 2022.
    .. [2] Howard and Ruder, "Universal language model fine-tuning for text
       classification", ACL 2018.
    .. [3] Smith and Topin, "Super-convergence: Very fast training of neural networks
       using large learning rates", 2018.
    .. [4] Müller and Hutter, "TrivialAugment: Tuning-free yet state-of-the-art data
       augmentation", ICCV 2021.
    .. [5] Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018.
    """

    _parameter_constraints: dict = {
        "model": [str, nn.Module],
        "weights": [str, os.PathLike, WeightsEnum, None],
        "image_size": [_POSITIVE_INT, "array-like", None],
        "hidden_layer_sizes": ["array-like"],
        "dropout": [_FRACTION],
        "unfreeze": [StrOptions({"all", "gradual"}), _COUNT, None],
        "max_epochs": [StrOptions({"auto"}), _COUNT],
        "batch_size": [_POSITIVE_INT],
        "learning_rate": [_POSITIVE],
        "layer_decay": [Interval(numbers.Real, 0, 1, closed="right")],
        "optimizer": [StrOptions(set(OPTIMIZERS))],
        "optimizer_params": [dict, None],
        "weight_decay": [_NOT_NEGATIVE],
        "schedule": [StrOptions(set(SCHEDULES))],
        "warmup": [_FRACTION],
        "max_grad_norm": [_POSITIVE, None],
        "ema_decay": [_FRACTION],
        "freeze_batch_norm": ["boolean"],
        "augment": [StrOptions(set(AUGMENTATIONS) - {None}), callable, None],
        "mixup": [_NOT_NEGATIVE],
        "test_time_augmentation": [StrOptions(set(VIEWS)), None],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(numbers.Real, 0, 1, closed="neither")],
        "n_iter_no_change": [_POSITIVE_INT],
        "scoring": [StrOptions(set(get_scorer_names())), callable, None],
        "head_epochs": [_COUNT],
        "warm_start": ["boolean"],
        "precision": [StrOptions(set(PRECISIONS))],
        "device": [str, torch.device],
        "random_state": ["random_state"],
        "cache": [str, os.PathLike, FeatureCache, MappingCache, MutableMapping, None],
        "checkpoint": [str, os.PathLike, None],
        "on_error": [StrOptions(set(ON_ERROR))],
        "preprocessing": [Preprocessing, dict, callable, None],
        "flat_image_shape": [tuple, list, None],
        "max_pixels": [_POSITIVE_INT, None],
        "storage_options": [dict, None],
        "verbose": ["verbose"],
    }

    # -- What the two estimators define

    _y_dtype: type | None = None

    def _learn_targets(self, y, weight, classes):
        """Set the attributes that `_encode` needs."""
        raise NotImplementedError

    def _weigh(self, y, weight):
        """Return the weights of samples, given those that the user passed."""
        return weight

    def _encode(self, y):
        """Return `Targets`."""
        raise NotImplementedError

    def _score_outputs(self, outputs, targets):
        """Return the score of raw outputs (n_samples, n_outputs), more is better."""
        raise NotImplementedError

    def _decode(self, targets):
        """Return y from `Targets`."""
        raise NotImplementedError

    def _onnx_result(self):
        """Return a module from raw outputs to results, their name, and metadata."""
        raise NotImplementedError

    # -- Fitting

    @survives_fork
    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None):
        """Fit a new head, then body and head together.

        Parameters
        ----------
        X : array-like of images, shape (n_samples,) or as the Notes say
        y : array-like, shape (n_samples,) or (n_samples, n_outputs)
            For a classifier labels of any type, or an indicator matrix of several
            labels per image. For a regressor one or several targets.
        sample_weight : array-like of shape (n_samples,), default=None
        X_val, y_val : like X and y, default=None
            A validation set, which is scored after each epoch. Early stopping uses it
            instead of a part of X.

        Returns
        -------
        self : the fitted estimator

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
        data = self._prepare(X, y, sample_weight, X_val, y_val, reset=not continues)
        return self._fit(data, continues=continues)

    def _prepare(
        self, X, y, sample_weight=None, X_val=None, y_val=None, *,
        classes=None, reset=True,
    ):  # fmt: skip
        """Return `FitData`."""
        self._validate_params()
        X = self._check_images(X, reset=reset)
        y = checked_y(self, y, X, dtype=self._y_dtype)
        weight = checked_weights(sample_weight, y)
        if reset:
            self._learn_targets(y, weight, classes)
        data = FitData(X, self._encode(y), self._weigh(y, weight))
        if not is_given(X_val, y_val):
            return data
        X_val = self._check_images(X_val, reset=False)
        y_val = checked_y(self, y_val, X_val, "y_val", dtype=self._y_dtype)
        return replace(data, X_val=X_val, targets_val=self._encode(y_val))

    def _fit(self, data, settings=None, *, continues):
        """Fit head and body to `FitData`."""
        fit = self._begin_fit(data, settings or self._fit_settings(), continues)
        try:
            fit.run()
        except TrainingDivergedError:
            if fit.head is not None:
                self._keep(fit)
            raise
        self._keep(fit)
        return self

    def _begin_fit(self, data, settings, continues):
        earlier = None
        if continues:
            earlier = EarlierFit(
                self.head_,
                self.body_,
                self.history_.to_dict("records"),
                self.n_epochs_,
                self.best_epoch_,
                self.best_validation_score_,
            )
        return Fit(
            settings,
            data,
            self._fitted_neck() if continues else self._resolve_neck(),
            extraction=self._extraction_settings(),
            cache=self.cache,
            random_state=self.random_state,
            score=make_score(self, settings.scoring),
            earlier=earlier,
        )

    def _continues(self):
        """Whether `fit` continues an earlier one."""
        return self.warm_start and hasattr(self, "head_")

    def _fit_settings(self):
        return FitSettings.from_params(self.get_params(deep=False))

    def _settings_of_part(self):
        """Return the settings of `partial_fit`."""
        return replace(
            self._fit_settings(),
            max_epochs=1,
            schedule="constant",
            warmup=0.0,
            early_stopping=False,
            checkpoint=None,
        )

    def _keep(self, fit):
        self.head_ = at_rest(fit.head)
        self.body_ = None if fit.body is None else at_rest(fit.body)
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
        # The error about `optimizer_params` comes before any image is read.
        parameter = [("weight", nn.Parameter(torch.zeros(1)))]
        make_optimizer(
            self.optimizer,
            [parameter],
            learning_rate=self.learning_rate,
            params=self.optimizer_params,
        )

    def _resolve_neck(self, needs_weights=True):
        return resolve_neck(
            self.model,
            weights=self.weights,
            image_size=self.image_size,
            preprocessing=self.preprocessing,
            random_state=0,
            needs_weights=needs_weights,
            # From a loaded file, so that loading opens no connection.
            hub_config=getattr(self, "_hub_config", None),
        )

    def _extraction_settings(self):
        return ExtractionSettings(
            flat_image_shape=self.flat_image_shape,
            max_pixels=self.max_pixels,
            storage_options=self.storage_options,
            device=self.device,
            precision=self.precision,
            on_error=self.on_error,
            verbose=int(self.verbose),
        )

    def _fitted_neck(self):
        if self.body_ is None:
            return self._resolve_neck()
        return self._resolve_neck(needs_weights=False).with_network(self.body_)

    # -- Predicting

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
        neck, settings = self._fitted_neck(), self._extraction_settings()
        with open_extraction(X, neck, self.cache, settings) as extraction:
            return extraction.features()

    def _inspected(self, X):
        """Return X as checked, the neck and the settings, to look into the network."""
        check_is_fitted(self)
        if X is not None:
            X = self._check_images(X, reset=False)
        return X, self._fitted_neck(), self._extraction_settings()

    def _outputs(self, X, *, refuse_failures=False):
        """Return the raw outputs of the head; see `compute_outputs`."""
        check_is_fitted(self)
        X = self._check_images(X, reset=False)
        neck, settings = self._fitted_neck(), self._extraction_settings()
        if self.test_time_augmentation is not None:
            return compute_outputs_of_views(
                X,
                neck,
                self.head_,
                settings,
                self.test_time_augmentation,
                refuse_failures=refuse_failures,
            )
        # Features of a tuned body are seldom needed twice, except after an error about
        # a broken image. Those of the body as it was are the extractor's.
        keeps = self.body_ is None or self.on_error == "nan"
        cache = self.cache if keeps else None
        return compute_outputs(
            X, neck, self.head_, settings, cache, refuse_failures=refuse_failures
        )

    # -- Saving

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
