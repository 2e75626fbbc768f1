"""Grad-CAM: maps of any layer, weighted by the mean gradient of the score."""

import numpy as np
import torch

from .._utils._parameter_errors import choice_error
from ._network_pass import batches, check_finite, opened_network
from ._positions import layer_with_positions, to_maps


def grad_cam(parts, pixels, indices, targets, *, layer, **options):
    """Return maps weighted by the mean gradient of the score of each channel.

    Parameters and return value are those of `activation_maps.METHODS`.
    """
    neck, maps = parts.neck, []
    with opened_network(neck, parts.settings) as (network, device):
        source = layer_with_positions(neck, layer)
        if layer is None and source.layout == "NLC":
            [(_, image)] = batches(pixels, indices[:1], device)
            source = _last_read(network, image, source, neck)
        for part, images in batches(pixels, indices, device):
            with torch.enable_grad():
                features, found = network.forward_with_maps(
                    images, [source.name], cut=True
                )
                rows = check_finite(features, part, neck, parts.settings)
                columns = targets.choose(parts.end.scores(rows), part)
                gradient = parts.end.gradient(rows, columns)
                gradient = torch.as_tensor(gradient, dtype=torch.float32, device=device)
                slopes = _gradient(features, found.get(source.name), gradient)
            if slopes is None:
                raise _not_read(neck, source)
            slopes = to_maps(slopes, source, neck)
            if source.layout == "NLC" and not slopes.any():
                raise _not_read(neck, source)
            activations = to_maps(found[source.name].detach(), source, neck)
            weights = slopes.float().mean((2, 3), keepdim=True)
            maps.append((weights * activations).sum(1).float().cpu().numpy())
    return np.concatenate(maps)


def _gradient(features, tensor, weights):
    """Return the gradient of weighted features by a tensor, None if there is none."""
    if tensor is None or not features.requires_grad:
        return None
    return torch.autograd.grad(features, tensor, weights, allow_unused=True)[0]


def _last_read(network, image, last, neck):
    """Return the last layer of patch tokens that the features depend on.

    Where only the class token is read, the patch tokens of the last layers are not.
    """
    candidates = [
        one
        for one in neck.probe.layers.values()
        if one.is_offered
        and one.n_positions > 1
        and (one.layout, one.shape) == (last.layout, last.shape)
        and one.order <= last.order
    ]
    with torch.enable_grad():
        image = image.float().div(255).requires_grad_()
        features, found = network.forward_with_maps(
            image, [one.name for one in candidates]
        )
        candidates = [one for one in candidates if one.name in found]
        # Not the sum, which a normalization makes constant.
        weights = torch.linspace(0.5, 1.5, features.shape[1]).expand_as(features)
        slopes = torch.autograd.grad(
            features,
            [found[one.name] for one in candidates],
            weights.to(features.device),
            allow_unused=True,
        )
    for one, slope in reversed(list(zip(candidates, slopes, strict=True))):
        if slope is not None and to_maps(slope, one, neck).any():
            return one
    return last


def _not_read(neck, source):
    return choice_error(
        "layer",
        f"None, or a layer of {neck.spec.name!r} whose positions the features depend "
        "on. Layers after the features, and patch tokens after the last attention "
        "to them, are not",
        source.name,
    )
