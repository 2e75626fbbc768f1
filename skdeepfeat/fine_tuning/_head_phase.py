"""Phase one: a new head on the features of the body as it is."""

import copy
import time

import numpy as np
import torch

from .._utils._forks import undisturbed_by_forks
from .._utils._parameter_errors import choice_error
from ..training import (
    FeatureData,
    LoopSettings,
    TrainingRun,
    fit_linear_head,
    fold_standardization,
    make_head,
    make_optimizer,
    standardization,
)

# The usual rate of Adam; small batches, because larger ones would save no time.
_LEARNING_RATE = 1e-3
_BATCH_SIZE = 64


@undisturbed_by_forks()
def apply_head(head, features):
    """Return raw outputs as float64. NaN in, NaN out."""
    head.eval()
    with torch.inference_mode():
        rows = torch.as_tensor(np.ascontiguousarray(features))
        return head(rows.to(head[-1].weight.device)).cpu().double().numpy()


def fit_head(fit, features, rows, validation, probe=None):
    """Set the `head` of a fit.

    Parameters
    ----------
    fit : Fit
    features : ndarray of float32, shape (n_samples, n_features)
    rows : ndarray of int, shape (n_samples,)
        The images that the features belong to.
    validation : tuple of (features, Targets) or None
    probe : ndarray of float32 or None, default=None
        The features of `X_probe`.
    """
    settings = fit.settings
    sizes = tuple(settings.hidden_layer_sizes)
    if sizes and settings.head_init not in ("auto", "random"):
        wanted = "'auto' or 'random' for a head with hidden layers"
        raise choice_error("head_init", wanted, settings.head_init)
    if fit.teachers and not (settings.trains_body or fit.trains_head):
        raise choice_error(
            "head_init",
            "'auto' or 'random' with a 'teacher' and no phase two, as a linear model "
            "of the labels learns nothing from a teacher",
            settings.head_init,
        )
    targets = fit.data.targets.take(rows)
    head = make_head(
        features.shape[1], targets.n_outputs, sizes, settings.dropout, fit.seed
    )
    wanted, weights = targets.tensor(), fit.weights_of(rows)
    if fit.trains_head and settings.head_epochs:
        features, unlabeled_rows = fit.with_unlabeled(features)
        wanted, weights = fit.taught_targets(rows, unlabeled_rows, own=True)
    mean, scale = standardization(features)
    if validation is not None:
        validation = ((validation[0] - mean) / scale, validation[1])
    if probe is not None:
        probe = (probe - mean) / scale
    data = FeatureData((features - mean) / scale, wanted, weights)

    def attributes(history=(), probes=()):
        trained = copy.deepcopy(head).cpu()
        fold_standardization(trained, mean, scale)
        return fit.attributes_of(fit.result.after(history, probes, head=trained))

    def keep():
        fold_standardization(head, mean, scale)
        fit.result.head = head

    if fit.trains_head:
        _train(fit, head, data, validation, probe, rows, attributes, keep)
        return
    with fit.callbacks.phase("head", 1, rows, attributes) as epochs:
        epochs.begin()
        _solve(fit, head, data, targets, validation, probe)
        epochs.end()
    keep()


def _solve(fit, head, data, targets, validation, probe):
    """Fit a linear head with scikit-learn, and record it as one epoch."""
    start = time.perf_counter()
    features = data.inputs.numpy()
    weights = data.weights.numpy().astype(np.float64)
    fit_linear_head(
        head, features, targets.values, weights, task=targets.task, seed=fit.seed
    )
    outputs = torch.from_numpy(apply_head(head, features)).float()
    record = {
        "phase": "head",
        "epoch": 1,
        "train_loss": float((fit.loss(outputs, data.targets) * data.weights).mean()),
        "validation_loss": np.nan,
        "validation_score": np.nan,
        "learning_rate": np.nan,
        "seconds": time.perf_counter() - start,
    }
    if validation is not None:
        found = fit.evaluate(apply_head(head, validation[0]), validation[1])
        record["validation_loss"], record["validation_score"] = found
    fit.result.history.append(record)
    if probe is not None:
        fit.result.probes.append(fit.predictions(apply_head(head, probe)))


def _train(fit, head, data, validation, probe, rows, attributes, keep):
    """Train a head by gradient descent, and keep it also if the training diverges."""
    settings = fit.settings
    head.to(fit.device)
    run = TrainingRun(
        head,
        make_optimizer(
            "adamw",
            [list(head.named_parameters())],
            learning_rate=_LEARNING_RATE,
            weight_decay=settings.weight_decay,
        ),
        fit.training_loss,
        LoopSettings(
            phase="head",
            n_epochs=settings.head_epochs,
            batch_size=_BATCH_SIZE,
            learning_rate=_LEARNING_RATE,
            schedule="cosine",
            seed=fit.seed,
            n_iter_no_change=None if validation is None else settings.patience,
            verbose=settings.verbose,
        ),
        fit.device,
        fit.processes,
    )

    def validate(model):
        return fit.evaluate(apply_head(model, validation[0]), validation[1])

    def record(model):
        return fit.predictions(apply_head(model, probe))

    def finish():
        fit.result = fit.result.after(run.history, run.probes)
        fit.interrupted = run.interrupted
        head.cpu().eval()
        keep()

    fit.callbacks.train(
        run,
        data,
        rows,
        lambda: attributes(run.history, run.probes),
        finish,
        None if validation is None else validate,
        probe=None if probe is None else record,
    )
