"""What is compressed: an estimator as a model, with images to score it on."""

import copy
import numbers

import numpy as np
import torch
from sklearn.base import is_classifier
from sklearn.metrics import check_scoring
from sklearn.utils.multiclass import type_of_target
from torch import nn

from .._utils._folds import split_rows
from .._utils._parameter_errors import choice_error
from .._utils._shown import shown
from ..feature_extraction import (
    PretrainedFeatureExtractor,
    errors_at,
    inspected,
    load_readable,
    non_finite_error,
)
from ..fine_tuning import (
    FineTuneClassifier,
    FineTuneRegressor,
    FittedEstimator,
    on_pixels,
)
from ..training import crop_center, epochs_of_steps
from ._layers import batches_of
from ._model import Model

# Steps of "auto" for `fine_tune_epochs`, and bounds of the epochs. A single epoch at
# the rate of a longer training can do more harm than good.
_AUTO_STEPS = 400
_AUTO_EPOCHS = (2, 4)

# Images that statistics, gradients and times are measured with.
_MAX_CALIBRATION = 512


class TunedSubject:
    """A fine-tuned estimator. Parameters are those of `make_subject`."""

    score_name = "score"

    def __init__(
        self, estimator, X, y, scoring, validation_fraction, random_state, n_epochs
    ):
        self._fitted = FittedEstimator(estimator, "compression")
        self.neck = self._fitted.neck
        if y is None:
            raise ValueError(
                f"The 'y' parameter must be given for a "
                f"{type(estimator).__name__}, to measure its score. Got None."
            )
        # Its probabilities tell more about an image than the label, which helps most
        # with few images.
        self._teacher = self._fitted.as_teacher()
        self._random_state = random_state
        y = self._fitted.checked_targets(X, y)
        pixels, indices = self._fitted.decode(X, margin=True)
        y = y[indices]
        rows, kept_back = _split(
            np.arange(len(y)),
            validation_fraction,
            random_state,
            y if is_classifier(estimator) and _can_stratify(y) else None,
        )
        self._training = pixels[rows], y[rows]
        self._validation = pixels[kept_back], y[kept_back]
        self._indices = indices[kept_back]
        if n_epochs == "auto":
            n_epochs = epochs_of_steps(
                _AUTO_STEPS, len(rows), estimator.batch_size, _AUTO_EPOCHS
            )
        self.n_epochs = n_epochs
        self._score = check_scoring(estimator, scoring)
        if self._score is None:
            raise choice_error("scoring", "None, a str or a callable", scoring)
        drawn = _draw(len(rows), random_state)
        self.pixels = _center(self._training[0][drawn], self.neck.preprocessing.crop)
        y = self._training[1][drawn]
        self.task, self.loss, self.targets = self._fitted.loss_of(y)

    def model(self):
        """Return the networks of the estimator."""
        return Model(self.neck.trainable(), copy.deepcopy(self._fitted.estimator.head_))

    def score(self, model):
        """Return the score of the validation part."""
        with errors_at(self._indices):
            score = self._score(on_pixels(self.result(model)), *self._validation)
        return as_score(score)

    def train(self, model):
        """Return a model that was trained for `n_epochs` more epochs.

        Raises
        ------
        KeyboardInterrupt
        """
        fitted = FittedEstimator(on_pixels(self.result(model)))
        tuned, interrupted = fitted.train_further(
            *self._training, self.n_epochs, self._random_state, self._teacher
        )
        if interrupted:
            raise KeyboardInterrupt
        body = self.neck.with_network(tuned.body_).trainable()
        trained = Model(body, tuned.head_)
        names = ("history_", "n_epochs_", "best_epoch_", "best_validation_score_")
        trained.training_record = {name: getattr(tuned, name) for name in names}
        return trained

    def result(self, model):
        """Return the fitted estimator with the networks of a model."""
        network, head = copy.deepcopy((model.network, model.head))
        new = self._fitted.with_networks(network, head)
        vars(new).update(copy.deepcopy(model.training_record))
        return new


class ExtractorSubject:
    """An extractor. Parameters are those of `make_subject`; there is no y."""

    score_name = "relative_error"
    task, loss, targets = "features", None, None
    n_epochs = 0

    def __init__(
        self, estimator, X, y, scoring, validation_fraction, random_state, n_epochs
    ):
        if scoring is not None:
            raise ValueError(
                "The 'scoring' parameter must be None for an extractor, "
                f"whose features are compared. Got {shown(scoring)} instead."
            )
        if isinstance(estimator.layer, (list, tuple)) and len(estimator.layer) != 1:
            raise ValueError(
                "The 'layer' parameter of the estimator must be one layer."
                f" Got {shown(estimator.layer)} instead."
            )
        if n_epochs not in ("auto", 0):
            raise ValueError(
                "The 'fine_tune_epochs' parameter must be 'auto' or 0 for "
                f"an extractor, which has no labels. Got {shown(n_epochs)} instead."
            )
        self.estimator = estimator
        X, self.neck, settings = inspected(estimator, X)
        geometry = self.neck.preprocessing
        pixels, indices = load_readable(X, geometry, settings, warns=False)
        rows, kept_back = _split(indices, validation_fraction, random_state)
        self.pixels = pixels[rows[_draw(len(rows), random_state)]]
        self._validation = pixels[kept_back]
        self._features = self._run(self.model())
        bad = ~np.isfinite(self._features).all(axis=1)
        if bad.any():
            indices = kept_back[bad].tolist()
            raise non_finite_error(self.neck, estimator.precision, indices)

    def model(self):
        """Return the network of the extractor."""
        return Model(self.neck.trainable(), nn.Identity())

    def score(self, model):
        """Return minus the mean relative error of the rows of the validation part."""
        found, wanted = self._run(model), self._features
        norms = np.linalg.norm(wanted, axis=1)
        errors = np.linalg.norm(found - wanted, axis=1)
        return -float((errors / np.maximum(norms, np.finfo(np.float32).tiny)).mean())

    def result(self, model):
        """Return the extractor with the network of a model."""
        new = object.__new__(type(self.estimator))
        vars(new).update(
            vars(self.estimator),
            model=copy.deepcopy(model.network),
            weights="default",
            image_size=None,
            preprocessing=self.neck.preprocessing,
        )
        return new

    def _run(self, model):
        with torch.inference_mode():
            parts = [model(images).numpy() for images in batches_of(self._validation)]
        return np.concatenate(parts).astype(np.float64)


def make_subject(estimator, X, y, scoring, validation_fraction, random_state, n_epochs):
    """Return the subject of an estimator; the parameters are those of `compress`.

    `n_epochs` is its `fine_tune_epochs`.

    Raises
    ------
    TypeError, ValueError
    """
    if isinstance(estimator, (FineTuneClassifier, FineTuneRegressor)):
        kind = TunedSubject
    elif isinstance(estimator, PretrainedFeatureExtractor):
        kind = ExtractorSubject
    else:
        raise TypeError(
            "The 'estimator' parameter must be a fitted "
            "FineTuneClassifier or FineTuneRegressor, or a PretrainedFeatureExtractor. "
            f"Got {type(estimator).__name__} instead. If it is a pipeline or a search, "
            "pass the step or the estimator in it."
        )
    return kind(estimator, X, y, scoring, validation_fraction, random_state, n_epochs)


def as_score(value):
    """Return what a scorer has returned as a float.

    Raises
    ------
    ValueError
        If it is not one number.
    """
    if not isinstance(value, numbers.Real):
        raise choice_error("scoring", "a scorer that returns one number", value)
    return float(value)


def _can_stratify(y):
    """Return whether both parts can have samples of every class."""
    if type_of_target(y) not in ("binary", "multiclass"):
        return False
    return np.unique(y, return_counts=True)[1].min() > 1


def _split(rows, fraction, random_state, stratify=None):
    """Return rows to calibrate and train with, and those to score with."""
    advice = "Pass more images or another fraction."
    return split_rows(rows, fraction, random_state, advice, stratify)


def _draw(n, random_state):
    if n <= _MAX_CALIBRATION:
        return np.arange(n)
    return np.sort(random_state.choice(n, _MAX_CALIBRATION, replace=False))


def _center(pixels, size):
    """Return the centers of stored images."""
    images = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2)
    return crop_center(images, size).permute(0, 2, 3, 1).contiguous().numpy()
