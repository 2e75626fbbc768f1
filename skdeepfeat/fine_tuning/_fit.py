"""The two phases of one fit.

Phase one leaves the body as it is and fits a new head on cached features. Phase two
unfreezes the body and trains it together with the head. docs/architecture.md draws
the whole way.
"""

import copy
import dataclasses
import os
import re
import time
import warnings

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from torch import nn

from .._utils._device import free_device_memory, is_out_of_memory, resolve_device
from .._utils._digests import digest_arrays
from .._utils._forks import undisturbed_by_forks
from ..exceptions import NonFiniteOutputError, TrainingDivergedError
from ..feature_extraction import load_pixels, open_extraction
from ..networks import is_below_float32
from ..training import (
    Augmentation,
    FeatureData,
    LoopSettings,
    PixelData,
    Processes,
    TrainingRun,
    WeightAverage,
    copy_state,
    crop_centre,
    first_trained_stage,
    fit_linear_head,
    fold_standardisation,
    load_checkpoint,
    make_head,
    make_loss,
    make_optimizer,
    read_checkpoint_header,
    save_checkpoint,
    standardisation,
)
from ._views import MAX_BYTES_IN_MEMORY, with_margin

__all__ = ["apply_head", "begin_fit"]

# The head's own training by gradient, on standardised features: 1e-3 is Adam's usual
# rate; small batches because there is nothing to gain from large ones.
_HEAD_LEARNING_RATE = 1e-3
_HEAD_BATCH_SIZE = 64

# What "auto" means for `max_epochs`: as many steps as make a small set of images learn
# without making a large one wait.
_AUTO_STEPS = 1500
_AUTO_EPOCHS = (8, 30)

_NOTHING_TO_FIT = (
    "There is nothing to fit: each image of X cannot be read or has a weight of 0 "
    "(sample_weight times class_weight)."
)

# Parameters that a result does not depend on, so a checkpoint does not mind them.
_NOT_PART_OF_A_RESULT = {
    "cache", "checkpoint", "device", "max_pixels", "on_error", "random_state",
    "test_time_augmentation", "verbose",
}  # fmt: skip


def begin_fit(estimator, X, targets, sample_weight, validation=None, plan=None):
    """Return what a fit consists of, before any of it has been done.

    Parameters
    ----------
    estimator : BaseFineTune
        It is not changed.
    X : images, as `_check_images` returned them
    targets : Targets
    sample_weight : ndarray of float, shape (n_samples,)
    validation : tuple of (X, Targets) or None, default=None
    plan : dict or None, default=None
        Parameters that are to be otherwise than the estimator's.

    Returns
    -------
    _Fit
    """
    return _Fit(estimator, X, targets, sample_weight, validation, plan or {})


class _TunedNetwork(nn.Module):
    """A body and its new head."""

    def __init__(self, neck, head):
        super().__init__()
        self.neck = neck
        self.head = head

    def forward(self, images):
        return self.head(self.neck(images))


class _Fit:
    """One call of `fit`: everything that is there only while it runs.

    Attributes
    ----------
    head, body : Module or None
        The result; `body` is None where it was left as it came.
    history : list of dict
        Of this fit and of those that it goes on from.
    n_epochs, n_earlier_epochs : int
        Epochs of phase two, with those of earlier fits; and those alone.
    best_epoch, best_score : int, float or None
    """

    def __init__(self, estimator, X, targets, sample_weight, validation, plan):
        self.estimator = estimator
        self.parameters = {**estimator.get_params(deep=False), **plan}
        self.X = X
        self.targets = targets
        self.weights = sample_weight
        self.validation = validation
        self.neck = estimator._resolve_neck(needs_weights=not self._has_body())
        self.device = Processes.own_device(resolve_device(estimator.device))
        self.processes = Processes(self.device)
        self.settings = dataclasses.replace(estimator._settings(), device=self.device)
        self.held = (
            read_checkpoint_header(self["checkpoint"]) if self["checkpoint"] else None
        )
        self.seed = self.processes.same_for_all(self._draw_seed())
        self.head = self.body = None
        self.interrupted = False
        self._begin_history()
        self._digests = {}  # by the id of X: both phases see the same images
        self.loss = make_loss(
            self["loss"],
            targets.task,
            label_smoothing=self.parameters.get("label_smoothing", 0.0),
        )

    def __getitem__(self, name):
        return self.parameters[name]

    def _begin_history(self):
        """Go on from the history of the fit that this one goes on from."""
        est = self.estimator
        self.history, self.n_epochs = [], 0
        self.best_epoch = self.best_score = None
        if self._continues():
            self.history, self.n_epochs = est.history_.to_dict("records"), est.n_epochs_
            self.best_epoch = est.best_epoch_
            self.best_score = est.best_validation_score_
        self.n_earlier_epochs = self.n_epochs

    def _draw_seed(self):
        seed = None if self.held is None else self.held.get("seed")
        if self.estimator.random_state is None and type(seed) is int:
            # What is to be continued went by this one.
            return seed % 2**31
        draw = check_random_state(self.estimator.random_state)
        return int(draw.randint(2**31 - 1))

    @property
    def tunes_body(self):
        return self["unfreeze"] not in (None, 0) and self["max_epochs"] != 0

    def run(self):
        """Go through the phases."""
        neck, rows, held_out = self.prepare_head()
        if self.tunes_body and not self.interrupted:
            self._tune(neck, rows, held_out)

    def prepare_head(self):
        """Phase one: set `head` for the body as it is.

        Returns
        -------
        neck : Neck
            Of the body that phase two begins with.
        rows, held_out : ndarray of int
            To train on; and for validation, or None.
        """
        neck, head = self._starting_point()
        features, failed = self._extract(neck, self.X)
        # A weight of zero takes a row out: it must not count in the statistics of a
        # standardisation or a batch normalization either.
        rows, held_out = self._split(np.flatnonzero(~failed & (self.weights > 0)))
        if head is None:
            judge = self._features_to_judge(neck, features, held_out)
            head = self._fit_head(features[rows], rows, judge)
        self.head = head
        return neck, rows, held_out

    def _starting_point(self):
        """Return the neck to begin with, and the head of an earlier fit or None."""
        est = self.estimator
        if not self._continues():
            return self.neck, None
        head = copy.deepcopy(est.head_).requires_grad_(True)
        if not self._has_body():
            return self.neck, head
        self.body = est.body_
        return self.neck.with_network(est.body_), head

    def _continues(self):
        return self["warm_start"] and hasattr(self.estimator, "head_")

    def _has_body(self):
        """Whether the fit goes on with a body that was tuned before."""
        return self._continues() and self.estimator.body_ is not None

    def _features_to_judge(self, neck, features, held_out):
        """Return (features, targets) of the validation rows, or None."""
        if self.validation is not None:
            X_val, targets = self.validation
            try:
                features, failed = self._extract(neck, X_val)
            except NonFiniteOutputError as error:
                raise error.at(error.rows, "X_val") from None
            return features[~failed], targets.take(~failed)
        if held_out is not None:
            return features[held_out], self.targets.take(held_out)
        return None

    def _extract(self, neck, X):
        cache = self.estimator.cache
        with open_extraction(X, neck, cache, self.settings) as extraction:
            self._digests[id(X)] = extraction.digests
            return extraction.features(), extraction.failed()

    def _split(self, rows):
        """Return the rows to train on, and those held out for validation or None."""
        if len(rows) == 0:
            raise ValueError(_NOTHING_TO_FIT)
        if not self["early_stopping"] or self.validation is not None:
            return rows, None
        single = self.targets.task == "single"
        fraction = self["validation_fraction"]
        try:
            kept, held_out = train_test_split(
                rows,
                test_size=fraction,
                random_state=self.seed,
                stratify=self.targets.values[rows] if single else None,
            )
        except ValueError as error:
            raise ValueError(
                f"The 'validation_fraction' parameter, {fraction}, cannot be held out "
                f"of {len(rows)} images ({error}). Choose another, give X_val and "
                "y_val, or train without early_stopping."
            ) from error
        return np.sort(kept), np.sort(held_out)

    def _weights_of(self, rows):
        weights = self.weights[rows].astype(np.float64)
        weights /= weights.max()  # the sum of huge ones would be infinite
        return torch.from_numpy((weights / weights.mean()).astype(np.float32))

    def _fit_head(self, features, rows, judge):
        """Phase one: return a head for the body as it is."""
        start = time.perf_counter()
        targets = self.targets.take(rows)
        sizes = tuple(self["hidden_layer_sizes"])
        head = make_head(
            features.shape[1], targets.n_outputs, sizes, self["dropout"], self.seed
        )
        mean, scale = standardisation(features)
        standard = (features - mean) / scale
        if judge is not None:
            judge = ((judge[0] - mean) / scale, judge[1])
        by_gradient = self["head_init"] == "random"
        if sizes and not by_gradient:
            if self["head_init"] != "auto":
                raise ValueError(
                    "The 'head_init' parameter must be 'auto' or 'random' for a head "
                    f"with hidden layers. Got {self['head_init']!r} instead."
                )
            by_gradient = True
        if by_gradient:
            try:
                self._train_head(head, standard, rows, judge)
            except TrainingDivergedError:
                fold_standardisation(head, mean, scale)
                self.head = head
                raise
        else:
            weights = self._weights_of(rows).numpy().astype(np.float64)
            fit_linear_head(
                head,
                standard,
                targets.values,
                weights,
                task=targets.task,
                seed=self.seed,
            )
            self._record_head(head, standard, rows, judge, start)
        fold_standardisation(head, mean, scale)
        return head

    def _record_head(self, head, standard, rows, judge, start):
        outputs = torch.from_numpy(apply_head(head, standard)).float()
        loss = self.loss(outputs, self.targets.take(rows).tensor())
        record = {
            "phase": "head",
            "epoch": 1,
            "train_loss": float((loss * self._weights_of(rows)).mean()),
            "validation_loss": np.nan,
            "validation_score": np.nan,
            "learning_rate": np.nan,
            "seconds": time.perf_counter() - start,
        }
        if judge is not None:
            found = self._judge(apply_head(head, judge[0]), judge[1])
            record["validation_loss"], record["validation_score"] = found
        self.history.append(record)

    def _train_head(self, head, standard, rows, judge):
        stops = judge is not None and self["early_stopping"]
        settings = LoopSettings(
            phase="head",
            n_epochs=self["head_epochs"],
            batch_size=_HEAD_BATCH_SIZE,
            learning_rate=_HEAD_LEARNING_RATE,
            schedule="cosine",
            seed=self.seed,
            n_iter_no_change=self["n_iter_no_change"] if stops else None,
            verbose=self.settings.verbose,
        )
        head.to(self.device)
        optimizer = make_optimizer(
            "adamw",
            [list(head.named_parameters())],
            learning_rate=_HEAD_LEARNING_RATE,
            weight_decay=self["weight_decay"],
        )
        run = TrainingRun(
            head, optimizer, self.loss, settings, self.device, self.processes
        )
        data = FeatureData(
            standard, self.targets.take(rows).tensor(), self._weights_of(rows)
        )
        validate = None
        if judge is not None:

            def validate(model):
                return self._judge(apply_head(model, judge[0], self.device), judge[1])

        try:
            run.fit(data, validate)
        finally:
            self.history += run.history
            self.interrupted = run.interrupted
            head.cpu().eval()

    def _judge(self, outputs, targets):
        """Return (loss, score) of raw outputs."""
        if not np.isfinite(outputs).all():
            raise TrainingDivergedError(
                "The network's outputs for the validation set were NaN or infinite. "
                "The estimator has the weights of the last good epoch. Choose a "
                f"smaller 'learning_rate' (now {self['learning_rate']:g})."
            )
        loss = self.loss(torch.from_numpy(outputs).float(), targets.tensor())
        score = self.estimator._score_outputs(outputs, targets)
        return float(loss.mean()), float(score)

    # -- Phase two

    def _tune(self, neck, rows, held_out):
        try:
            pixels, data, failed = self.load(neck, rows)
            if held_out is not None:
                held_out = held_out[~failed[held_out]]
            validate = self._pixel_validation(pixels, held_out, neck)
        except KeyboardInterrupt:
            warnings.warn(
                "The fit was interrupted while the images were decoded. The estimator "
                "is fitted, with a new head on the body as it was.",
                RuntimeWarning,
                stacklevel=2,
            )
            return
        body, run = self.training_run(neck, len(data), validate is not None)
        after_epoch = self._resume(run, data)
        n_before = len(self.history)
        try:
            run.fit(data, validate, after_epoch)
        finally:
            self.body = body.network
            self.history = self.history[:n_before] + run.history
            self.n_epochs = self.n_earlier_epochs + run.epoch
            if run.epoch:
                # Without early stopping the weights are those of the last epoch.
                is_best = run.best_epoch is not None and self["early_stopping"]
                best = self.n_earlier_epochs + (run.best_epoch or 0)
                self.best_epoch = best if is_best else None
                self.best_score = run.best_score if is_best else None

    def load(self, neck, rows):
        """Return pixels, data, and which of the images could not be read.

        Parameters
        ----------
        neck : Neck
        rows : ndarray of int
            Those that are trained on.

        Returns
        -------
        pixels : ndarray of uint8, shape (n_images, height, width, 3)
        data : PixelData
            Of `rows`, without those that can no longer be read.
        failed : ndarray of bool, shape (n_images,)
        """
        pixels, failures = load_pixels(
            self.X,
            with_margin(neck.preprocessing),
            self.settings,
            MAX_BYTES_IN_MEMORY,
            self._digests.get(id(self.X)),
        )
        failed = np.zeros(len(pixels), bool)
        failed[[failure.row for failure in failures]] = True
        rows = rows[~failed[rows]]
        if len(rows) == 0:
            raise ValueError(_NOTHING_TO_FIT)
        data = PixelData(
            pixels,
            self.targets.take(rows).tensor(),
            self._weights_of(rows),
            Augmentation(self["augment"], neck.preprocessing.crop),
            rows,
        )
        return pixels, data, failed

    def training_run(self, neck, n, validated=False):
        """Return a body of its own and the `TrainingRun` of it with the head."""
        body = neck.trainable()
        if is_below_float32(body.network):
            raise ValueError(
                "The 'model' parameter must have float32 weights to be fine-tuned: "
                "give model.float(). precision='bfloat16' or 'float16' then computes "
                "with fewer bits. Or leave the body as it is with unfreeze=None."
            )
        model = _TunedNetwork(body, self.head).to(self.device)
        n_epochs = self._n_epochs(n)
        run = TrainingRun(
            model,
            self._make_optimizer(body),
            self.loss,
            self._loop_settings(n_epochs, validated),
            self.device,
            self.processes,
            WeightAverage(model, self["ema_decay"]) if self["ema_decay"] else None,
            self._freezing(body, n_epochs),
        )
        return body, run

    def _n_epochs(self, n):
        if self["max_epochs"] != "auto":
            return self["max_epochs"]
        n_steps = max(1, n // self["batch_size"])
        low, high = _AUTO_EPOCHS
        return int(np.clip(_AUTO_STEPS // n_steps, low, high))

    def _make_optimizer(self, body):
        return make_optimizer(
            self["optimizer"],
            [*body.parameter_groups(), list(self.head.named_parameters())],
            learning_rate=self["learning_rate"],
            layer_decay=self["layer_decay"],
            weight_decay=self["weight_decay"],
            momentum=self["momentum"],
            undecayed=body.undecayed_parameters(),
        )

    def _loop_settings(self, n_epochs, validated):
        stops = validated and self["early_stopping"]
        return LoopSettings(
            phase="body",
            n_epochs=n_epochs,
            batch_size=self["batch_size"],
            learning_rate=self["learning_rate"],
            schedule=self["schedule"],
            warmup=self["warmup"],
            max_grad_norm=self["max_grad_norm"],
            precision=self["precision"],
            mixup=self["mixup"],
            n_iter_no_change=self["n_iter_no_change"] if stops else None,
            seed=self.seed,
            first_epoch=self.n_earlier_epochs,
            verbose=self.settings.verbose,
        )

    def _freezing(self, body, n_epochs):
        def prepare(epoch):
            first = first_trained_stage(
                self["unfreeze"], body.n_stages, epoch, n_epochs
            )
            body.train_from(first, freeze_statistics=self["freeze_batch_norm"])
            self.head.train()

        return prepare

    def _pixel_validation(self, pixels, held_out, neck):
        if self.validation is not None:
            X_val, targets = self.validation
            images, failures = load_pixels(
                X_val,
                neck.preprocessing,
                self.settings,
                MAX_BYTES_IN_MEMORY,
                self._digests.get(id(X_val)),
            )
            bad = {failure.row for failure in failures}
            usable = [row for row in range(len(images)) if row not in bad]
            images, targets = images[usable], targets.take(usable)
        elif held_out is not None:
            images = pixels[held_out]
            targets = self.targets.take(held_out)
        else:
            return None
        size = neck.preprocessing.crop
        n_at_once = neck.suggested_batch_size(self.device)

        def validate(model):
            nonlocal n_at_once
            while True:
                try:
                    outputs = _centre_outputs(
                        model, images, size, n_at_once, self.device
                    )
                    return self._judge(outputs, targets)
                except Exception as error:
                    if n_at_once == 1 or not is_out_of_memory(error):
                        raise
                n_at_once //= 2
                free_device_memory(self.device)

        return validate

    # -- Checkpoints

    def _resume(self, run, data):
        """Go on from a checkpoint, if there is one; return what writes the next."""
        path = self["checkpoint"]
        if path is None:
            return None
        header = {
            "seed": self.seed,
            "first_epoch": self.n_earlier_epochs,
            "parameters": self._describe_parameters(),
            "network": _digest_weights(run.model.neck),
            "data": digest_arrays(
                data.pixels, data.rows, data.targets.numpy(), data.weights.numpy()
            ),
        }
        if self.held is not None:
            self._refuse_other(path, self.held, header)
            load_checkpoint(path, run)

        def after_epoch(run):
            if self.processes.rank == 0:
                save_checkpoint(path, run, header)

        return after_epoch

    def _describe_parameters(self):
        return {
            name: _describe(value)
            for name, value in self.parameters.items()
            if name not in _NOT_PART_OF_A_RESULT
        }

    def _refuse_other(self, path, held, header):
        parameters = held.get("parameters")
        if not isinstance(parameters, dict):
            parameters = {}
        other = [
            repr(name)
            for name, value in header["parameters"].items()
            if parameters.get(name) != value
        ]
        if held.get("network") != header["network"]:
            other.append("the network's weights")
        if held.get("first_epoch") != header["first_epoch"]:
            other.append("the number of epochs before it")
        if held.get("data") != header["data"]:
            other.append("the images, targets or weights")
        if held.get("seed") != header["seed"]:
            other.append("'random_state'")
        if other:
            raise ValueError(
                f"The 'checkpoint' file {os.fspath(path)!r} belongs to another fit, "
                f"with other values of {', '.join(other)}. Delete it to start over, or "
                "choose another path."
            )


def _digest_weights(module):
    tensors = copy_state(module).values()
    # As bytes, because numpy knows no bfloat16.
    return digest_arrays(*(t.reshape(-1).view(torch.uint8).numpy() for t in tensors))


def _describe(value):
    """Return a value as a JSON type that is the same in every process."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (int, float, str, type(None))):
        return value
    # What has no text of its own, such as a function, is shown with its address.
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


@undisturbed_by_forks()
def apply_head(head, features, device=None):
    """Return raw outputs as float64; rows of NaN stay such."""
    head.eval()
    with torch.inference_mode():
        rows = torch.as_tensor(np.ascontiguousarray(features))
        return head(rows.to(device) if device else rows).cpu().double().numpy()


@undisturbed_by_forks()
def _centre_outputs(model, images, size, n_at_once, device):
    """Return raw outputs of the centres of stored images as float64."""
    model.eval()
    outputs = []
    with torch.inference_mode():
        for start in range(0, len(images), n_at_once):
            part = torch.from_numpy(images[start : start + n_at_once])
            part = crop_centre(part.permute(0, 3, 1, 2), size)
            outputs.append(model(part.to(device)).float().cpu())
    return torch.cat(outputs).double().numpy()
