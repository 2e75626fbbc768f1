"""FineTuneRegressor: a pretrained network with a new head as a regressor."""

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import column_or_1d

from .._utils._choices import DEFAULT_MAX_PIXELS
from .._utils._public_function import public_function
from .._utils._tensors import without_tensors
from ..training import REGRESSION_LOSSES
from ._base import BaseFineTune
from ._documentation import document
from ._export import ScaleTargets
from ._parameters import FineTuneParameters
from ._targets import Targets, checked_y


@document(FineTuneParameters)
class FineTuneRegressor(RegressorMixin, BaseFineTune):
    """A pretrained network with a new head, fine-tuned as a regressor.

    `fit` has the two phases of transfer learning. Phase one leaves the body of the
    network as it is, in evaluation mode, and fits a new head on its features, which
    come from the cache. Phase two unfreezes the body and trains both at a low learning
    rate, on random crops and mirror images. The result is a moving average of the
    weights.

    Parameters
    ----------
    loss : {"squared_error", "absolute_error", "huber"}, default="squared_error"
        Loss of targets that are scaled to mean 0 and standard deviation 1.

    head_init : {"auto", "ridge", "random"}, default="auto"
        How phase one fits the head. ``"ridge"`` fits scikit-learn's `RidgeCV` to the
        features (linear probing, then fine-tuning; Kumar et al. 2022 [1]_).
        ``"random"`` draws the head and trains it by gradient descent for `head_epochs`.
        ``"auto"`` is ``"ridge"`` for a linear head, and ``"random"`` for one with
        hidden layers.

    teacher : regressor, list of regressors or None, default=None
        Fitted regressors whose predictions the network learns, such as a ridge
        regression on frozen features in a pipeline, or a larger FineTuneRegressor. The
        predictions of several teachers are averaged. A FineTuneRegressor predicts the
        views that this network sees in each step of phase two (Beyer et al. 2022 [8]_).
        Other teachers predict each image of X once. A later fit asks again about four
        images, to notice a change of the teacher. `get_params` returns a teacher in a
        `sklearn.frozen.FrozenEstimator`, so that clones share it. It is not saved, and
        predictions do not need it.

    distill_weight : float, default=0.9
        Weight of the teacher in the loss, in [0, 1]: ``(1 - distill_weight)`` times the
        loss of y, plus `distill_weight` times the loss of the teacher's predictions.
        For images of `X_unlabeled`, it is the second part only.

    on_error : {"raise", "nan"}, default="raise"
        What to do with an image that cannot be read: raise a `BadImageError`, or leave
        it out of the training and give one `BadImageWarning`. Its predictions
        and features are NaN.

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
        **FineTuneParameters._parameter_constraints,
        "head_init": [StrOptions({"auto", "ridge", "random"})],
        "loss": [StrOptions(set(REGRESSION_LOSSES))],
    }
    _y_dtype = np.float64

    def __init__(
        self,
        model="efficientnet_lite0",
        *,
        weights="default",
        image_size=None,
        hidden_layer_sizes=(),
        dropout=0.0,
        unfreeze="all",
        max_epochs="auto",
        batch_size=32,
        learning_rate=4e-4,
        layer_decay=0.8,
        optimizer="adamw",
        optimizer_params=None,
        weight_decay=0.05,
        schedule="one_cycle",
        warmup=0.0,
        max_grad_norm=1.0,
        ema_decay=0.99,
        freeze_batch_norm=True,
        loss="squared_error",
        augment="flip_crop",
        n_views=None,
        mixup=0.0,
        activation_l1=0.0,
        test_time_augmentation=None,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=5,
        scoring=None,
        head_init="auto",
        head_epochs=20,
        teacher=None,
        distill_weight=0.9,
        warm_start=False,
        precision="float32",
        device="auto",
        cache="default",
        checkpoint=None,
        on_error="raise",
        preprocessing=None,
        flat_image_shape=None,
        max_pixels=DEFAULT_MAX_PIXELS,
        storage_options=None,
        random_state=None,
        verbose=0,
    ):
        self.model = model
        self.weights = weights
        self.image_size = image_size
        self.hidden_layer_sizes = hidden_layer_sizes
        self.dropout = dropout
        self.unfreeze = unfreeze
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.layer_decay = layer_decay
        self.optimizer = optimizer
        self.optimizer_params = optimizer_params
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.warmup = warmup
        self.max_grad_norm = max_grad_norm
        self.ema_decay = ema_decay
        self.freeze_batch_norm = freeze_batch_norm
        self.loss = loss
        self.augment = augment
        self.n_views = n_views
        self.mixup = mixup
        self.activation_l1 = activation_l1
        self.test_time_augmentation = test_time_augmentation
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.scoring = scoring
        self.head_init = head_init
        self.head_epochs = head_epochs
        self.teacher = teacher
        self.distill_weight = distill_weight
        self.warm_start = warm_start
        self.precision = precision
        self.device = device
        self.cache = cache
        self.checkpoint = checkpoint
        self.on_error = on_error
        self.preprocessing = preprocessing
        self.flat_image_shape = flat_image_shape
        self.max_pixels = max_pixels
        self.storage_options = storage_options
        self.random_state = random_state
        self.verbose = verbose

    @public_function
    def partial_fit(self, X, y, sample_weight=None):
        """Train for one epoch on a part of the data, with a constant learning rate.

        The first call fits the head to this part, which also decides the scale of
        the targets. Each call starts a new optimizer.

        Parameters
        ----------
        X : array-like of images
            The images of this part, as for `fit`.
        y : array-like
            Their targets, as for `fit`.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples. None weights all alike.

        Returns
        -------
        self : FineTuneRegressor
            The fitted estimator.
        """
        first = not hasattr(self, "head_")
        data = self._prepare(X, y, sample_weight, reset=first)
        return self._fit(data, self._settings_of_part(), continues=not first)

    def _learn_targets(self, y, weight, classes):
        """Learn the number and the scale of the targets."""
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
        # The standard deviation of equal targets is a rounding error.
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

    def _decode(self, targets):
        return self._in_units_of_y(targets.values)

    def _predictions(self, outputs):
        return outputs * self._y_scale + self._y_mean

    def _in_units_of_y(self, values):
        values = self._predictions(values)
        return values[:, 0] if self._y_ndim == 1 else values

    def _score_outputs(self, outputs, targets):
        return r2_score(targets.values, outputs) if len(outputs) > 1 else np.nan

    @public_function
    def predict(self, X):
        """Return the targets.

        Parameters
        ----------
        X : array-like of images
            The images.

        Returns
        -------
        targets : ndarray of float64, shape (n_samples,) or (n_samples, n_targets)
            With ``on_error="nan"``, NaN for images that could not be read.

        Raises
        ------
        NonFiniteOutputError
            The network returns NaN or infinite values for an image that can be read.
        """
        return self._in_units_of_y(self._outputs(X))

    @public_function
    def score(self, X, y, sample_weight=None):
        """Return the coefficient of determination R², averaged over the targets.

        Parameters
        ----------
        X : array-like of images
            The images.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            The targets, as `fit` takes them.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the images.

        Returns
        -------
        score : float
            At most 1.

        Raises
        ------
        ValueError
            With ``on_error="nan"``, if images could not be read.
        """
        weights = without_tensors(sample_weight, "sample_weight")
        y = checked_y(self, y, y, dtype=self._y_dtype)
        predicted = self.predict(X)
        failed = np.isnan(predicted.reshape(len(predicted), -1)).any(axis=1)
        if failed.any():
            raise ValueError(
                f"{failed.sum()} image(s) could not be read, so they have no "
                f"prediction to score (the first has index {failed.argmax()}). Leave "
                "them out of X and y."
            )
        return r2_score(y, predicted, sample_weight=weights)

    def _export_result(self):
        finish = ScaleTargets(self._y_mean, self._y_scale, self._y_ndim == 1)
        return finish, "targets", {}

    def _outputs_of_results(self, results):
        return (results.reshape(len(results), -1) - self._y_mean) / self._y_scale

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
