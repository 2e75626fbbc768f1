"""The gradient of the loss with respect to each stage of a network."""

import numpy as np
import torch
from sklearn.utils import _safe_indexing

from .._utils._forks import undisturbed_by_forks
from ..feature_extraction import errors_at, non_finite_error
from ._body_phase import load_images, make_training_run
from ._fit import Fit
from ._fit_settings import FitData, FitSettings
from ._rows import non_finite_rows_error
from ._trial import (
    OF_TRIAL,
    choose_rows,
    copy_with,
    own_random_state,
    require_fine_tune,
)


def stage_gradients(estimator, X, y, n_samples):
    """Return the norms of each stage of the body, first to last, and of the head.

    Parameters
    ----------
    estimator : FineTuneClassifier or FineTuneRegressor
        It is not changed. If it is not fitted, phase one of its fit is run on all
        images, for a head.
    X, y : as for its `fit`
    n_samples : int
        The number of images that the gradient is computed on.

    Returns
    -------
    list of dict
        ``layer``, which ends the stage, or "head"; ``n_parameters``; ``weight_norm``
        and ``gradient_norm``, the Euclidean norms of all weights and their gradient.
    """
    require_fine_tune(estimator, "relative_gradient_norms")
    random_state = own_random_state(estimator)
    # Without teacher, because the gradient is that of the labels.
    trial = copy_with(estimator, random_state=random_state, teacher=None)
    is_fitted = hasattr(trial, "head_")
    data = trial._prepare(X, y, reset=not is_fitted)
    indices = choose_rows(data.targets, n_samples, trial.random_state)
    few = FitData(
        _safe_indexing(data.X, indices),
        data.targets.take(indices),
        data.weights[indices],
    )
    settings = FitSettings.of(trial, **OF_TRIAL, augment=None)
    fit = Fit(trial, data, settings, continues=is_fitted)
    if not is_fitted:
        fit.prepare_head()
    fit.data = few
    with errors_at(indices):
        _, images, _ = load_images(fit, np.arange(len(indices)))
    body, run = make_training_run(fit, len(images))
    body.train_parts(range(body.n_stages), freeze_statistics=True)
    run.model.eval()
    with errors_at(indices):
        _add_gradients(fit, run.model, images)
    groups = zip(
        [*body.stage_layers, "head"],
        [*body.parameter_groups(), list(fit.result.head.named_parameters())],
        strict=True,
    )
    return [_norms(layer, [one for _, one in group]) for layer, group in groups]


@undisturbed_by_forks()
def _add_gradients(fit, model, images):
    """Compute the gradient of the mean loss over images."""
    n_at_once = fit.settings.batch_size
    for start in range(0, len(images), n_at_once):
        part = np.arange(start, min(start + n_at_once, len(images)))
        inputs = images.batch(part, np.random.default_rng(0), part, len(images))
        outputs = model(inputs.to(fit.device))
        refused = ~torch.isfinite(outputs).all(1).cpu().numpy()
        if refused.any():
            raise _non_finite_error(fit, images, part[refused])
        losses = fit.loss(outputs, images.targets[part].to(fit.device))
        weights = images.weights[part].to(fit.device) / len(images)
        (losses * weights).sum().backward()


def _non_finite_error(fit, images, part):
    if fit.neck.takes_rows:
        return non_finite_rows_error(part.tolist())
    rows = images.rows[part].tolist()
    return non_finite_error(fit.neck, fit.settings.precision, rows)


def _norms(layer, parameters):
    gradients = [one.grad for one in parameters if one.grad is not None]
    return {
        "layer": layer,
        "n_parameters": sum(one.numel() for one in parameters),
        "weight_norm": _norm(parameters),
        "gradient_norm": _norm(gradients),
    }


def _norm(tensors):
    squares = (float(one.detach().cpu().double().square().sum()) for one in tensors)
    return float(np.sqrt(sum(squares)))
