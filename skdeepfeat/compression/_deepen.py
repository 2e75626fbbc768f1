"""`deepen`: more layers, the same function."""

import copy
import numbers
from dataclasses import dataclass

import torch
from sklearn.utils._param_validation import Interval
from torch import nn

from .._utils._hooks import forward_hooks
from .._utils._public_function import public_function
from .._utils._short_errors import validate_params
from ..networks import change_layer, copy_network
from ..training import named_tensors
from ._net2net import check_same, is_same, larger_estimator, model_of, noise_for

_BATCH_NORM = nn.modules.batchnorm._BatchNorm
_WEIGHTED = (nn.Conv2d, nn.Linear, _BATCH_NORM)


@public_function
@validate_params(stage=[Interval(numbers.Integral, None, None, closed="neither")])
def deepen(estimator, stage):
    """Return a fitted estimator with a deeper network that computes the same.

    This is Net2DeeperNet [1]_. In a network with residual connections, the last block
    of the stage that keeps the shape of its input is followed by a copy whose branch
    ends in zeros, so that it adds nothing yet. In other networks, an identity with its
    own ReLU is inserted after the last layer of the stage that precedes a ReLU. If that
    layer is a batch normalization, the identity ends with one as well. Its mean and
    variance are those of its input if the input of the ReLU is normally distributed.

    Parameters
    ----------
    estimator : FineTuneClassifier or FineTuneRegressor
        Fitted. It is not changed.

    stage : int
        The number of a stage: 0 is the first, with the stem, and -1 the last. See
        `skdeepfeat.list_layers`. A network without stages counts as one.

    Returns
    -------
    deep : estimator of the same class
        Fitted. Its outputs are those of `estimator`, up to rounding. To train it,
        ``deep.set_params(warm_start=True).fit(X, y)``. Without ``warm_start=True``,
        `fit` trains the network that the parameter `model` names, which is the original
        one.

    Raises
    ------
    TypeError
        If `estimator` is not a fine-tuning estimator.
    ValueError
        If there is no such stage, or the stage has neither a block that keeps the shape
        of its input nor a ReLU. Networks with SiLU or GELU and without such blocks have
        no identity of this kind.

    See Also
    --------
    widen : Add channels.

    References
    ----------
    .. [1] Chen, Goodfellow and Shlens, "Net2Net: Accelerating learning via knowledge
       transfer", ICLR 2016.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdeepfeat import FineTuneClassifier
    >>> from skdeepfeat.compression import deepen
    >>> digits = load_digits(n_class=2)
    >>> X, y = digits.images[:40] / 16, digits.target[:40]
    >>> clf = FineTuneClassifier(image_size=32, max_epochs=0, cache=None).fit(X, y)
    >>> deep = deepen(clf, -1)
    >>> bool(abs(deep.predict_proba(X) - clf.predict_proba(X)).max() < 1e-5)
    True
    """
    neck, model = model_of(estimator, "deepen")
    body = model.body
    if not -body.n_stages <= stage < body.n_stages:
        raise ValueError(
            "The 'stage' parameter of deepen must be the number of a stage, from "
            f"{-body.n_stages} to {body.n_stages - 1} for this network. Got {stage} "
            "instead."
        )
    stage %= body.n_stages
    images = noise_for(neck)
    wanted = model(images)
    uses = _uses_of(body, stage, images)
    if not (_repeat_a_block(model, uses) or _add_a_layer(model, uses, images, wanted)):
        raise ValueError(
            "The 'stage' parameter of deepen must be a stage with a residual block "
            "that keeps the shape of its input, as in ResNet, MobileNet, "
            "EfficientNet-lite and ConvNeXt, or with a layer before a ReLU, as in VGG "
            f"and plain sequences. Got {stage} of a {type(model.network).__name__}, "
            "which has neither there."
        )
    check_same(model, images, wanted, "deepen")
    return larger_estimator(estimator, model)


@dataclass(frozen=True, eq=False)
class _Use:
    """A module of a stage that ran once.

    Attributes
    ----------
    name : str
    module : Module
    input, output : Tensor
    weighted : list of str
        Layers with weights inside that ran, by their names in the module.
    """

    name: str
    module: nn.Module
    input: torch.Tensor
    output: torch.Tensor
    weighted: list


def _uses_of(body, stage, images):
    """Return the modules of a stage that ran once, in the order in which they ended."""
    found, order = {}, []

    def note(name, module, args, output):
        order.append(name)
        is_plain = len(args) == 1 and isinstance(output, torch.Tensor)
        if is_plain and isinstance(args[0], torch.Tensor):
            # Copies, because the next layer may work in place.
            found[name] = args[0].clone(), output.clone()

    modules = dict(body.network.named_modules())
    with torch.no_grad(), forward_hooks(note, modules.items()):
        body(images)
    weighted = [name for name in order if isinstance(modules[name], _WEIGHTED)]
    uses = []
    for name, tensors in found.items():
        if name and order.count(name) == 1 and _stage_of(body, name) == stage:
            inside = [
                one.removeprefix(f"{name}.")
                for one in weighted
                if one.startswith(f"{name}.")
            ]
            uses.append(_Use(name, modules[name], *tensors, inside))
    return uses


def _stage_of(body, name):
    """Return the stage of a module: that of the nearest one with a stage."""
    while name and name not in body.stage_of_module:
        name = name.rpartition(".")[0]
    return body.stage_of_module.get(name, 0)


def _repeat_a_block(model, uses):
    """Let the last residual block be followed by one that adds nothing yet."""
    # The outermost first.
    for use in sorted(reversed(uses), key=lambda use: use.name.count(".")):
        if type(use.module) is nn.Sequential or len(use.weighted) < 2:
            continue
        if use.input.shape != use.output.shape:
            continue
        added = copy_network(use.module, owned=True)
        end = added.get_submodule(use.weighted[-1])
        with torch.no_grad():
            for parameter in end.parameters():
                parameter.zero_()
            # Exactly: some networks begin with branches of almost nothing.
            if not torch.equal(added(use.output.clone()), use.output):
                continue
        tensors = {
            f"{k}.{name}": value.detach()
            for k, block in enumerate([use.module, added])
            for name, value in named_tensors(block).items()
        }
        change_layer(model.network, {"layer": use.name, "kind": "repeated"}, tensors)
        return True
    return False


def _add_a_layer(model, uses, images, wanted):
    """Let the last layer that a ReLU follows be followed by an identity."""
    layers = [use for use in reversed(uses) if isinstance(use.module, _WEIGHTED)]
    # Maps first: an identity of vectors may be as large as the rest of the network.
    for use in sorted(layers, key=lambda use: use.output.ndim != 4):
        if use.output.ndim not in (2, 4):
            continue
        change, tensors = _identity_behind(use)
        trial = copy.deepcopy(model)
        change_layer(trial.network, change, tensors)
        if is_same(trial(images), wanted):
            change_layer(model.network, change, tensors)
            return True
    return False


def _identity_behind(use):
    """Return the change that lets an identity follow a layer, and its tensors."""
    channels = use.output.shape[1]
    has_norm = isinstance(use.module, _BATCH_NORM)
    # Some normalizations have a ReLU in them.
    before = bool((use.output < 0).any())
    is_map = use.output.ndim == 4
    change = {
        "layer": use.name,
        "kind": "deepened",
        "channels": channels,
        "kernel": 3 if is_map else None,
        "batch_norm": has_norm,
        "before": before,
    }
    weight = torch.eye(channels)
    if is_map:
        weight = nn.init.dirac_(torch.empty(channels, channels, 3, 3))
    position = 2 if before else 1
    tensors = {
        f"0.{name}": value.detach() for name, value in named_tensors(use.module).items()
    }
    tensors[f"{position}.weight"] = weight
    if not has_norm:
        tensors[f"{position}.bias"] = torch.zeros(channels)
        return change, tensors
    mean, variance = _moments_behind_relu(use.module)
    norm = {
        "weight": (variance + nn.BatchNorm2d(1).eps).sqrt(),
        "bias": mean,
        "running_mean": mean,
        "running_var": variance,
        "num_batches_tracked": torch.zeros((), dtype=torch.int64),
    }
    for name, value in norm.items():
        tensors[f"{position + 1}.{name}"] = value
    return change, tensors


def _moments_behind_relu(norm):
    """Return mean and variance of the ReLU of what a batch normalization returns.

    It is taken to be normal, with the mean and standard deviation that the layer gives.
    """
    if norm.weight is None:
        mean, scale = torch.zeros(norm.num_features), torch.ones(norm.num_features)
    else:
        mean, scale = norm.bias.detach(), norm.weight.detach().abs().clamp(min=1e-12)
    normal = torch.distributions.Normal(0.0, 1.0)
    ratio = mean / scale
    below, density = normal.cdf(ratio), normal.log_prob(ratio).exp()
    first = mean * below + scale * density
    second = (mean.square() + scale.square()) * below + mean * scale * density
    return first, (second - first.square()).clamp(min=0)
