"""One call of `fit`: phase one fits a new head, phase two trains head and body.

docs/architecture.md draws both phases. `_head_phase.py` and `_body_phase.py` have the
details.
"""

import contextlib
import copy
import dataclasses

import numpy as np
import torch

from .._utils._callbacks import FitCallbacks
from .._utils._folds import split_rows
from .._utils._shown import shown
from ..exceptions import TrainingDivergedError
from ..feature_extraction import errors_about
from ..training import ResumableFit, TaughtTargets, make_distillation_loss, make_loss
from ._body_phase import check_body, tune_body
from ._fit_settings import FitResult
from ._head_phase import fit_head
from ._rows import open_features
from ._scoring import make_score


class Fit(ResumableFit):
    """The state of a fit while it runs, and its result.

    Parameters
    ----------
    estimator : BaseFineTune
        It has learned what it learns of y, and is not changed.
    data : FitData
    settings : FitSettings
    continues : bool
        Whether the fit begins with the networks of the estimator.
    callbacks : FitCallbacks or None, default=None

    Attributes
    ----------
    neck : Neck
        Of the network that the fit begins with.
    result : FitResult
    n_earlier_epochs : int
        Number of epochs of phase two.
    loss, training_loss : callable
        Of outputs and targets. With a teacher, that of the training has the teacher's.
    teachers : Teachers or None
    """

    def __init__(self, estimator, data, settings, *, continues, callbacks=None):
        extraction = estimator._extraction_settings()
        super().__init__(settings, extraction.device, estimator.random_state)
        self.data = data
        self.neck = estimator._fitted_neck() if continues else estimator._resolve_neck()
        self.extraction = dataclasses.replace(extraction, device=self.device)
        self.loss = make_loss(
            settings.loss, data.targets.task, label_smoothing=settings.label_smoothing
        )
        self._estimator = estimator
        self._score = make_score(estimator, settings.scoring)
        self.callbacks = callbacks or FitCallbacks()
        self.training_loss, self.teachers = self.loss, data.teachers
        if self.teachers is not None:
            self.training_loss = make_distillation_loss(
                self.loss,
                data.targets.task,
                weight=settings.distill_weight,
                temperature=settings.distill_temperature,
            )
        # Both phases see the same images. By the id of X.
        self.digests = {}
        # Whether the images of X_unlabeled that cannot be read were warned of.
        self.has_warned_of_unlabeled = False
        self.result = FitResult()
        if continues:
            probes = estimator.probe_predictions_
            self.result = FitResult(
                copy.deepcopy(estimator.head_).requires_grad_(True),
                estimator.body_,
                estimator.history_.to_dict("records"),
                estimator.n_epochs_,
                estimator.best_epoch_,
                estimator.best_validation_score_,
                [] if probes is None else [*probes],
            )
        self.n_earlier_epochs = self.result.n_epochs

    def run(self):
        """Run both phases."""
        rows, validation_rows = self.prepare_head()
        if self.settings.trains_body and not self.interrupted:
            tune_body(self, rows, validation_rows)

    def prepare_head(self):
        """Phase one: set the head, unless this fit continues another one.

        Returns
        -------
        rows : ndarray of int
            The images to train on.
        validation_rows : ndarray of int or None
            Those of the validation set, if it is a part of X.
        """
        if self.settings.trains_body:
            # Errors about phase two come before phase one, which may take hours.
            check_body(self.neck, self.settings)
        features, failed = self._extract(self.data.X)
        # A weight of zero excludes an image: it must not count in the statistics of a
        # standardization or a batch normalization either.
        usable = np.flatnonzero(~failed & (self.data.weights > 0))
        rows, validation_rows = self._split(usable)
        if self.data.X_unlabeled is not None:
            with self._opened(self.data.X_unlabeled, "X_unlabeled"):
                pass  # its images are identified, and errors come before the training
        if self.result.head is None:
            validation = self._validation_features(features, validation_rows)
            probe = None
            if self.data.X_probe is not None:
                probe, _ = self._extract(self.data.X_probe, "X_probe")
            fit_head(self, features[rows], rows, validation, probe)
        return rows, validation_rows

    @property
    def trains_head(self):
        """Whether phase one trains the head by gradient descent."""
        settings = self.settings
        if len(settings.hidden_layer_sizes) or settings.head_init == "random":
            return True
        # A linear model of labels learns nothing from a teacher.
        is_taught = self.teachers is not None and not settings.trains_body
        return is_taught and settings.head_init == "auto"

    def taught_targets(self, rows, unlabeled_rows, *, own):
        """Return the targets of images, and their weights, as the training needs them.

        Parameters
        ----------
        rows, unlabeled_rows : ndarray of int
            Indices in X and in X_unlabeled.
        own : bool
            Whether fine-tuning estimators are asked now, as other teachers are.

        Returns
        -------
        targets : Tensor or TaughtTargets
        weights : Tensor of float32
        """
        values, weights = self.data.targets.take(rows).tensor(), self.weights_of(rows)
        if self.teachers is None:
            return values, weights
        n_more = len(unlabeled_rows)
        soft = [self._ask("X", rows, own)]
        if n_more:
            soft.append(self._ask("X_unlabeled", unlabeled_rows, own))
        targets = TaughtTargets(
            torch.cat([values, values.new_zeros(n_more, *values.shape[1:])]),
            torch.arange(len(rows) + n_more) < len(rows),
            None if soft[0] is None else torch.from_numpy(np.concatenate(soft)),
        )
        return targets, torch.cat([weights, torch.ones(n_more)])

    def _ask(self, name, rows, own):
        X = getattr(self.data, name)
        digests = self.digests[id(X)]
        return self.teachers.soft_targets(name, rows, digests, X, own=own)

    def with_unlabeled(self, features):
        """Return features with those of X_unlabeled behind, and its good indices."""
        if self.data.X_unlabeled is None:
            return features, np.empty(0, int)
        more, failed = self._extract(self.data.X_unlabeled, "X_unlabeled")
        self.has_warned_of_unlabeled = True
        return np.concatenate([features, more[~failed]]), np.flatnonzero(~failed)

    def weights_of(self, rows):
        """Return the weights of images, with a mean of 1."""
        weights = self.data.weights[rows].astype(np.float64)
        weights /= weights.max()  # the sum of huge ones would be infinite
        return torch.from_numpy((weights / weights.mean()).astype(np.float32))

    def evaluate(self, outputs, targets):
        """Return (loss, score) of raw outputs for a validation set.

        Parameters
        ----------
        outputs : ndarray of float64, shape (n_samples, n_outputs)
        targets : Targets

        Raises
        ------
        TrainingDivergedError
            If an output is NaN or infinite.
        """
        if not np.isfinite(outputs).all():
            raise TrainingDivergedError(
                "The network's outputs for the validation set were NaN or infinite. "
                "The estimator has the weights of the last good epoch. Choose a "
                f"smaller 'learning_rate' (now {self.settings.learning_rate:g})."
            )
        loss = self.loss(torch.from_numpy(outputs).float(), targets.tensor())
        return float(loss.mean()), float(self._score(outputs, targets))

    def check_outputs(self):
        """Raise if a loss is NaN because of a network, and not because of the training.

        Raises
        ------
        NonFiniteOutputError
            If the network returned NaN or infinite values for images of `X_unlabeled`
            before the training, or that of a teacher does so.
        """
        if self.data.X_unlabeled is not None:
            self._extract(self.data.X_unlabeled, "X_unlabeled")
        if self.teachers is not None:
            self.teachers.check_outputs()

    def predictions(self, outputs):
        """Return what is recorded of raw outputs for `X_probe`, as float32."""
        return self._estimator._predictions(outputs).astype(np.float32)

    def attributes_of(self, result):
        """Return the fitted attributes as if the fit had this `FitResult`."""
        return self._estimator._fitted_attributes(self, result)

    def _extract(self, X, name="X"):
        """Return features, and which of the images could not be read."""
        with self._opened(X, name) as opened:
            return opened.features(in_training=True), opened.failed()

    @contextlib.contextmanager
    def _opened(self, X, name):
        """Lend the extraction of X, and note the digests."""
        cache = self._estimator.cache
        opening = open_features(X, self.neck, cache, self.extraction)
        with errors_about(name), opening as opened:
            self.digests[id(X)] = opened.digests
            yield opened

    def _split(self, rows):
        """Return the rows to train on, and those of the validation set or None."""
        if len(rows) == 0:
            raise ValueError(
                "There is nothing to fit: each image of X cannot be read or has a "
                "weight of 0 (sample_weight times class_weight)."
            )
        if not self.settings.early_stopping or self.data.X_val is not None:
            return rows, None
        targets = self.data.targets
        _refuse_lone_images(targets.take(rows))
        return split_rows(
            rows,
            self.settings.validation_fraction,
            self.seed,
            "Choose another fraction, pass X_val and y_val, or train without "
            "early_stopping.",
            targets.values[rows] if targets.task == "single" else None,
        )

    def _validation_features(self, features, validation_rows):
        """Return (features, targets) of the validation set, or None."""
        data = self.data
        if data.X_val is not None:
            features, failed = self._extract(data.X_val, "X_val")
            return features[~failed], data.targets_val.take(~failed)
        if validation_rows is not None:
            return features[validation_rows], data.targets.take(validation_rows)
        return None


def _refuse_lone_images(targets):
    """Raise if a class has one image, which is trained on or validated with."""
    if targets.task != "single":
        return
    numbers, counts = np.unique(targets.values, return_counts=True)
    if (counts == 1).any():
        label = targets.classes.tolist()[numbers[counts == 1][0]]
        raise ValueError(
            "The 'early_stopping' parameter must be False, or X_val and y_val must be "
            "given, if a class has one image, because a validation set that is a part "
            f"of X needs another one. Got the class {shown(label)} with one image."
        )
