"""Raw outputs of a fitted head for new images, from one view of each or several."""

import numpy as np
import torch

from .._utils._device import resolve_device
from .._utils._parameter_errors import look_up
from ..exceptions import NonFiniteOutputError
from ..feature_extraction import list_failures, load_pixels, non_finite_error, warn_of
from ._head_phase import apply_head
from ._rows import open_features
from ._views import VIEWS, cut_view, with_margin


def compute_outputs(X, neck, head, settings, cache, *, refuse_failures):
    """Return raw outputs as float64, shape (n_samples, n_outputs).

    Parameters
    ----------
    X : images, as `_check_images` returned them
    neck : Neck
    head : Sequential
    settings : ExtractionSettings
    cache : as the parameter of the estimators
    refuse_failures : bool
        Whether images that cannot be read are an error whatever `settings.on_error`
        is. The error is raised before anything is computed, if possible.
    """
    with open_features(X, neck, cache, settings) as extraction:
        if refuse_failures:
            _refuse(extraction.failures())
        features = extraction.features(warns=not refuse_failures)
        if refuse_failures:
            _refuse(extraction.failures())
        failed = extraction.failed()
    return _checked(head, apply_head(head, features), failed)


def compute_outputs_of_views(X, neck, head, settings, views, *, refuse_failures):
    """Return the mean raw outputs of several views of each image.

    Parameters
    ----------
    X, neck, head, settings, refuse_failures
        As for `compute_outputs`.
    views : str
        A key of `VIEWS`.
    """
    places = look_up(VIEWS, views, "test_time_augmentation")
    size = neck.preprocessing.crop
    pixels, failures, failed = load_pixels(X, with_margin(neck.preprocessing), settings)
    if refuse_failures:
        _refuse(failures)
    elif failures:
        warn_of(failures)
    device = resolve_device(settings.device)
    outputs = np.zeros((len(pixels), head[-1].out_features))
    refused = np.zeros(len(pixels), bool)
    n_at_once = neck.suggested_batch_size(device)
    with neck.loaded(device, settings.precision) as run:
        for start in range(0, len(pixels), n_at_once):
            rows = slice(start, start + n_at_once)
            for place, mirrored in places:
                view = cut_view(pixels[rows], size, place)
                view = view[:, :, ::-1] if mirrored else view
                [features] = run(np.ascontiguousarray(view))
                refused[rows] |= ~np.isfinite(features).all(axis=1)
                outputs[rows] += apply_head(head, features) / len(places)
    # Images that could not be read have pixels of zero here.
    refused &= ~failed
    if refused.any():
        indices = np.flatnonzero(refused).tolist()
        raise non_finite_error(neck, settings.precision, indices)
    return _checked(head, outputs, failed)


def _refuse(failures):
    """Raise if there are images that could not be read, which have no label."""
    if not failures:
        return
    indices = [failure.index for failure in failures]
    more = ", ..." if len(indices) > 10 else ""
    raise ValueError(
        f"{len(indices)} image(s) could not be read, so they have no label (indices "
        f"{str(indices[:10])[:-1]}{more}]). predict_proba (or decision_function) gives "
        "rows of NaN for them:\n"
        f"{list_failures(failures)}"
    )


def _checked(head, outputs, failed):
    """Return outputs, NaN for images that failed; others must be finite."""
    outputs[failed] = np.nan
    refused = ~np.isfinite(outputs).all(axis=1) & ~failed
    if not refused.any():
        return outputs
    is_finite = all(bool(torch.isfinite(weight).all()) for weight in head.parameters())
    cause = "its outputs overflow" if is_finite else "its weights are NaN or infinite"
    raise NonFiniteOutputError(
        "The features are finite, and the cause is the head that was fitted to them: "
        f"{cause}. Fit it again with a smaller 'learning_rate' or without images whose "
        "features are extremely large.",
        np.flatnonzero(refused).tolist(),
    )
