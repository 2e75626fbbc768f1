"""FineTuneRegressor: a pretrained network with a new head as a regressor."""

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import column_or_1d

from .._utils._choices import DEFAULT_MAX_PIXELS
from .._utils._forks import survives_fork
from ..training import REGRESSION_LOSSES
from ._base import BaseFineTune
from ._onnx import ScaleTargets
from ._targets import Targets, checked_weights, checked_y, is_given

__all__ = ["FineTuneRegressor"]


class FineTuneRegressor(RegressorMixin, BaseFineTune):
    """A pretrained network with a new head, fine-tuned as a regressor.

    `fit` goes through the two phases of transfer learning. Phase one leaves the body
    of the network as it is, in evaluation mode, and fits a new head on its features,
    which come from the cache. Phase two unfreezes the body and trains both at a low
    rate, on random crops and mirror images, and keeps a moving average of the weights.

    Parameters
    ----------
    model : str or torch.nn.Module, default="efficientnet_lite0"
        The network whose body is used, as for `PretrainedFeatureExtractor`:
        ``"efficientnet_lite0"`` is installed with this package, other bare names mean
        torchvision where it has them, else timm. A network of your own is copied and
        left as it was; its last linear layer counts as the old head.

    weights : str, path-like or torchvision weights, default="default"
        As for `PretrainedFeatureExtractor`.

    image_size : int, pair of int or None, default=None
        Input size in pixels, instead of the one that the weights were trained with.
        A smaller one trains faster by the square of the ratio.

    flat_image_shape : tuple of (int, int) or (int, int, int), or None, default=None
        (height, width) or (height, width, channels) of the images if X is a table with
        one flattened image per row. None if X is not such a table.

    preprocessing : Preprocessing, dict, transform or None, default=None
        For a network of your own and for weights from a file, as in
        `PretrainedFeatureExtractor`.

    hidden_layer_sizes : array-like of int, default=()
        Units of hidden layers (ReLU) between the neck and the last layer of the new
        head. Empty: the head is linear.

    dropout : float, default=0.0
        Probability, in [0, 1), that an input of a layer of the head is dropped while
        it trains.

    head_init : {"auto", "ridge", "random"}, default="auto"
        How phase one fits the head. ``"ridge"`` takes scikit-learn's
        `RidgeCV` on the features (linear probing, then fine-tuning; Kumar et al. 2022
        [1]_). ``"random"`` draws the head and trains it by gradient for `head_epochs`.
        ``"auto"`` is the first for a linear head, the second for one with hidden
        layers.

    head_epochs : int, default=20
        Epochs of phase one where it trains by gradient. They run on cached features
        and cost next to nothing.

    unfreeze : {"all", "gradual"}, int or None, default="all"
        What phase two trains in addition to the head: the whole body; the stages one by
        one from the last to the first during the first half of the epochs (Howard and
        Ruder 2018 [2]_); nothing, so that there is no phase two; or the last k stages,
        all if there are fewer (see `skdeepfeat.list_layers`).

    freeze_batch_norm : bool, default=True
        Whether batch normalizations of the body keep the statistics that they came with
        while their stage is trained; their scale and shift learn in any case. The head
        was fitted to features under these statistics, and those of a batch would throw
        them over: on CIFAR-10 the first epoch then ends below the head alone.

    max_epochs : int or "auto", default="auto"
        Epochs of phase two. ``"auto"`` chooses as many as make about 1,500 steps, but
        at least 8 and at most 30.

    batch_size : int, default=32
        Images in a step, over all devices. When the memory of a device does not
        suffice, the gradient of a batch is added up from parts of it.

    optimizer : {"adamw", "adam", "sgd"}, default="adamw"
        The last has Nesterov's momentum.

    learning_rate : float, default=4e-4
        The highest rate of the head in phase two.

    layer_decay : float, default=0.8
        Factor on the learning rate from each stage to the one before it.

    weight_decay : float, default=0.05
        Of weights; not of biases, normalizations, and a transformer's class token and
        embeddings of positions.

    momentum : float, default=0.9
        Of ``optimizer="sgd"``.

    schedule : {"constant", "step", "exponential", "sqrt", "inverse", "cosine", \
            "one_cycle"}, default="one_cycle"
        How the rate changes over the T steps of phase two: not; to a tenth after one
        half and after three quarters; exponentially to a hundredth; as
        sqrt(1 - t / T); as 1 / (1 + 9 t / T); along a cosine to 0; up for 30 % of the
        steps and down to almost 0 (Smith and Topin 2018 [3]_).

    warmup : float, default=0.0
        Share of the steps in which the rate first rises linearly; not with
        ``"one_cycle"``, which has a rise of its own.

    max_grad_norm : float or None, default=1.0
        Longer gradients are cut to this length.

    ema_decay : float, default=0.99
        Decay of the exponential moving average of the weights that is kept beside
        them and used in the end; 0 uses the last step's.

    loss : {"squared_error", "absolute_error", "huber"}, default="squared_error"
        Of targets that were brought to mean 0 and standard deviation 1.

    augment : {"flip_crop", "trivial"}, callable or None, default="flip_crop"
        Training images are decoded and resized once, with the margin that the
        network's own preprocessing cuts off. ``"flip_crop"`` resizes a random part,
        half to all of the image, and mirrors every other one; ``"trivial"`` also
        applies one random operation to each (TrivialAugment [4]_); None takes the
        center. A torchvision v2 transform is called with whole batches, uint8 tensors
        of shape (n_images, 3, height, width), and its result cut to the center.

    mixup : float, default=0.0
        Parameter of the Beta distribution by which pairs of images are mixed (Zhang et
        al. 2018 [5]_); 0 mixes none.

    test_time_augmentation : {"flip", "flip_crop"} or None, default=None
        Predict the mean over an image and its mirror image, or over ten views: the
        center and the four corners, each also mirrored.

    early_stopping : bool, default=False
        Hold out `validation_fraction` of the images, or take the validation set given
        to `fit`; stop when its score has not risen for `n_iter_no_change` epochs, and
        restore the best weights.

    validation_fraction : float, default=0.1
        Share of the images, in (0, 1), that early stopping holds out.

    n_iter_no_change : int, default=5
        Epochs without a better validation score before training stops.

    warm_start : bool, default=False
        Whether `fit` goes on with the body and head of the fit before.

    precision : {"float32", "bfloat16", "float16"}, default="float32"
        What the network computes in; weights stay float32 (mixed precision).

    device : str or torch.device, default="auto"
        ``"auto"`` takes the first of cuda, mps, xpu that is there, else the CPU.

    cache : "default", path-like, FeatureCache, mapping or None, default="default"
        Where the rows of features are kept, as for `PretrainedFeatureExtractor`. The
        frozen body's are the extractor's own.

    checkpoint : path-like or None, default=None
        A file that is written after each epoch of phase two. Where there is one, the
        same call goes on from it and ends with the weights of a run that was never
        interrupted. It stays after the fit; delete it to start over.

    on_error : {"raise", "nan"}, default="raise"
        What to do with an image that cannot be read: raise a `BadImageError`; or leave
        it out of the training, predict NaN, and give one `BadImageWarning`.

    max_pixels : int or None, default=89478485
        Images with more pixels are refused unread.

    storage_options : dict or None, default=None
        None: paths in X that are addresses (``s3://...``) are bad images. A dict, which
        may be empty, has fsspec read them, as for `PretrainedFeatureExtractor`. Neither
        shown nor saved, but pickled.

    random_state : int, RandomState instance or None, default=None
        Draws the validation rows, the order of the images, augmentation and random
        heads. Two fits with the same int on one CPU are equal to the bit.

    verbose : int, default=0
        Above 0, progress bars.

    Attributes
    ----------
    body_ : torch.nn.Module or None
        The network with its tuned weights, on the CPU: ``PretrainedFeatureExtractor(
        fitted.body_)`` uses it in other pipelines. None where the body was left as it
        came.
    head_ : torch.nn.Sequential
        The new head, on the CPU.
    history_ : DataFrame
        One row for each epoch: phase ("head" or "body"), epoch, train_loss,
        validation_loss, validation_score, learning_rate, seconds. `partial_fit`, and
        `fit` with ``warm_start=True``, add their epochs to those before.
    n_epochs_ : int
        Number of epochs of phase two, including those of earlier fits that this one
        continued.
    best_epoch_, best_validation_score_ : int, float or None
        The epoch of phase two, as counted in `history_`, whose weights were kept, and
        its score. None without early stopping.
    n_features_in_ : int
        Number of columns seen in `fit`: 1, or the length of flat rows.
    feature_names_in_ : ndarray of str, shape (n_features_in_,)
        The names of the columns, where X was a data frame.

    See Also
    --------
    PretrainedFeatureExtractor : Features of a frozen network for any estimator.

    Notes
    -----
    X may be whatever `PretrainedFeatureExtractor` takes.

    Started by ``torchrun`` or ``accelerate launch``, the same call trains on several
    devices: every process holds all images, computes its share of each batch and ends
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

    Examples
    --------
    >>> import numpy as np
    >>> from skdeepfeat import FineTuneRegressor
    >>> rng = np.random.default_rng(0)
    >>> noise = rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    >>> flat = np.repeat(noise[:, :1, :1], 32, axis=1).repeat(32, axis=2)
    >>> X, y = np.concatenate([noise, flat]), np.repeat([1.0, 0.0], 8)
    >>> reg = FineTuneRegressor(image_size=32, max_epochs=1, cache=None)
    >>> reg.fit(X, y).predict(X).shape
    (16,)
    """

    _parameter_constraints: dict = {
        **BaseFineTune._parameter_constraints,
        "head_init": [StrOptions({"auto", "ridge", "random"})],
        "loss": [StrOptions(set(REGRESSION_LOSSES))],
    }

    def __init__(
        self,
        model="efficientnet_lite0",
        *,
        weights="default",
        image_size=None,
        flat_image_shape=None,
        preprocessing=None,
        hidden_layer_sizes=(),
        dropout=0.0,
        head_init="auto",
        head_epochs=20,
        unfreeze="all",
        freeze_batch_norm=True,
        max_epochs="auto",
        batch_size=32,
        optimizer="adamw",
        learning_rate=4e-4,
        layer_decay=0.8,
        weight_decay=0.05,
        momentum=0.9,
        schedule="one_cycle",
        warmup=0.0,
        max_grad_norm=1.0,
        ema_decay=0.99,
        loss="squared_error",
        augment="flip_crop",
        mixup=0.0,
        test_time_augmentation=None,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=5,
        warm_start=False,
        precision="float32",
        device="auto",
        cache="default",
        checkpoint=None,
        on_error="raise",
        max_pixels=DEFAULT_MAX_PIXELS,
        storage_options=None,
        random_state=None,
        verbose=0,
    ):
        self.model = model
        self.weights = weights
        self.image_size = image_size
        self.flat_image_shape = flat_image_shape
        self.preprocessing = preprocessing
        self.hidden_layer_sizes = hidden_layer_sizes
        self.dropout = dropout
        self.head_init = head_init
        self.head_epochs = head_epochs
        self.unfreeze = unfreeze
        self.freeze_batch_norm = freeze_batch_norm
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.layer_decay = layer_decay
        self.weight_decay = weight_decay
        self.momentum = momentum
        self.schedule = schedule
        self.warmup = warmup
        self.max_grad_norm = max_grad_norm
        self.ema_decay = ema_decay
        self.loss = loss
        self.augment = augment
        self.mixup = mixup
        self.test_time_augmentation = test_time_augmentation
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.precision = precision
        self.device = device
        self.cache = cache
        self.checkpoint = checkpoint
        self.on_error = on_error
        self.max_pixels = max_pixels
        self.storage_options = storage_options
        self.random_state = random_state
        self.verbose = verbose

    @survives_fork
    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None):
        """Fit a new head, then body and head together.

        Parameters
        ----------
        X : array-like of images, shape (n_samples,) or as the Notes say
        y : array-like of float, shape (n_samples,) or (n_samples, n_targets)
        sample_weight : array-like of shape (n_samples,), default=None
        X_val, y_val : like X and y, default=None
            A validation set, scored after each epoch; early stopping goes by it in
            place of a part of X.

        Returns
        -------
        self : FineTuneRegressor

        Raises
        ------
        BadImageError
            With ``on_error="raise"``: an image cannot be read.
        TrainingDivergedError
            The loss, or an output for the validation set, is no longer a finite number.
            The estimator is still fitted, with the weights of the last good epoch.
        NonFiniteOutputError
            The network returns NaN or infinite values for an image that can be read,
            whatever `on_error` is. The estimator is not changed.
        OutOfMemoryError
            Not even one image can be trained in the memory of the device.
        """
        reset = not self._continues()
        return self._fit(*self._prepare(X, y, sample_weight, X_val, y_val, reset=reset))

    @survives_fork
    def partial_fit(self, X, y, sample_weight=None):
        """Train one epoch on a part of the data, with a constant learning rate.

        The first call starts the head from this part, which also decides the scale of
        the targets. The optimizer starts anew in each call.

        Parameters
        ----------
        X, y, sample_weight : as for `fit`

        Returns
        -------
        self : FineTuneRegressor
        """
        first = not hasattr(self, "head_")
        prepared = self._prepare(X, y, sample_weight, reset=first)
        return self._fit(*prepared, self._plan_of_part(first))

    def _prepare(self, X, y, sample_weight=None, X_val=None, y_val=None, *, reset=True):
        """Return (X, targets, weights, validation) for `_fit`."""
        self._validate_params()
        X = self._check_images(X, reset=reset)
        y = checked_y(self, y, X, dtype=np.float64)
        weight = checked_weights(sample_weight, y)
        if reset:
            self._learn_scale(y, weight)
        validation = None
        if is_given(X_val, y_val):
            X_val = self._check_images(X_val, reset=False)
            y_val = checked_y(self, y_val, X_val, "y_val", dtype=np.float64)
            validation = X_val, self._encode(y_val)
        return X, self._encode(y), weight, validation

    def _learn_scale(self, y, weight):
        """Learn number and scale of the targets: those of any scale learn alike."""
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        rows = y.reshape(len(y), -1)[weight > 0]
        with np.errstate(over="ignore", invalid="ignore"):
            mean, scale = rows.mean(axis=0), rows.std(axis=0)
        if not np.isfinite(scale).all():
            raise ValueError(
                "y must hold targets whose variance is a finite float64. Got values "
                f"from {rows.min():g} to {rows.max():g}. Divide y by a constant."
            )
        # What is left of equal targets is rounding.
        constant = scale <= 10 * np.finfo(float).eps * np.abs(mean)
        self._y_ndim, self._y_mean = y.ndim, mean
        self._y_scale = np.where(constant, 1.0, scale)

    def _encode(self, y):
        """Return `Targets`."""
        rows = y.reshape(len(y), -1)
        if rows.shape[1] != len(self._y_mean):
            raise ValueError(
                f"y has {rows.shape[1]} target(s), but {type(self).__name__} was "
                f"fitted with {len(self._y_mean)}."
            )
        values = (rows - self._y_mean) / self._y_scale
        return Targets(values.astype(np.float32), rows.shape[1], "regression")

    def _score_outputs(self, outputs, targets):
        return r2_score(targets.values, outputs) if len(outputs) > 1 else np.nan

    @survives_fork
    def predict(self, X):
        """Return the targets.

        Parameters
        ----------
        X : array-like of images

        Returns
        -------
        targets : ndarray of float64, shape (n_samples,) or (n_samples, n_targets)
            With ``on_error="nan"``, NaN for images that could not be read.

        Raises
        ------
        NonFiniteOutputError
            The network returns NaN or infinite values for an image that can be read.
        """
        values = self._outputs(X) * self._y_scale + self._y_mean
        return values[:, 0] if self._y_ndim == 1 else values

    def _onnx_result(self):
        finish = ScaleTargets(self._y_mean, self._y_scale, self._y_ndim == 1)
        return finish, "targets", {}

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
