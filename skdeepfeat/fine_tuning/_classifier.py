"""FineTuneClassifier: a pretrained network with a new head as a classifier."""

import numpy as np
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import compute_sample_weight
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import column_or_1d
from torch import nn

from .._utils._choices import DEFAULT_MAX_PIXELS
from .._utils._constraints import FRACTION, POSITIVE
from .._utils._parameter_errors import choice_error, first_line
from .._utils._public_function import public_function
from .._utils._shown import shown
from .._utils._tensors import without_tensors
from ..training import CLASSIFICATION_LOSSES, has_probabilities
from ._base import BaseFineTune
from ._documentation import document
from ._parameters import FineTuneParameters
from ._targets import Targets, checked_y


def _estimates_probabilities(estimator):
    """Return True, or raise the AttributeError of a method that is not available."""
    if has_probabilities(estimator.loss):
        return True
    raise AttributeError(
        f"probability estimates are not available for loss={estimator.loss!r}. Use "
        "decision_function, or fit with loss='cross_entropy'."
    )


class DecisionFunction(nn.Module):
    """From raw outputs to what `decision_function` returns, as a module."""

    def __init__(self, is_binary):
        super().__init__()
        self.is_binary = is_binary

    def forward(self, outputs):
        return outputs[:, 1] - outputs[:, 0] if self.is_binary else outputs


@document(FineTuneParameters)
class FineTuneClassifier(ClassifierMixin, BaseFineTune):
    """A pretrained network with a new head, fine-tuned as a classifier.

    `fit` has the two phases of transfer learning. Phase one leaves the body of the
    network as it is, in evaluation mode, and fits a new head on its features, which
    come from the cache. Phase two unfreezes the body and trains both at a low learning
    rate, on random crops and mirror images. The result is a moving average of the
    weights.

    Parameters
    ----------
    loss : {"cross_entropy", "hinge"}, default="cross_entropy"
        ``"hinge"`` is the multiclass hinge loss of Crammer and Singer (2001). With
        several labels per image, each label has its own binary loss.

    label_smoothing : float, default=0.1
        Fraction of a target that is spread over all classes. Used by cross-entropy
        only.

    class_weight : dict, list of dict, "balanced" or None, default=None
        Weights of the classes, as in scikit-learn.

    head_init : {"auto", "logistic", "random"}, default="auto"
        How phase one fits the head. ``"logistic"`` fits scikit-learn's
        `LogisticRegression` to the features (linear probing, then fine-tuning; Kumar et
        al. 2022 [1]_). With at least 16 images per class, its C is chosen by
        cross-validation; with fewer, it is scikit-learn's default. ``"random"`` draws
        the head and trains it by gradient descent for `head_epochs`. ``"auto"`` is
        ``"logistic"`` for a linear head, and ``"random"`` for one with hidden layers.

    teacher : classifier, list of classifiers or None, default=None
        Fitted classifiers with `predict_proba`, for the same classes as y, whose
        probabilities the network learns (soft targets, Hinton et al. 2015 [7]_), such
        as a random forest on frozen features in a pipeline, a `VotingClassifier`, or a
        larger FineTuneClassifier. The probabilities of several teachers are averaged. A
        FineTuneClassifier predicts the views that this network sees in each step of
        phase two (Beyer et al. 2022 [8]_). Other teachers predict each image of X once.
        A later fit asks again about four images, to notice a change of the teacher.
        `get_params` returns a teacher in a `sklearn.frozen.FrozenEstimator`, so that
        clones share it. It is not saved, and predictions do not need it. Only for
        ``loss="cross_entropy"``.

    distill_temperature : float, default=2.0
        The logarithms of the teacher's and of the network's probabilities are divided
        by this number before they are compared. Above 1, smaller probabilities count
        more.

    distill_weight : float, default=0.9
        Weight of the teacher in the loss, in [0, 1]: ``(1 - distill_weight)`` times the
        loss of the labels, plus `distill_weight` times
        ``distill_temperature ** 2`` times the Kullback-Leibler divergence. For images
        of `X_unlabeled`, it is the second part only.

    on_error : {"raise", "nan"}, default="raise"
        What to do with an image that cannot be read: raise a `BadImageError`, or leave
        it out of the training and give one `BadImageWarning`. With ``"nan"``,
        `predict_proba`, `decision_function` and `transform` return a row of NaN for it,
        and `predict` raises an error, because it has no label for the image.

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
        The labels. If y was an indicator matrix, the numbers of its columns.

    multilabel_ : bool
        Whether y was an indicator matrix of several labels per image.

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
        **FineTuneParameters._parameter_constraints,
        "head_init": [StrOptions({"auto", "logistic", "random"})],
        "loss": [StrOptions(set(CLASSIFICATION_LOSSES))],
        "label_smoothing": [FRACTION],
        "class_weight": [dict, list, StrOptions({"balanced"}), None],
        "distill_temperature": [POSITIVE],
    }

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
        loss="cross_entropy",
        label_smoothing=0.1,
        class_weight=None,
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
        distill_temperature=2.0,
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
        self.label_smoothing = label_smoothing
        self.class_weight = class_weight
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
        self.distill_temperature = distill_temperature
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

    def _validate_params(self):
        super()._validate_params()
        if self.teacher is not None and not has_probabilities(self.loss):
            raise choice_error(
                "loss",
                "'cross_entropy' with a 'teacher', whose probabilities are learned",
                self.loss,
            )

    @public_function
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Train for one epoch on a part of the data, with a constant learning rate.

        The first call fits the head to this part. Each call starts a new
        optimizer.

        Parameters
        ----------
        X : array-like of images
            The images of this part, as for `fit`.
        y : array-like
            Their labels, as for `fit`.
        classes : array-like of shape (n_classes,), default=None
            All labels of all parts. Required in the first call.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples. None weights all alike.

        Returns
        -------
        self : FineTuneClassifier
            The fitted estimator.
        """
        first = not hasattr(self, "head_")
        y = checked_y(self, y, X)
        several = type_of_target(y, input_name="y") == "multilabel-indicator"
        if classes is not None:
            classes = np.unique(without_tensors(classes, "classes"))
            if not first and not np.array_equal(classes, self.classes_):
                known = shown(self.classes_.tolist())
                wanted = f"that of the first call of partial_fit, {known}"
                raise choice_error("classes", wanted, classes.tolist())
        elif first and not several:
            wanted = "given in the first call of partial_fit"
            raise choice_error("classes", wanted, None)
        data = self._prepare(X, y, sample_weight, classes=classes, reset=first)
        return self._fit(data, self._settings_of_part(), continues=not first)

    def _weigh(self, y, weight):
        if self.class_weight is None:
            return weight
        try:
            of_classes = compute_sample_weight(self.class_weight, y)
        except Exception as error:  # scikit-learn checks only some of it
            raise ValueError(
                f"The 'class_weight' parameter of {type(self).__name__} must hold a "
                "weight for each class; with several labels per image, it is a list of "
                f"dicts ({first_line(error)}). Got {shown(self.class_weight)} instead."
            ) from error
        if not (np.isfinite(of_classes).all() and (of_classes >= 0).all()):
            wanted = "finite weights that are not negative"
            raise choice_error("class_weight", wanted, self.class_weight)
        return weight * of_classes

    def _learn_targets(self, y, weight, classes):
        check_classification_targets(y)
        several = type_of_target(y, input_name="y") == "multilabel-indicator"
        if several:
            classes = np.arange(y.shape[1])
        elif classes is None:
            classes = np.unique(column_or_1d(y))
        if len(classes) < 2 and not several:
            raise ValueError(
                f"{type(self).__name__} needs samples of at least 2 classes in y, but "
                f"it has one class: {shown(classes.tolist()[0])}."
            )
        self.multilabel_, self.classes_ = several, classes

    def _encode(self, y):
        """Return `Targets`."""
        check_classification_targets(y)
        n_classes = len(self.classes_)
        several = type_of_target(y, input_name="y") == "multilabel-indicator"
        if several != self.multilabel_ or (several and y.shape[1] != n_classes):
            kind = "an indicator matrix of" if self.multilabel_ else "one of"
            raise ValueError(
                f"y must have {kind} {n_classes} labels, as in the first fit. Got "
                f"the shape {y.shape} instead."
            )
        if several:
            values = np.asarray(y.todense() if hasattr(y, "todense") else y)
            found = np.unique(values).tolist()
            if not {*found} <= {0, 1}:
                raise ValueError(
                    "y must hold only 0 and 1 if it is an indicator matrix of several "
                    f"labels per image. Got {found}."
                )
            return Targets(values.astype(np.float32), n_classes, "multilabel")
        y = column_or_1d(y, warn=True)
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(
                "y has labels that are not among the classes: "
                f"{shown(unknown[:5].tolist())}."
            )
        numbers = np.searchsorted(self.classes_, y)
        return Targets(numbers, n_classes, "single", self.classes_)

    def _decode(self, targets):
        if targets.task == "single":
            return self.classes_[targets.values]
        return targets.values.astype(int)

    def _score_outputs(self, outputs, targets):
        if targets.task == "single":
            return accuracy_score(targets.values, outputs.argmax(1))
        return accuracy_score(targets.values > 0.5, outputs > 0)

    @public_function
    def decision_function(self, X):
        """Return the scores of the classes, before the softmax.

        Parameters
        ----------
        X : array-like of images
            The images.

        Returns
        -------
        scores : ndarray of float64, shape (n_samples, n_classes)
            For two classes of shape (n_samples,): the score of the second minus that of
            the first.
        """
        outputs = self._outputs(X)
        return outputs[:, 1] - outputs[:, 0] if self._is_binary() else outputs

    def _is_binary(self):
        return not self.multilabel_ and len(self.classes_) == 2

    @available_if(_estimates_probabilities)
    @public_function
    def predict_proba(self, X):
        """Return the probability of each class.

        Only available if the outputs estimate probabilities:
        ``loss="cross_entropy"``.

        Parameters
        ----------
        X : array-like of images
            The images.

        Returns
        -------
        probabilities : ndarray of float64, shape (n_samples, n_classes)
            Rows sum to one. With several labels per sample, each column is the
            probability of one label. With ``on_error="nan"``, the rows of images that
            could not be read are NaN.
        """
        return self._predictions(self._outputs(X))

    def _predictions(self, outputs):
        if not has_probabilities(self.loss):
            return outputs
        return expit(outputs) if self.multilabel_ else softmax(outputs, axis=1)

    @available_if(_estimates_probabilities)
    @public_function
    def predict_log_proba(self, X):
        """Return the logarithm of the probability of each class.

        Only available if the outputs estimate probabilities:
        ``loss="cross_entropy"``.

        Parameters
        ----------
        X : array-like of images
            The images.

        Returns
        -------
        log_probabilities : ndarray of float64, shape (n_samples, n_classes)
            The logarithms of the probabilities, finite even where `predict_proba`
            returns 0.
        """
        outputs = self._outputs(X)
        if self.multilabel_:
            return log_expit(outputs)
        return log_softmax(outputs, axis=1)

    @public_function
    def predict(self, X):
        """Return the label with the highest score.

        Parameters
        ----------
        X : array-like of images
            The images.

        Returns
        -------
        labels : ndarray, shape (n_samples,) or (n_samples, n_labels)
            One label per image.

        Raises
        ------
        ValueError
            With ``on_error="nan"``, if images could not be read: they have no label.
            Missing files are found before anything is computed, damaged ones when they
            are decoded. The features computed so far are then in the cache.
            `predict_proba` and `decision_function` return rows of NaN.
        NonFiniteOutputError
            The network returns NaN or infinite values for an image that can be read.
            The other methods raise as well.
        """
        outputs = self._outputs(X, refuse_failures=True)
        if self.multilabel_:
            return (outputs > 0).astype(int)
        return self.classes_[outputs.argmax(axis=1)]

    @public_function
    def score(self, X, y, sample_weight=None):
        """Return the mean accuracy. With several labels per sample, all must be right.

        Parameters
        ----------
        X : array-like of images
            The images.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            The labels, as `fit` takes them.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the images.

        Returns
        -------
        score : float
            Between 0 and 1.
        """
        weights = without_tensors(sample_weight, "sample_weight")
        return super().score(X, checked_y(self, y, y), weights)

    def _export_result(self):
        notes = {"classes": self.classes_.tolist()}
        if not has_probabilities(self.loss):
            return DecisionFunction(self._is_binary()), "decision_function", notes
        finish = nn.Sigmoid() if self.multilabel_ else nn.Softmax(dim=1)
        return finish, "probabilities", notes

    def _outputs_of_results(self, results):
        results = results.astype(np.float64)
        if not has_probabilities(self.loss):
            # Only the difference of two outputs is in the file.
            if self._is_binary():
                return np.column_stack([np.zeros_like(results), results])
            return results
        tiny = np.finfo(np.float32).tiny
        logarithms = np.log(np.maximum(results, tiny))
        if not self.multilabel_:
            return logarithms
        return logarithms - np.log(np.maximum(1 - results, tiny))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
