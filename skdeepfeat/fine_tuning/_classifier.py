"""FineTuneClassifier: a pretrained network with a new head as a classifier."""

import numbers

import numpy as np
from scipy.special import log_softmax
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import compute_sample_weight
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import column_or_1d
from torch import nn

from .._utils._choices import DEFAULT_MAX_PIXELS
from .._utils._forks import survives_fork
from ..training import CLASSIFICATION_LOSSES, has_probabilities
from ._base import BaseFineTune
from ._targets import Targets, checked_weights, checked_y, is_given

__all__ = ["FineTuneClassifier"]


def _estimates_probabilities(estimator):
    """Return True, or raise the AttributeError of a method that is not offered."""
    if has_probabilities(estimator.loss):
        return True
    raise AttributeError(
        f"probability estimates are not available for loss={estimator.loss!r}. Use "
        "decision_function, or fit with loss='cross_entropy'."
    )


class _DecisionFunction(nn.Module):
    """From raw outputs to what `decision_function` returns, for ONNX."""

    def __init__(self, is_binary):
        super().__init__()
        self.is_binary = is_binary

    def forward(self, outputs):
        return outputs[:, 1] - outputs[:, 0] if self.is_binary else outputs


class FineTuneClassifier(ClassifierMixin, BaseFineTune):
    """A pretrained network with a new head, fine-tuned as a classifier.

    `fit` goes through the two phases of transfer learning. Phase one leaves the body
    of the network as it is, in evaluation mode, and fits a new head on its features,
    which come from the cache. Phase two unfreezes the body and trains both at a low
    rate, on random crops and mirror images, and keeps a moving average of the weights.

    The defaults were chosen on held-out training images of CIFAR-10 (`benchmarks/`).

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

    head_init : {"auto", "logistic", "random"}, default="auto"
        How phase one fits the head. ``"logistic"`` takes scikit-learn's
        `LogisticRegression` on the features (linear probing, then fine-tuning; Kumar et
        al. 2022 [1]_). With at least 16 images per class, its strength is chosen by
        cross-validation; with fewer, it is scikit-learn's default. ``"random"`` draws
        the head and trains it by gradient for `head_epochs`. ``"auto"`` is the first
        for a linear head, the second for one with hidden layers.

    head_epochs : int, default=20
        Epochs of phase one where it trains by gradient. They run on cached features
        and cost next to nothing.

    unfreeze : {"all", "gradual"}, int or None, default="all"
        What phase two trains in addition to the head: the whole body; the stages one by
        one from the last to the first during the first half of the epochs (Howard and
        Ruder 2018 [2]_); nothing, so that there is no phase two; or the last k stages,
        all if there are fewer (see `skdeepfeat.list_layers`).

    freeze_batch_norm : bool, default=True
        Whether batch normalizations of the body keep their pretrained statistics while
        their stage is trained; their scale and shift are trained in any case. The head
        was fitted to features that use these statistics. With the statistics of each
        batch, the first epoch on CIFAR-10 ends below the head alone.

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

    loss : {"cross_entropy", "hinge"}, default="cross_entropy"
        The hinge is that of Crammer and Singer (2001) over all classes. With several
        labels an image, each label has a binary loss of its own.

    label_smoothing : float, default=0.1
        Share of a target that is spread over all classes; cross-entropy only.

    class_weight : dict, list of dict, "balanced" or None, default=None
        Weights of the classes, as everywhere in scikit-learn.

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
        it out of the training and give one `BadImageWarning`; its row of
        `predict_proba`, `decision_function` and `transform` is NaN, while `predict`,
        which has no label for it, raises.

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
    classes_ : ndarray, shape (n_classes,)
        The labels; with an indicator matrix as y, the numbers of its columns.
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
    >>> from skdeepfeat import FineTuneClassifier
    >>> rng = np.random.default_rng(0)
    >>> noise = rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    >>> flat = np.repeat(noise[:, :1, :1], 32, axis=1).repeat(32, axis=2)
    >>> X, y = np.concatenate([noise, flat]), np.repeat(["noise", "flat"], 8)
    >>> clf = FineTuneClassifier(image_size=32, max_epochs=1, cache=None)
    >>> clf.fit(X, y).predict(X[[0, -1]])
    array(['noise', 'flat'], dtype='<U5')
    """

    _parameter_constraints: dict = {
        **BaseFineTune._parameter_constraints,
        "head_init": [StrOptions({"auto", "logistic", "random"})],
        "loss": [StrOptions(set(CLASSIFICATION_LOSSES))],
        "label_smoothing": [Interval(numbers.Real, 0, 1, closed="left")],
        "class_weight": [dict, list, StrOptions({"balanced"}), None],
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
        loss="cross_entropy",
        label_smoothing=0.1,
        class_weight=None,
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
        self.label_smoothing = label_smoothing
        self.class_weight = class_weight
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
        y : array-like, shape (n_samples,) or (n_samples, n_labels)
            Labels of any type, or an indicator matrix of several labels.
        sample_weight : array-like of shape (n_samples,), default=None
        X_val, y_val : like X and y, default=None
            A validation set, scored after each epoch; early stopping goes by it in
            place of a part of X.

        Returns
        -------
        self : FineTuneClassifier

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
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Train one epoch on a part of the data, with a constant learning rate.

        The first call starts the head from this part. The optimizer starts anew in each
        call.

        Parameters
        ----------
        X, y, sample_weight : as for `fit`
        classes : array-like of shape (n_classes,), default=None
            All labels that will come; needed in the first call.

        Returns
        -------
        self : FineTuneClassifier
        """
        self._validate_params()
        first = not hasattr(self, "head_")
        y = checked_y(self, y, X)
        several = type_of_target(y, input_name="y") == "multilabel-indicator"
        if classes is not None:
            classes = np.unique(classes)
            if not first and not np.array_equal(classes, self.classes_):
                raise ValueError(
                    "The 'classes' parameter must be that of the first call of "
                    f"partial_fit, {self.classes_.tolist()}. Got {classes.tolist()} "
                    "instead."
                )
        elif first and not several:
            raise ValueError(
                "The 'classes' parameter must be given in the first call of "
                "partial_fit."
            )
        prepared = self._prepare(
            X, y, sample_weight, classes=None if several else classes, reset=first
        )
        return self._fit(*prepared, self._plan_of_part(first))

    def _prepare(
        self, X, y, sample_weight=None, X_val=None, y_val=None, *,
        classes=None, reset=True,
    ):  # fmt: skip
        """Return (X, targets, weights, validation) for `_fit`."""
        self._validate_params()
        X = self._check_images(X, reset=reset)
        y = checked_y(self, y, X)
        if reset:
            self._learn_classes(y, classes)
        targets = self._encode(y)
        weight = checked_weights(sample_weight, targets.values)
        if self.class_weight is not None:
            weight = weight * self._weights_of_classes(y)
        validation = None
        if is_given(X_val, y_val):
            X_val = self._check_images(X_val, reset=False)
            validation = X_val, self._encode(checked_y(self, y_val, X_val, "y_val"))
        return X, targets, weight, validation

    def _weights_of_classes(self, y):
        weights = compute_sample_weight(self.class_weight, y)
        if not (np.isfinite(weights).all() and (weights >= 0).all()):
            raise ValueError(
                f"The 'class_weight' parameter of {type(self).__name__} must hold "
                "finite weights that are not negative. Got "
                f"{str(self.class_weight)[:80]} instead."
            )
        return weights

    def _learn_classes(self, y, classes):
        check_classification_targets(y)
        several = type_of_target(y, input_name="y") == "multilabel-indicator"
        if several:
            classes = np.arange(y.shape[1])
        elif classes is None:
            classes = np.unique(column_or_1d(y))
        if len(classes) < 2 and not several:
            raise ValueError(
                f"{type(self).__name__} needs samples of at least 2 classes in y, but "
                f"it has one class: {classes.tolist()[0]!r}."
            )
        self.multilabel_, self.classes_ = several, classes

    def _encode(self, y):
        """Return `Targets`."""
        check_classification_targets(y)
        n_classes = len(self.classes_)
        several = type_of_target(y, input_name="y") == "multilabel-indicator"
        if several != self.multilabel_ or (several and y.shape[1] != n_classes):
            kind = "an indicator matrix of" if self.multilabel_ else "one label out of"
            raise ValueError(
                f"y must have {kind} {n_classes} labels, as in the first fit. Got "
                f"the shape {y.shape} instead."
            )
        if several:
            values = np.asarray(y.todense() if hasattr(y, "todense") else y)
            return Targets(values.astype(np.float32), n_classes, "multilabel")
        y = column_or_1d(y, warn=True)
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(
                f"y has labels that are not among the classes: {unknown[:5].tolist()}."
            )
        encoder = LabelEncoder()
        encoder.classes_ = self.classes_
        return Targets(encoder.transform(y), n_classes, "single")

    def _score_outputs(self, outputs, targets):
        if targets.task == "single":
            return accuracy_score(targets.values, outputs.argmax(1))
        return accuracy_score(targets.values > 0.5, outputs > 0)

    @survives_fork
    def decision_function(self, X):
        """Return the scores of the classes, before the softmax.

        Parameters
        ----------
        X : array-like of images

        Returns
        -------
        scores : ndarray of float64, shape (n_samples, n_classes)
            For two classes of shape (n_samples,): how much higher the second's is.
        """
        outputs = self._outputs(X)
        return outputs[:, 1] - outputs[:, 0] if self._is_binary() else outputs

    def _is_binary(self):
        return not self.multilabel_ and len(self.classes_) == 2

    @available_if(_estimates_probabilities)
    @survives_fork
    def predict_proba(self, X):
        """Return the probability of each class.

        Only with a `loss` whose outputs estimate probabilities, ``"cross_entropy"``.

        Parameters
        ----------
        X : array-like of images

        Returns
        -------
        probabilities : ndarray of float64, shape (n_samples, n_classes)
            Rows sum to one; with several labels a sample, each column is a label's
            own probability. With ``on_error="nan"`` the rows of images that could not
            be read are NaN.
        """
        outputs = self._outputs(X)
        if self.multilabel_:
            return 1 / (1 + np.exp(-outputs))
        outputs = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return outputs / outputs.sum(axis=1, keepdims=True)

    @available_if(_estimates_probabilities)
    @survives_fork
    def predict_log_proba(self, X):
        """Return the logarithm of the probability of each class.

        Only with a `loss` whose outputs estimate probabilities, ``"cross_entropy"``.

        Parameters
        ----------
        X : array-like of images

        Returns
        -------
        log_probabilities : ndarray of float64, shape (n_samples, n_classes)
            The logarithms of the probabilities, finite even where `predict_proba`
            returns 0.
        """
        outputs = self._outputs(X)
        if self.multilabel_:
            return -np.logaddexp(0, -outputs)
        return log_softmax(outputs, axis=1)

    @survives_fork
    def predict(self, X):
        """Return the label with the highest score.

        Parameters
        ----------
        X : array-like of images

        Returns
        -------
        labels : ndarray, shape (n_samples,) or (n_samples, n_labels)

        Raises
        ------
        ValueError
            With ``on_error="nan"``: images could not be read, and there is no label
            for "unknown". Missing files are seen before anything is computed, damaged
            ones when they are decoded; what was computed is then in the cache.
            `predict_proba` and `decision_function` give rows of NaN.
        NonFiniteOutputError
            The network returns NaN or infinite values for an image that can be read.
            No other method returns anything for it either.
        """
        outputs = self._outputs(X, of_all=True)
        if self.multilabel_:
            return (outputs > 0).astype(int)
        return self.classes_[outputs.argmax(axis=1)]

    def _onnx_result(self):
        notes = {"classes": self.classes_.tolist()}
        if not has_probabilities(self.loss):
            return _DecisionFunction(self._is_binary()), "decision_function", notes
        finish = nn.Sigmoid() if self.multilabel_ else nn.Softmax(dim=1)
        return finish, "probabilities", notes

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
