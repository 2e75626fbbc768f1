"""Which channels are removed in a round of pruning."""

import math

from ._costs import layer_costs
from ._layers import batches_of

# Wide layers lose this many channels at once: processors work on 8 or 16 numbers at a
# time.
_MULTIPLE = 8
# This fraction of the channels of a group always stays.
_MIN_SHARE = 1 / 8


def choose_channels(model, groups, importances, sizes, share, pixels):
    """Return the channels that stay, with the least importance lost per multiply-add.

    Parameters
    ----------
    model : Model
    groups : list of ChannelGroup
    importances : list of Tensor
    sizes : list of int
        Number of channels of each group before any pruning.
    share : float
        Share of the multiply-adds of the network to remove.
    pixels : ndarray of uint8, shape (n_images, height, width, 3)

    Returns
    -------
    list of Tensor of int or None
        None if nothing can be removed any more.
    """
    costs = layer_costs(model, next(batches_of(pixels))[:2])
    total = sum(cost.multiply_adds for cost in costs.values())
    blocks = []
    for k, (group, importance) in enumerate(zip(groups, importances, strict=True)):
        cost = _cost_of_channel(group, costs)
        blocks += _blocks_of(k, importance, cost, sizes[k])
    # The blocks of a group keep their order, as their scores ascend.
    blocks.sort(key=lambda block: block[0])
    saved, n_removed = 0.0, [0] * len(groups)
    for _, k, n, multiply_adds in blocks:
        if saved >= share * total:
            break
        n_removed[k] += n
        saved += multiply_adds
    if not any(n_removed):
        return None
    return [
        importance.argsort()[n:].sort().values
        for importance, n in zip(importances, n_removed, strict=True)
    ]


def _cost_of_channel(group, costs):
    """Return the multiply-adds of one channel, in all layers that have it."""
    layers = {*group.producers, *group.followers, *dict(group.consumers)}
    found = sum(costs[name].multiply_adds for name in layers if name in costs)
    return found / group.n_channels


def _blocks_of(k, importance, cost, size):
    """Return (score, group, channels, multiply-adds) for each block of a group."""
    step = _MULTIPLE if size >= 4 * _MULTIPLE else max(1, size // _MULTIPLE)
    smallest = max(1, math.ceil(size * _MIN_SHARE))
    ascending = importance.sort().values.tolist()
    blocks, start = [], 0
    while start < len(ascending):
        # The first block leaves a multiple of the step.
        n = (len(ascending) - start) % step or step
        if len(ascending) - start - n < smallest:
            break
        score = sum(ascending[start : start + n]) / (n * cost)
        if blocks:  # equal up to rounding
            score = max(score, blocks[-1][0])
        blocks.append((score, k, n, n * cost))
        start += n
    return blocks
