"""Class activation maps: exact, and without gradients."""

import math

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from .._utils._parameter_errors import choice_error
from ._ends import linear_form
from ._network_pass import batches, check_finite, opened_network
from ._positions import grid_of_tokens, layer_with_positions, to_maps

_aten = torch.ops.aten
_AVERAGES = (_aten.mean, _aten.avg_pool2d, _aten._adaptive_avg_pool2d)
_TOLERANCE = 1e-4


def cam(parts, pixels, indices, targets, *, layer, **options):
    """Return maps whose mean over the positions, plus the intercept, is the score.

    If the features are the mean of a map over its positions, a linear score of the
    features is the mean of the same linear score of each position.

    Parameters and return value are those of `activation_maps.METHODS`.
    """
    neck, maps, form = parts.neck, [], None
    source = None if layer is None else layer_with_positions(neck, layer)
    with opened_network(neck, parts.settings) as (network, device):
        for part, images in batches(pixels, indices, device):
            with torch.no_grad(), _Averages(len(part), network.n_features) as averages:
                names = [source.name] if source else []
                features, found = network.forward_with_maps(images, names)
            rows = check_finite(features, part, neck, parts.settings)
            pooled = averages.input_of(features, neck)
            if source is not None and source.name in found:
                pooled = to_maps(found[source.name], source, neck)
            if pooled is None or not _is_mean(features, pooled):
                if source is None and neck.last_map() is not None:
                    # Small images leave a single position: the error says so.
                    layer_with_positions(neck, None)
                raise _not_averaged(neck, source)
            if form is None:
                form = linear_form(parts.end, rows)
            coefficients, intercepts = form
            columns = targets.choose(rows @ coefficients.T + intercepts, part)
            weights = torch.as_tensor(coefficients[columns], dtype=torch.float32)
            weighted = torch.einsum("nc,nchw->nhw", weights.to(device), pooled.float())
            maps.append(weighted.cpu().numpy())
    return np.concatenate(maps)


class _Averages(TorchDispatchMode):
    """Keeps the inputs of averages over positions, as long as it is entered."""

    def __init__(self, n_images, n_features):
        super().__init__()
        self._n_rows = n_images
        self._n_values = n_images * n_features
        self._seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in _AVERAGES and result.numel() == self._n_values:
            axes = args[1] if func.overloadpacket is _aten.mean else (2, 3)
            n_axes = args[0].ndim
            axes = {axis % n_axes for axis in axes or ()}
            kept = set(range(n_axes)) - axes - {0}
            if len(kept) == 1 and len(axes) == n_axes - 2 and n_axes in (3, 4):
                self._seen.append((args[0], kept.pop()))
        return result

    def input_of(self, features, neck):
        """Return the maps, shape (n, n_features, h, w), whose mean the features are.

        None if there are none.
        """
        for tensor, channel_axis in reversed(self._seen):
            tensor = tensor.movedim(channel_axis, 1)
            if tensor.shape[2:].numel() > 1 and _is_mean(features, tensor):
                if tensor.ndim == 4:
                    return tensor
                grid = grid_of_tokens(tensor.shape[2], neck, neck.layer)
                return tensor.unflatten(2, grid)
        return None


def _is_mean(features, maps):
    """Return whether features are the mean of maps over all positions."""
    means = maps.float().flatten(2).mean(2)
    if means.shape != features.shape:
        return False
    difference = (means - features).abs().max().item()
    return difference <= _TOLERANCE * max(features.abs().max().item(), math.ulp(1))


def _not_averaged(neck, source):
    instead = (
        "Otherwise method='gradcam', or an extractor that averages a map, such as "
        "PretrainedFeatureExtractor(layer=-1, pooling='avg'), can be used"
    )
    if source is not None:
        wanted = (
            f"None for method='cam', or the layer of {neck.spec.name!r} whose average "
            f"over the positions the features are. {instead}"
        )
        return choice_error("layer", wanted, source.name)
    return ValueError(
        "The 'method' parameter must not be 'cam' for features that are not the mean "
        "of one map over its positions, as those of layer "
        f"{', '.join(repr(one.layer) for one in neck.outputs)} of {neck.spec.name!r}. "
        f"{instead}. Got 'cam' instead."
    )
