"""top_patches: the parts of images that excite one unit of a network most."""

from dataclasses import dataclass

import numpy as np
import torch

from .._utils._parameter_errors import check_count, choice_error
from .._utils._public_function import public_function
from ..feature_extraction import open_extraction
from ._network_pass import batches, opened_network
from ._parts import network_parts
from ._units import Unit, project, receptive_fields, strongest_positions


@dataclass(frozen=True)
class TopPatches:
    """The images that excite a unit most, strongest first.

    Attributes
    ----------
    layer : str
        The name of the layer.
    feature : int
        The channel.
    indices : ndarray of int, shape (n_patches,)
        Which images of X.
    activations : ndarray of float32, shape (n_patches,)
        The largest value of the unit in each of them.
    positions : ndarray of int, shape (n_patches, 2)
        Row and column in the map of the layer.
    boxes : ndarray of int, shape (n_patches, 4)
        The receptive fields: top, left, bottom and right in pixels of `images`, the
        last two excluded.
    images : ndarray of uint8, shape (n_patches, height, width, 3)
        What the network sees of these images.
    patches : list of ndarray of uint8, shape (patch_height, patch_width, 3)
        The parts of the images in the boxes. At the edge of an image, they are smaller.
    """

    layer: str
    feature: int
    indices: np.ndarray
    activations: np.ndarray
    positions: np.ndarray
    boxes: np.ndarray
    images: np.ndarray

    @property
    def patches(self):
        """The parts of the images in the boxes."""
        return self.cut(self.images)

    def cut(self, pictures):
        """Return the parts in the boxes of pictures of the same size as `images`.

        Parameters
        ----------
        pictures : sequence of ndarray, shape (height, width, ...)
            One picture for each patch.

        Returns
        -------
        parts : list of ndarray
            At the edge of a picture, they are smaller.
        """
        pairs = zip(pictures, self.boxes.tolist(), strict=True)
        return [
            one[top:bottom, left:right] for one, (top, left, bottom, right) in pairs
        ]


@public_function
def top_patches(extractor, X, layer, feature, k=9):
    """Return the parts of images that excite one unit of a network most.

    They show what the unit has learned to respond to [1]_. The largest activation of
    each image comes from the cache, if it is there. Only `k` images then run again.

    Parameters
    ----------
    extractor : estimator
        As for `deconvnet`, with any network.
    X : array-like of images, shape (n_samples,) or as the estimator takes them
        The more images, the clearer the picture.
    layer : str or int
        As for `deconvnet`.
    feature : int
        The channel of the unit, from 0.
    k : int, default=9
        Number of images, each with one patch. Fewer if X has fewer.

    Returns
    -------
    patches : TopPatches
        The patches.

    Raises
    ------
    ValueError
        If there is no such layer or unit.
    BadImageError
        If an image cannot be read, with ``on_error="raise"``. With ``"nan"`` it is left
        out.

    See Also
    --------
    skdeepfeat.plotting.TopPatchesDisplay : Draw them next to the patterns in them.

    Notes
    -----
    The receptive field is found by automatic differentiation and counts every
    connection of the network. Attention, or squeeze and excitation, makes it the whole
    image.

    References
    ----------
    .. [1] Zeiler and Fergus, "Visualizing and understanding convolutional networks",
       ECCV 2014.

    Examples
    --------
    >>> import numpy as np
    >>> from skdeepfeat import PretrainedFeatureExtractor
    >>> from skdeepfeat.inspection import top_patches
    >>> X = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
    >>> extractor = PretrainedFeatureExtractor(image_size=64)
    >>> found = top_patches(extractor, X, layer="blocks.1", feature=3)
    >>> found.patches[0].shape
    (19, 19, 3)
    """
    [found] = find_top_patches(extractor, X, layer, [feature], k)
    return found


@public_function
def find_top_patches(extractor, X, layer, features, k):
    """Return `TopPatches` of several units of a layer, with one pass over the images.

    Parameters and errors are those of `top_patches`.
    """
    check_count("k", k)
    parts = network_parts(extractor, X)
    if not len(features):
        wanted = "an int, or a sequence of at least one"
        raise choice_error("features", wanted, features)
    units = [Unit(parts.neck, layer, feature) for feature in features]
    pooling = "max" if units[0].has_positions else "auto"
    neck = parts.neck.at_layer(layer, pooling)
    with open_extraction(parts.X, neck, parts.cache, parts.settings) as extraction:
        rows = extraction.features()
        return [
            _find(unit, rows[:, unit.feature], extraction.source, k, parts.settings)
            for unit in units
        ]


def _find(unit, largest, source, k, settings):
    order = np.argsort(-largest, kind="stable")
    chosen = order[~np.isnan(largest[order])][:k]
    if not len(chosen):
        raise ValueError("X must have at least one image that can be read.")
    preprocessing = unit.neck.preprocessing
    images = np.stack([source.fitted(i, preprocessing) for i in chosen.tolist()])
    positions = []
    with opened_network(unit.neck, settings) as (network, device), torch.no_grad():
        for _, batch in batches(images, np.arange(len(images)), device):
            _, values = unit.activations(network, batch)
            positions.append(strongest_positions(values))
    positions = np.concatenate(positions)
    return TopPatches(
        layer=unit.layer.name,
        feature=unit.feature,
        indices=chosen,
        activations=largest[chosen],
        positions=positions,
        boxes=np.array(receptive_fields(unit, positions)),
        images=images,
    )


@public_function
def project_patches(extractor, patches, guided):
    """Return the signals of `deconvnet` in each of the patches.

    Parameters
    ----------
    extractor : estimator
        As for `top_patches`.
    patches : TopPatches
    guided : bool

    Returns
    -------
    list of ndarray of float32, shape (patch_height, patch_width, 3)
    """
    parts = network_parts(extractor)
    unit = Unit(parts.neck, patches.layer, patches.feature)
    everything = np.arange(len(patches.images))
    signals = project(unit, parts.settings, patches.images, everything, guided)
    return patches.cut(np.concatenate([signal for _, signal in signals]))
