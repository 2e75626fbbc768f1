"""Phase two: body and head are trained together on augmented images."""

import contextlib
import copy
from collections import OrderedDict

import numpy as np
import torch
from torch import nn

from .._utils._device import try_on_device
from .._utils._forks import undisturbed_by_forks
from .._utils._parameter_errors import choice_error
from .._utils._warn import warn
from ..exceptions import TrainingDivergedError
from ..feature_extraction import errors_about, load_pixels, warn_of
from ..networks import is_below_float32
from ..training import (
    ActivationSizes,
    Augmentation,
    FeatureData,
    LoopSettings,
    PixelData,
    StackedPixels,
    TrainingRun,
    WeightAverage,
    crop_center,
    epochs_of_steps,
    make_optimizer,
    unfrozen_parts,
)
from ._frozen_outputs import FrozenOutputs
from ._views import with_margin

# What "auto" means for `max_epochs`: enough steps for few images, and not too many for
# thousands.
_AUTO_STEPS = 1500
_AUTO_EPOCHS = (8, 30)


def with_head(neck, head):
    """Return a body and its new head as one module."""
    return nn.Sequential(OrderedDict(neck=neck, head=head))


def check_body(neck, settings):
    """Raise if settings name parts that a network lacks, or its activations do not fit.

    Parameters
    ----------
    neck : Neck
    settings : FitSettings

    Raises
    ------
    ValueError
    """
    if not (settings.names_parts or settings.activation_l1):
        return
    body = neck.trainable()
    if settings.names_parts:
        body.train_parts(unfrozen_parts(settings.unfreeze, body.n_stages, 0, 1))
    if settings.activation_l1:
        _check_relus(body, neck.preprocessing.crop, settings)


def _check_relus(body, size, settings):
    body.eval()
    with undisturbed_by_forks(), torch.inference_mode(), ActivationSizes() as sizes:
        body(torch.zeros(1, 3, *size))
    if sizes.others or not sizes.n_relus:
        found = sizes.others[0] if sizes.others else "no activation"
        raise choice_error(
            "activation_l1",
            "0 unless all activations of the network are ReLU or ReLU6, as others are "
            f"never zero. {body.network.__class__.__name__} has {found}",
            settings.activation_l1,
        )


def tune_body(fit, rows, validation_rows):
    """Train body and head of a fit.

    Parameters
    ----------
    fit : Fit
        After phase one.
    rows : ndarray of int
        The images to train on.
    validation_rows : ndarray of int or None
    """
    try:
        pixels, data, failed = load_images(fit, rows)
        if validation_rows is not None:
            validation_rows = validation_rows[~failed[validation_rows]]
        validate = _make_validate(fit, pixels, validation_rows)
        probe = None if fit.data.X_probe is None else Probe(fit)
    except KeyboardInterrupt:
        warn(
            "The fit was interrupted while the images were decoded. The estimator is "
            "fitted, with a new head on the body as it was.",
            RuntimeWarning,
        )
        return
    body, run = make_training_run(fit, len(data), validated=validate is not None)
    save = fit.resume(run, data, None if probe is None else probe.images)
    result = fit.result

    def with_networks(head, network):
        n_epochs = fit.n_earlier_epochs + run.epoch
        return result.after(
            run.history, run.probes, head=head, body=network, n_epochs=n_epochs
        )

    def attributes():
        with run.averaged_model():
            networks = copy.deepcopy([result.head, body.network])
        return fit.attributes_of(with_networks(*networks))

    def finish():
        fit.result = with_networks(result.head, body.network)
        if run.epoch:
            # Without early stopping, the result has the weights of the last epoch.
            is_best = run.best_epoch is not None and fit.settings.early_stopping
            best = fit.n_earlier_epochs + (run.best_epoch or 0)
            fit.result.best_epoch = best if is_best else None
            fit.result.best_score = run.best_score if is_best else None

    rows = rows[~failed[rows]]
    try:
        with _frozen_outputs(fit, run, body, data) as data:
            fit.callbacks.train(
                run, data, rows, attributes, finish, validate, save, probe
            )
    except TrainingDivergedError:
        if not run.epoch:
            fit.check_outputs()
        raise


def _frozen_outputs(fit, run, body, data):
    """Return the context of the data, or of outputs of frozen layers in their place."""
    if not FrozenOutputs.can_replace(data, fit):
        return contextlib.nullcontext(data)
    return contextlib.closing(FrozenOutputs(fit, body, data, run.settings.n_epochs))


def load_images(fit, rows):
    """Decode the images of a fit.

    Parameters
    ----------
    fit : Fit
    rows : ndarray of int
        The images to train on.

    Returns
    -------
    pixels : ndarray of uint8, shape (n_images, height, width, 3)
        Of X.
    data : PixelData
        Of `rows`, without those that can no longer be read, and of X_unlabeled.
    failed : ndarray of bool, shape (n_images,)
        The images that could not be read.
    """
    if fit.neck.takes_rows:
        X, more = fit.data.X, fit.data.X_unlabeled
        more = X[:0] if more is None else more
        taught = fit.taught_targets(rows, np.arange(len(more)), own=False)
        data = FeatureData(np.concatenate([X[rows], more]), *taught)
        return X, data, np.zeros(len(X), bool)
    preprocessing = fit.neck.preprocessing
    pixels, _, failed = _load(fit, "X", with_margin(preprocessing))
    rows = rows[~failed[rows]]
    if len(rows) == 0:
        raise ValueError("There is nothing to fit: no image of X can be read any more.")
    stored, trained, unlabeled_rows = pixels, rows, np.empty(0, int)
    if fit.data.X_unlabeled is not None:
        more, failures, more_failed = _load(
            fit, "X_unlabeled", with_margin(preprocessing)
        )
        if failures and not fit.has_warned_of_unlabeled:
            warn_of(failures, in_training=True)
        unlabeled_rows = np.flatnonzero(~more_failed)
        stored = StackedPixels(pixels, more)
        trained = np.concatenate([rows, len(pixels) + unlabeled_rows])
    targets, weights = fit.taught_targets(rows, unlabeled_rows, own=False)
    augmentation = Augmentation(fit.settings.augment, preprocessing.crop, fit.device)
    data = PixelData(
        stored, targets, weights, augmentation, trained,
        n_views=fit.settings.n_views, seed=fit.seed,
    )  # fmt: skip
    return pixels, data, failed


def _load_center(fit, name):
    """Return images as the network sees them, or rows, and which cannot be read."""
    X = getattr(fit.data, name)
    if fit.neck.takes_rows:
        return X, np.zeros(len(X), bool)
    images, _, failed = _load(fit, name, fit.neck.preprocessing)
    return images, failed


def _load(fit, name, preprocessing):
    X = getattr(fit.data, name)
    with errors_about(name):
        return load_pixels(X, preprocessing, fit.extraction, fit.digests.get(id(X)))


def make_training_run(fit, n_images, *, validated=False, network=with_head):
    """Return a body that can be trained, and the `TrainingRun` of it with the head.

    Parameters
    ----------
    fit : Fit
    n_images : int
        Number of images to train on.
    validated : bool, default=False
        Whether there is a validation set.
    network : callable, default=with_head
        ``network(body, head)`` is the module that is trained.

    Returns
    -------
    body : TrainableNeck
    run : TrainingRun
    """
    settings = fit.settings
    body = fit.neck.trainable()
    if is_below_float32(body.network):
        raise ValueError(
            "The 'model' parameter must have float32 weights to be fine-tuned: give "
            "model.float(). precision='bfloat16' or 'float16' then computes with fewer "
            "bits. Or train the head only, with unfreeze=None."
        )
    model = network(body, fit.result.head).to(fit.device)
    optimizer = make_optimizer(
        settings.optimizer,
        [*body.parameter_groups(), list(fit.result.head.named_parameters())],
        learning_rate=settings.learning_rate,
        layer_decay=settings.layer_decay,
        weight_decay=settings.weight_decay,
        params=settings.optimizer_params,
        undecayed=body.undecayed_parameters(),
    )
    n_epochs = settings.max_epochs
    if n_epochs == "auto":
        n_epochs = auto_epochs(n_images, settings.batch_size)

    def prepare(epoch):
        parts = unfrozen_parts(settings.unfreeze, body.n_stages, epoch, n_epochs)
        body.train_parts(parts, freeze_statistics=settings.freeze_batch_norm)
        fit.result.head.train()

    run = TrainingRun(
        model,
        optimizer,
        fit.training_loss,
        LoopSettings.of(
            settings,
            phase="body",
            n_epochs=n_epochs,
            n_iter_no_change=settings.patience if validated else None,
            seed=fit.seed,
            first_epoch=fit.n_earlier_epochs,
        ),
        fit.device,
        fit.processes,
        WeightAverage(model, settings.ema_decay) if settings.ema_decay else None,
        prepare,
        teacher=fit.teachers.network(fit.device) if fit.teachers else None,
        taught_fraction=fit.teachers.own_fraction if fit.teachers else 1.0,
    )
    return body, run


def auto_epochs(n_images, batch_size):
    """Return the number of epochs that ``max_epochs="auto"`` means."""
    return epochs_of_steps(_AUTO_STEPS, n_images, batch_size, _AUTO_EPOCHS)


def _make_validate(fit, pixels, validation_rows):
    """Return ``validate(model) -> (loss, score)``, or None without validation set."""
    if fit.data.X_val is not None:
        images, failed = _load_center(fit, "X_val")
        images, targets = images[~failed], fit.data.targets_val.take(~failed)
    elif validation_rows is not None:
        images = pixels[validation_rows]
        targets = fit.data.targets.take(validation_rows)
    else:
        return None
    outputs_of = _CenterOutputs(fit, images)

    def validate(model):
        return fit.evaluate(outputs_of(model), targets)

    return validate


class Probe:
    """Predictions for `X_probe`, NaN for images that cannot be read.

    Parameters
    ----------
    fit : Fit

    Attributes
    ----------
    images : ndarray of uint8, shape (n_images, height, width, 3)
    """

    def __init__(self, fit):
        self.images, self._failed = _load_center(fit, "X_probe")
        self._outputs_of = _CenterOutputs(fit, self.images)
        self._fit = fit

    def __call__(self, model):
        """Return the predictions of a model, float32 of shape (n_images, n_outputs)."""
        outputs = self._outputs_of(model)
        outputs[self._failed] = np.nan
        return self._fit.predictions(outputs)


class _CenterOutputs:
    """Raw outputs for the centers of stored images, in parts that fit in memory."""

    def __init__(self, fit, images):
        self._images = images
        self._device = fit.device
        takes_rows = fit.neck.takes_rows
        self._size = None if takes_rows else fit.neck.preprocessing.crop
        self._n_at_once = fit.neck.suggested_batch_size(fit.device)

    def __call__(self, model):
        """Return outputs of float64, shape (n_images, n_outputs)."""
        while self._n_at_once > 1:
            outputs, cause = try_on_device(self._device, lambda: self._compute(model))
            if cause is None:
                return outputs
            self._n_at_once //= 2
        return self._compute(model)

    @undisturbed_by_forks()
    def _compute(self, model):
        model.eval()
        outputs = []
        with torch.inference_mode():
            for part in torch.from_numpy(self._images).split(self._n_at_once):
                if self._size is not None:  # rows of numbers have no center
                    part = crop_center(part.permute(0, 3, 1, 2), self._size)
                outputs.append(model(part.to(self._device)).float().cpu())
        return torch.cat(outputs).double().numpy()
