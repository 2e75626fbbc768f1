"""Finding out what the layers of a network are, without its weights.

A network is run once on torch's meta device, where tensors have shapes but no values,
with a hook on every module. Networks that read values while they run are run on zeros
with random weights instead.
"""

import itertools
import json
import logging
from dataclasses import dataclass, replace

import torch

from ..._utils._parameter_errors import first_line, is_about
from ..._utils._random import random_states_kept
from .._modules import attribute_of, floating_dtype
from ..running._layer import Layer, first_tensor
from ..running._poolings import find_own_pool
from ._diagnosis import check_module, explain_failure
from ._layer_recorder import Recorder

logger = logging.getLogger(__name__)

# Not 1, so that an output without a batch axis is recognized.
_N_IMAGES = 3


@dataclass(frozen=True)
class Probe:
    """The layers of a network.

    Attributes
    ----------
    layers : dict of str to Layer
        In order of execution, including those that are not offered.
    neck, output : Layer
    neck_module : str or None
        The module whose input is the neck. None if the neck is computed by timm's
        ``forward_head``, or is the output itself.
    has_pre_logits : bool
        Whether the neck comes from ``forward_head(..., pre_logits=True)``.
    total_cost : int
        Floating-point operations for one image.
    declared_stages : tuple of str
        The layers that end a stage according to timm's ``feature_info``, if any.
    own_pool : {"module", "attribute"} or None
        How the pooling before timm's classifier can be replaced, if it can.
    """

    layers: dict[str, Layer]
    neck: Layer
    output: Layer
    neck_module: str | None
    has_pre_logits: bool
    total_cost: int
    declared_stages: tuple[str, ...]
    own_pool: str | None = None


def probe_spec(spec, size=None, explains=True):
    """Return the `Probe` of a network. Those of named networks are remembered.

    Parameters
    ----------
    spec : NetworkSpec
    size : tuple of (int, int), default=None
        Height and width of the image, pixels. By default that of the preprocessing.
    explains : bool, default=True
        Whether to try out what is wrong if the network does not run.

    Raises
    ------
    ValueError, TypeError
        If the network does not run at this size, or does not return a tensor.
    """
    size = size or spec.preprocessing.crop
    if spec.module is not None:
        check_module(spec.module)
        return _probe_or_explain(spec, size, explains)
    key = (json.dumps(spec.architecture, sort_keys=True), size)
    if key not in _probes:
        # Threads may do this twice; the results are equal.
        _probes[key] = _probe_or_explain(spec, size, explains)
    return _probes[key]


_probes: dict[tuple, Probe] = {}


def _probe_or_explain(spec, size, explains):
    try:
        image = torch.empty(_N_IMAGES, 3, *size, device="meta")
        splits = (True, False) if spec.has_pre_logits else (False,)
        for split, constants_on_cpu in itertools.product(splits, (True, False)):
            try:
                network = spec.build_empty(constants_on_cpu)
                return _probe(network, image, split, spec.classifier)
            except Exception as error:  # a user's network may raise anything
                logger.debug("not on the meta device: %s", first_line(error))
        image = torch.zeros(image.shape)
        network = spec.build_on_cpu()
        return _probe(network, image, spec.has_pre_logits, spec.classifier)
    except Exception as error:
        if is_about(error, "model"):
            raise
        if not explains:
            raise ValueError(str(error)) from error
        raise explain_failure(spec, size, error) from error


def _probe(network, image, split, classifier):
    """Run a network once, with ``forward_head`` separately if `split`."""
    if network.training:  # a user's network may refuse `eval`, and its copy is in it
        network.eval()
    recorder = Recorder(network, tuple(image.shape), classifier)
    image = image.to(floating_dtype(network))
    pre_logits = None
    with torch.no_grad(), random_states_kept():
        with recorder, recorder.flops:
            if split:
                features = network.forward_features(image)
                output = network.forward_head(features)
            else:
                output = network(image)
        if split:
            pre_logits = first_tensor(network.forward_head(features, pre_logits=True))
    return make_probe(network, recorder, output, pre_logits)


def make_probe(network, recorder, output, pre_logits=None):
    """Return the `Probe` of a network that has just run.

    Parameters
    ----------
    network : Module
    recorder : Recorder
    output : object
        What the network returned.
    pre_logits : Tensor or None, default=None
        What timm's ``forward_head(..., pre_logits=True)`` returned, if there is one.

    Raises
    ------
    TypeError
        If the network does not return a tensor.
    """
    split = pre_logits is not None
    returned, output = output, first_tensor(output)
    if output is None:
        raise TypeError(
            "The 'model' parameter must be a network that returns a tensor, or a "
            f"tuple, list or dict with a tensor. {type(network).__name__} returns an "
            f"object of type {type(returned).__name__!r} without a tensor."
        )
    total = recorder.flops.total // recorder.n_items
    whole = Layer(
        "output",
        type(network).__name__,
        n_parameters=sum(p.numel() for p in network.parameters()),
        cost=total,
        cumulative_cost=total,
        order=2**40,
    )
    whole = recorder.describe(whole, output, network)
    neck, neck_module = _neck_of(whole, output, pre_logits, recorder, network)
    info = attribute_of(network, "feature_info") or ()
    return Probe(
        layers=dict(sorted(recorder.layers.items(), key=lambda item: item[1].order)),
        neck=neck,
        output=whole,
        neck_module=neck_module,
        has_pre_logits=pre_logits is not None,
        total_cost=total,
        declared_stages=tuple(one["module"] for one in getattr(info, "info", info))
        if split
        else (),
        own_pool=find_own_pool(network) if split else None,
    )


def _neck_of(whole, output, pre_logits, recorder, network):
    """Return the neck's layer, and the module whose input it is, if there is one."""
    module = None
    if pre_logits is not None:
        tensor = pre_logits
        layer = replace(whole, kind="pre_logits", order=whole.order - 1)
    elif recorder.linear is not None and (
        recorder.linear[2] is output or recorder.linear[0] == recorder.classifier
    ):
        module, tensor, _ = recorder.linear
        after = recorder.layers[module]
        before = after.cumulative_cost - after.cost
        layer = replace(after, kind=f"input of {module}", cumulative_cost=before)
    else:
        return replace(whole, name="neck"), None
    layer = replace(layer, name="neck", cost=0, n_parameters=0)
    return recorder.describe(layer, tensor, network), module
