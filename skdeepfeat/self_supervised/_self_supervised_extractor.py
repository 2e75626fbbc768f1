"""SelfSupervisedExtractor: a network that goes on learning from unlabeled images."""

import numpy as np
import pandas as pd
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import _num_samples, check_is_fitted

from .._utils._callbacks import FitCallbacks, LearnedTransformer, with_callbacks
from .._utils._choices import DEFAULT_MAX_PIXELS
from .._utils._columns import check_column, given_together
from .._utils._constraints import AT_LEAST_2, POSITIVE_INT
from .._utils._device import free_device_memory
from .._utils._parameter_errors import check_sizes
from .._utils._public_function import public_function
from .._utils._shown import shown
from .._utils._warn import warn
from ..exceptions import TrainingDivergedError
from ..feature_extraction import (
    DescribedMixin,
    ExtractionSettings,
    ImageEstimatorMixin,
    PretrainedFeatureExtractor,
    inspected,
    load_readable,
)
from ..fine_tuning import BODY_CONSTRAINTS, at_rest, with_margin
from ..training import PAIR_LOSSES, unfrozen_parts
from ._pretraining import Pretraining, PretrainingSettings
from ._probe import Probe

_MIN_IMAGES = 4

# Below half the spread of even points, embeddings have begun to collapse.
_COLLAPSED = 0.5

# The parameters that the extraction of features shares.
_OF_EXTRACTION = (
    "device", "cache", "on_error", "precision", "flat_image_shape", "max_pixels",
    "storage_options", "verbose",
)  # fmt: skip

_HISTORY = [
    "epoch", "train_loss", "alignment", "uniformity", "effective_rank", "spread",
    "learning_rate", "seconds",
]  # fmt: skip


class SelfSupervisedExtractor(DescribedMixin, ImageEstimatorMixin, LearnedTransformer):
    """A pretrained network that is trained further on images without labels.

    `fit` shows the network two random views of each image. It trains the network to
    give both views the same embedding, and different images different embeddings.
    `transform` returns the features of the trained body, which are cached.

    With a few thousand images, this helps if they are far from ImageNet, and may make
    the features worse if they are not. Pass a few labeled images to `fit` as `X_probe`
    and `y_probe`: it scores both networks on them, warns if the training lowered the
    score, and by default keeps the better network.

    Parameters
    ----------
    model : str or torch.nn.Module, default="efficientnet_lite0"
        The network, as for `PretrainedFeatureExtractor`. It is not changed.

    method : {"vicreg", "barlow", "simclr", "align_uniform", "byol"}, default="vicreg"
        The loss that compares the embeddings of two views: VICReg [1]_, Barlow Twins
        [2]_, SimCLR [3]_, alignment and uniformity on the sphere [4]_, or BYOL [5]_.
        The first two work with small batches. SimCLR compares each image with the
        others of its batch, and needs at least 256 of them.

    weights : str, path-like or torchvision weights, default="default"
        As for `PretrainedFeatureExtractor`. ``"random"`` trains from scratch.

    image_size : int, pair of int or None, default=None
        Input size in pixels, instead of the one that the weights were trained with. An
        epoch takes about six times as long as a `transform`.

    projection : tuple of int, default=(512, 512)
        Number of units of the layers between body and embedding. They are discarded
        after the fit.

    unfreeze : "auto", str, int, or tuple of (str or int), default="auto"
        Which stages are trained, as for `FineTuneClassifier`. ``"auto"`` means the last
        two, or all stages with random weights.

    max_epochs : int, default=10
        Number of epochs.

    batch_size : int, default=64
        Number of images in a step, at least 2. If a device runs out of memory, the
        batch is split, and views are compared only within each part.

    learning_rate : float, default=4e-4
        Highest learning rate of the projection. It follows a one-cycle schedule.

    layer_decay : float, default=0.8
        Factor by which the learning rate shrinks from each stage to the one before it.

    weight_decay : float, default=0.05
        Weight decay of kernels and matrices (AdamW).

    ema_decay : float, default=0.99
        Decay of the moving average of the weights, which is the result of the fit. With
        0, the last weights are the result.

    freeze_batch_norm : bool or "auto", default="auto"
        Whether batch normalizations keep their statistics. ``"auto"`` means True, or
        False with random weights.

    augment : "views" or callable, default="views"
        How views are drawn. ``"views"`` takes a random part of at least a fifth of the
        image, mirrors it, and changes brightness, contrast, saturation and hue; some
        views become gray or blurred. A callable, such as a torchvision v2 transform,
        turns a uint8 tensor (n_images, 3, height, width) into another one. It
        determines what the features must not depend on.

    keep_best : bool, default=True
        Whether to restore the original network if the probe scores it higher.

    precision : {"float32", "tf32", "bfloat16", "float16"}, default="float32"
        The precision of training and `transform`.

    device : str or torch.device, default="auto"
        ``"auto"`` selects the first of cuda, mps and xpu that is available, and the CPU
        otherwise.

    random_state : int, RandomState instance or None, default=None
        Determines the projection, the order of the images, and the views.

    cache : "default", path-like, FeatureCache, mapping or None, default="default"
        Where features are stored, as for `PretrainedFeatureExtractor`.

    checkpoint : path-like or None, default=None
        File that is written after each epoch. If it exists, the same call resumes from
        it. Delete it to start over.

    on_error : {"raise", "nan"}, default="raise"
        What to do with an image that cannot be read: raise a `BadImageError`, or leave
        it out of the training and return a row of NaN for it, with one warning.

    preprocessing : Preprocessing, dict, transform or None, default=None
        For a network of your own and for weights from a file, as for
        `PretrainedFeatureExtractor`.

    flat_image_shape : tuple of (int, int) or (int, int, int), or None, default=None
        (height, width) or (height, width, channels) of the images if X is a table with
        one flattened image per row.

    max_pixels : int or None, default=89478485
        Images with more pixels are refused before they are decoded.

    storage_options : dict or None, default=None
        As for `PretrainedFeatureExtractor`.

    verbose : int, default=0
        Above 0, show progress bars.

    Attributes
    ----------
    body_ : torch.nn.Module
        The trained network, on the CPU. ``PretrainedFeatureExtractor(fitted.body_,
        preprocessing=fitted.preprocessing_)`` and ``FineTuneClassifier(fitted.body_,
        preprocessing=fitted.preprocessing_)`` continue from it.

    preprocessing_ : Preprocessing
        How images are prepared for it.

    history_ : DataFrame
        One row per epoch: ``epoch``, ``train_loss``, ``learning_rate`` and ``seconds``;
        and of the embeddings of up to 256 images, ``alignment`` (mean squared distance
        of two views on the unit sphere), ``uniformity`` (smaller is more even),
        ``effective_rank`` (number of dimensions in use) and ``spread`` (1: even; 0: all
        are equal).

    n_epochs_ : int
        Number of epochs that were trained.

    probe_score_before_, probe_score_after_ : float or None
        Cross-validated score of a linear model on the features of `X_probe` (accuracy
        or R²), before and after the training.

    kept_original_ : bool
        Whether `body_` is the original network, because the probe scored it higher.

    n_features_in_ : int
        Number of columns of X: 1, or the length of flat rows.

    feature_names_in_ : ndarray of str, shape (n_features_in_,)
        The names of the columns, if X was a data frame.

    See Also
    --------
    Autoencoder : Codes of rows of numbers.
    PretrainedFeatureExtractor : The features of the original network.
    FineTuneClassifier : Training with labels.

    Notes
    -----
    `groups` and `X_probe` are metadata: inside a Pipeline or a search, request them
    with ``set_fit_request(groups=True)``. scikit-learn's cross-validation slices every
    fit argument that is as long as X. That is right for `groups`, but an `X_probe` that
    is as long as X by chance is sliced as well.

    With scikit-learn 1.9 and newer, ``set_callbacks`` takes its callbacks, such as
    `sklearn.callback.ProgressBar`. The tasks of `fit` are its phases, and their tasks
    are epochs. A callback whose ``on_fit_task_end`` returns True ends the phase.

    References
    ----------
    .. [1] A. Bardes, J. Ponce and Y. LeCun, "VICReg: Variance-invariance-covariance
       regularization for self-supervised learning", ICLR 2022.
    .. [2] J. Zbontar et al., "Barlow Twins: Self-supervised learning via redundancy
       reduction", ICML 2021.
    .. [3] T. Chen et al., "A simple framework for contrastive learning of visual
       representations", ICML 2020.
    .. [4] T. Wang and P. Isola, "Understanding contrastive representation learning
       through alignment and uniformity on the hypersphere", ICML 2020.
    .. [5] J.-B. Grill et al., "Bootstrap your own latent: A new approach to
       self-supervised learning", NeurIPS 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from skdeepfeat import SelfSupervisedExtractor
    >>> X = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    >>> extractor = SelfSupervisedExtractor(image_size=32, max_epochs=1, cache=None)
    >>> extractor.fit_transform(X).shape
    (8, 1280)
    """

    _parameter_constraints: dict = {
        **BODY_CONSTRAINTS,
        "method": [StrOptions(set(PAIR_LOSSES))],
        "projection": ["array-like"],
        "unfreeze": [str, POSITIVE_INT, tuple, list],
        "max_epochs": [POSITIVE_INT],
        "batch_size": [AT_LEAST_2],
        "freeze_batch_norm": ["boolean", StrOptions({"auto"})],
        "augment": [StrOptions({"views"}), callable],
        "keep_best": ["boolean"],
    }

    def __init__(
        self,
        model="efficientnet_lite0",
        *,
        method="vicreg",
        weights="default",
        image_size=None,
        projection=(512, 512),
        unfreeze="auto",
        max_epochs=10,
        batch_size=64,
        learning_rate=4e-4,
        layer_decay=0.8,
        weight_decay=0.05,
        ema_decay=0.99,
        freeze_batch_norm="auto",
        augment="views",
        keep_best=True,
        precision="float32",
        device="auto",
        random_state=None,
        cache="default",
        checkpoint=None,
        on_error="raise",
        preprocessing=None,
        flat_image_shape=None,
        max_pixels=DEFAULT_MAX_PIXELS,
        storage_options=None,
        verbose=0,
    ):
        self.model = model
        self.method = method
        self.weights = weights
        self.image_size = image_size
        self.projection = projection
        self.unfreeze = unfreeze
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.layer_decay = layer_decay
        self.weight_decay = weight_decay
        self.ema_decay = ema_decay
        self.freeze_batch_norm = freeze_batch_norm
        self.augment = augment
        self.keep_best = keep_best
        self.precision = precision
        self.device = device
        self.random_state = random_state
        self.cache = cache
        self.checkpoint = checkpoint
        self.on_error = on_error
        self.preprocessing = preprocessing
        self.flat_image_shape = flat_image_shape
        self.max_pixels = max_pixels
        self.storage_options = storage_options
        self.verbose = verbose

    @public_function
    @with_callbacks
    def fit(self, X, y=None, *, groups=None, X_probe=None, y_probe=None):
        """Train the network on images.

        Parameters
        ----------
        X : array-like of images, shape (n_samples,)
            As for `PretrainedFeatureExtractor`.
        y : None
            Ignored.
        groups : array-like, shape (n_samples,), default=None
            Images of one group show the same thing, such as frames of a video or
            photographs of one product. The two views are then of different images of a
            group. Each group must have at least two images.
        X_probe : array-like of images, shape (n_probe,), default=None
            A few labeled images, which are not used for training. They may have another
            form than X, such as files instead of arrays.
        y_probe : array-like, shape (n_probe,), default=None
            Their labels, or numbers for a regression.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        ValueError
            If there are fewer than 4 images, or all are the same, or a group has one
            image, or there is only one group, or `y_probe` has too few labels.
        BadImageError
            With ``on_error="raise"``, at the first image that cannot be read.
        TrainingDivergedError
            If the loss is NaN or infinite. The estimator then has the weights of the
            last good epoch.
        NonFiniteOutputError
            If the network returns NaN or infinite values for images that can be read.

        Warns
        -----
        RuntimeWarning
            If the embeddings collapse, if the probe scores less after the training, or
            if the training is interrupted.
        """
        self._validate_params()
        callbacks = FitCallbacks(self, 1, X, y)
        X = self._check_images(X, reset=True)
        is_probed = given_together(X_probe=X_probe, y_probe=y_probe)
        probe = Probe(X_probe, y_probe) if is_probed else None
        settings = self._training_settings()
        neck = self._neck_of_parameters()
        training = Pretraining(settings, neck, self.device, self.random_state)
        # Errors about stages, groups and probe come before the images are decoded.
        trial = neck.trainable()
        trial.train_parts(unfrozen_parts(settings.unfreeze, trial.n_stages, 0, 1))
        groups = None if groups is None else _check_groups(groups, X)
        original = at_rest(neck.trainable().network)
        before = self._probe_score(probe, original, neck.preprocessing)
        pixels, rows = load_readable(
            X,
            with_margin(neck.preprocessing),
            ExtractionSettings.of(self, device=training.device),
            in_training=True,
        )
        _check_variety(pixels, rows)
        codes = None if groups is None else _group_codes(groups, rows)

        def attributes(body, history):
            return {
                "body_": at_rest(body),
                "preprocessing_": neck.preprocessing,
                "history_": pd.DataFrame(history, columns=_HISTORY),
                "n_epochs_": len(history),
                "probe_score_before_": before,
                "probe_score_after_": None,
                "kept_original_": False,
                "_n_features_out": neck.n_features()[0],
            }

        try:
            training.run(pixels, rows, codes, callbacks, attributes)
        except TrainingDivergedError:
            if not training.history:
                # Raises if the network is the cause, and not the training.
                self._extractor(original, neck.preprocessing).fit_transform(X)
            raise
        finally:
            if training.body is not None:
                vars(self).update(attributes(training.body, training.history))
            free_device_memory(training.device)
        callbacks.close()
        self._warn_of_collapse()
        after = self._probe_score(probe, self.body_, neck.preprocessing)
        self.probe_score_after_ = after
        if probe is not None and after < before:
            self._refuse_worse(original)
        return self

    @public_function
    def transform(self, X):
        """Return the features of the trained network.

        Parameters
        ----------
        X : array-like of images, shape (n_samples,)
            As for `fit`.

        Returns
        -------
        ndarray of float32, shape (n_samples, n_features_out)
            Cached separately from those of the original network.
        """
        check_is_fitted(self)
        X = self._check_images(X, reset=False)
        return self._extractor(self.body_, self.preprocessing_).fit_transform(X)

    def _inspected(self, X):
        """Return X as checked, the neck and the settings, to look into the network."""
        check_is_fitted(self)
        return inspected(self._extractor(self.body_, self.preprocessing_), X)

    def _training_in_words(self):
        return f"{self.method}, unfreeze={self.unfreeze!r}; epochs: {self.n_epochs_}"

    def _extractor(self, body, preprocessing):
        own = {name: getattr(self, name) for name in _OF_EXTRACTION}
        return PretrainedFeatureExtractor(body, preprocessing=preprocessing, **own)

    def _training_settings(self):
        is_random = self.weights == "random"
        unfreeze, freeze_batch_norm = self.unfreeze, self.freeze_batch_norm
        if isinstance(unfreeze, str) and unfreeze == "auto":
            unfreeze = "all" if is_random else 2
        if freeze_batch_norm == "auto":
            freeze_batch_norm = not is_random
        return PretrainingSettings.of(
            self,
            projection=tuple(check_sizes("projection", self.projection, 2)),
            unfreeze=unfreeze,
            freeze_batch_norm=freeze_batch_norm,
        )

    def _probe_score(self, probe, body, preprocessing):
        if probe is None:
            return None
        return probe.score(self._extractor(body, preprocessing))

    def _warn_of_collapse(self):
        if self.n_epochs_ and self.history_["spread"].iloc[-1] < _COLLAPSED:
            other = "" if self.method == "vicreg" else "method='vicreg', "
            warn(
                "The embeddings have begun to collapse: their spread is "
                f"{self.history_['spread'].iloc[-1]:.2f}, where 1 is even. Choose "
                f"{other}a smaller 'learning_rate', a larger 'batch_size' or stronger "
                "views.",
                RuntimeWarning,
            )

    def _refuse_worse(self, original):
        """Warn that the features got worse, and restore the network if requested."""
        before, after = self.probe_score_before_, self.probe_score_after_
        ending = "The trained network is used."
        if self.keep_best:
            self.body_, self.kept_original_ = original, True
            ending = "The original network is used."
        warn(
            "The training made the features worse: the linear probe scores "
            f"{after:.3f} after it, and {before:.3f} before. {ending} Fewer epochs, "
            "a smaller 'learning_rate' or fewer stages for 'unfreeze' change less.",
            RuntimeWarning,
        )


def _check_variety(pixels, rows):
    """Raise if there are too few images, or all are the same."""
    if len(rows) < _MIN_IMAGES:
        raise ValueError(
            f"X must have at least {_MIN_IMAGES} images that can be read. Got "
            f"{len(rows)}."
        )
    if all(np.array_equal(pixels[row], pixels[rows[0]]) for row in rows[1:]):
        raise ValueError(
            f"X must have different images. All {len(rows)} of them are the same."
        )


def _check_groups(groups, X):
    """Return the group of each image as an array."""
    groups = check_column(groups, "groups", _num_samples(X))
    if pd.unique(groups).size == 1:
        raise ValueError(
            "groups must hold at least 2 groups, because images of different "
            f"groups are contrasted. Got only {shown(groups.tolist()[0])}."
        )
    return groups


def _group_codes(groups, rows):
    """Return a number for the group of each image that is trained on."""
    codes, names = pd.factorize(groups[rows])
    counts = np.bincount(codes)
    if counts.min() < 2:
        raise ValueError(
            "groups must have at least 2 images that can be read in each group. Group "
            f"{shown(names.tolist()[counts.argmin()])} has one. Leave out such images, "
            "or fit without groups."
        )
    return codes
