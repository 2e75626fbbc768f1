"""`widen`: more channels, the same function."""

import math
import numbers

import torch
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval

from .._utils._public_function import public_function
from .._utils._short_errors import validate_params
from ..networks import changes_of, merge_resizings
from ._channels import duplicate_channels, find_channel_groups
from ._net2net import check_same, larger_estimator, model_of, noise_for


@public_function
@validate_params(
    factor=[Interval(numbers.Real, 1, 64, closed="neither")],
    random_state=["random_state"],
)
def widen(estimator, factor, *, random_state=None):
    """Return a fitted estimator with a wider network that computes the same.

    This is Net2WiderNet [1]_: channels are duplicated, and the layers that read them
    divide their weights among the duplicates. Training then continues from what the
    narrow network has learned, which takes fewer epochs than training a wide one from
    scratch.

    `widen` duplicates the channels that `compress` can prune: those inside the blocks
    of ResNet, MobileNet, EfficientNet-lite and ConvNeXt, and all except the features of
    VGG and of plain sequential networks. Channels that are added to others, normalized
    together, concatenated or returned as features are not duplicated.

    Parameters
    ----------
    estimator : FineTuneClassifier or FineTuneRegressor
        Fitted. It is not changed.

    factor : float
        Factor by which the number of channels grows, above 1 and below 64. At least one
        channel is added.

    random_state : int, RandomState instance or None, default=None
        Determines which channels are duplicated, and how weights are divided.

    Returns
    -------
    wide : estimator of the same class
        Fitted. Its outputs are those of `estimator`, up to rounding. To train it,
        ``wide.set_params(warm_start=True).fit(X, y)``. Without ``warm_start=True``,
        `fit` trains the network that the parameter `model` names, which is the original
        one.

    Raises
    ------
    TypeError
        If `estimator` is not a fine-tuning estimator.
    ValueError
        If no channel of the network can be duplicated.

    See Also
    --------
    deepen : Add layers.

    References
    ----------
    .. [1] Chen, Goodfellow and Shlens, "Net2Net: Accelerating learning via knowledge
       transfer", ICLR 2016.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdeepfeat import FineTuneClassifier
    >>> from skdeepfeat.compression import widen
    >>> digits = load_digits(n_class=2)
    >>> X, y = digits.images[:40] / 16, digits.target[:40]
    >>> clf = FineTuneClassifier(image_size=32, max_epochs=0, cache=None).fit(X, y)
    >>> wide = widen(clf, 1.5, random_state=0)
    >>> bool(abs(wide.predict_proba(X) - clf.predict_proba(X)).max() < 1e-5)
    True
    """
    neck, model = model_of(estimator, "widen")
    random_state = check_random_state(random_state)
    generator = torch.Generator().manual_seed(int(random_state.randint(2**31 - 1)))
    images = noise_for(neck)
    groups = find_channel_groups(model.body, images[:2])
    free = [one for one in groups if not one.obstacle]
    if not free:
        reasons = sorted({one.obstacle for one in groups})
        raise ValueError(
            "The 'estimator' parameter of widen must have a network with channels that "
            "can be duplicated, such as ResNet, VGG, MobileNet, EfficientNet-lite, "
            f"ConvNeXt or a plain sequence of convolutions. Got a "
            f"{type(model.network).__name__}"
            + (f": {reasons[0]}." if reasons else " without convolutions.")
        )
    wanted = model(images)
    first = len(changes_of(model.network))
    for group in free:
        n_more = max(1, math.floor(group.n_channels * (factor - 1) + 0.5))
        drawn = torch.randint(group.n_channels, (n_more,), generator=generator)
        source = torch.cat([torch.arange(group.n_channels), drawn])
        duplicate_channels(model.network, group, source, generator)
    merge_resizings(model.network, first)
    check_same(model, images, wanted, "widen")
    return larger_estimator(estimator, model)
