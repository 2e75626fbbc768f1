"""first_filters: the filters with which a network looks at pixels."""

import torch
from torch import nn

from .._utils._parameter_errors import choice_error
from .._utils._public_function import public_function
from ._parts import network_parts


@public_function
def first_filters(estimator):
    """Return the filters of the first convolution, as it acts on pixels.

    Parameters
    ----------
    estimator : estimator
        As for `deconvnet`, with any network that begins with a convolution.

    Returns
    -------
    filters : ndarray of float32, shape (n_filters, height, width, 3)
        Weights of red, green and blue pixels. The network normalizes pixels by a
        standard deviation for each color, and the weights are divided by it.

    Raises
    ------
    ValueError
        If no convolution of the network takes an image with three colors.

    Examples
    --------
    >>> from skdeepfeat import PretrainedFeatureExtractor
    >>> from skdeepfeat.inspection import first_filters
    >>> first_filters(PretrainedFeatureExtractor()).shape
    (32, 3, 3, 3)
    """
    neck = network_parts(estimator).neck
    network = neck.trainable().network
    for name in neck.probe.layers:
        module = network.get_submodule(name)
        if isinstance(module, nn.Conv2d) and module.weight.shape[1] == 3:
            weights = module.weight.detach().float().permute(0, 2, 3, 1)
            return (weights / torch.tensor(neck.preprocessing.std)).numpy()
    wanted = "one whose network has a convolution of images with three colors"
    raise choice_error("estimator", wanted, neck.spec.name)
