"""Finding out what the layers of a network are, without its weights.

A network is run once on torch's meta device, where tensors have shapes but no
numbers, with a hook on every module. Networks that look at numbers while they run
cannot do that; they are run on zeros with random weights instead.
"""

import itertools
import logging
from dataclasses import dataclass, replace

import torch

from ..running._layer import Layer, first_tensor
from ..running._timm_pooling import find_own_pool
from ._layer_recorder import Recorder
from ._output_layouts import TokenLayout

__all__ = ["Probe", "probe_network"]

logger = logging.getLogger(__name__)

# Not 1, so that an output without a batch axis is told from one with it.
_N_IMAGES = 3


@dataclass(frozen=True)
class Probe:
    """What `probe_network` found.

    Attributes
    ----------
    layers : dict of str to Layer
        In order of execution, those that are not offered among them.
    neck, output : Layer
    neck_module : str or None
        The module whose input is the neck. None where the neck is computed by timm's
        ``forward_head``, or is the output itself.
    has_pre_logits : bool
        Whether the neck comes from ``forward_head(..., pre_logits=True)``.
    total_cost : int
        Floating-point operations for one image.
    declared_stages : tuple of str
        The layers that end its stages as timm's ``feature_info`` has them, if at all.
    own_pool : str or None
        How the pooling in front of timm's classifier can be exchanged, if it can.
    """

    layers: dict[str, Layer]
    neck: Layer
    output: Layer
    neck_module: str | None
    has_pre_logits: bool
    total_cost: int
    declared_stages: tuple[str, ...]
    own_pool: str | None = None


def probe_network(builds, build_real, size, has_pre_logits, classifier=None):
    """Run a network once and describe its layers.

    Parameters
    ----------
    builds : sequence of callable
        Ways to get the network on the meta device, tried in turn.
    build_real : callable
        Returns it on the CPU with any weights; called where the meta device does not
        do.
    size : tuple of (int, int)
        Height and width of the image, pixels.
    has_pre_logits : bool
        Whether the network's own ``forward_head`` defines the neck.
    classifier : str, default=None
        The module whose input is the neck. By default the last linear layer, if its
        output is the network's.

    Returns
    -------
    Probe

    Raises
    ------
    Exception
        What the network raises when it does not take images of this size.
    """
    image = torch.empty(_N_IMAGES, 3, *size, device="meta")
    splits = (True, False) if has_pre_logits else (False,)
    for split, build in itertools.product(splits, builds):
        try:
            return _probe(build(), image, split, classifier)
        except Exception as error:  # networks are anybody's code
            logger.debug("not on the meta device: %s", error)
    image = torch.zeros(image.shape)
    return _probe(build_real(), image, has_pre_logits, classifier)


def _probe(network, image, split, classifier):
    network.eval()
    dtype = next((p.dtype for p in network.parameters()), torch.float32)
    image = image.to(dtype if dtype.is_floating_point else torch.float32)
    tokens = TokenLayout.of(network)
    recorder = Recorder(network, tokens, tuple(image.shape), classifier)
    output, pre_logits = _run_recorded(network, image, split, recorder)
    if output is None:
        raise TypeError(
            "The 'model' parameter must be a network that returns a tensor. "
            f"{type(network).__name__} returns none."
        )
    total = recorder.flops.total // _N_IMAGES
    whole = Layer(
        "output",
        type(network).__name__,
        n_parameters=sum(p.numel() for p in network.parameters()),
        cost=total,
        cumulative_cost=total,
        order=2**40,
    )
    output_layer = recorder.describe(whole, output, network)
    neck, module = _neck_of(output_layer, output, pre_logits, recorder, network)
    return Probe(
        layers=dict(sorted(recorder.layers.items(), key=lambda item: item[1].order)),
        neck=neck,
        output=output_layer,
        neck_module=module,
        has_pre_logits=pre_logits is not None,
        total_cost=total,
        declared_stages=_declared_stages(network) if split else (),
        own_pool=find_own_pool(network) if split else None,
    )


def _declared_stages(network):
    info = getattr(network, "feature_info", None) or ()
    return tuple(one["module"] for one in getattr(info, "info", info))


def _run_recorded(network, image, split, recorder):
    """Return the network's output, and timm's features before the classifier."""
    with torch.no_grad():
        with recorder, recorder.flops:
            if not split:
                return first_tensor(network(image)), None
            features = network.forward_features(image)
            output = first_tensor(network.forward_head(features))
        return output, first_tensor(network.forward_head(features, pre_logits=True))


def _neck_of(output_layer, output, pre_logits, recorder, network):
    """Return the neck's layer, and the module whose input it is, if it is one's."""
    if pre_logits is not None:
        order = output_layer.order - 1
        layer = replace(output_layer, kind="pre_logits", order=order)
        tensor, module = pre_logits, None
    elif recorder.linear is not None and (
        recorder.linear[2] is output or recorder.linear[0] == recorder.classifier
    ):
        module, tensor, _ = recorder.linear
        after = recorder.layers[module]
        before = after.cumulative_cost - after.cost
        layer = replace(after, kind=f"input of {module}", cumulative_cost=before)
    else:
        return replace(output_layer, name="neck"), None
    layer = replace(layer, name="neck", cost=0, n_parameters=0)
    return recorder.describe(layer, tensor, network), module
