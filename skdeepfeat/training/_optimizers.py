"""Optimizers, and the learning rate and weight decay of each parameter."""

import torch

from .._utils._parameter_errors import look_up
from .._utils._shown import shown

# The class and its default arguments.
_OPTIMIZERS = {
    "adamw": (torch.optim.AdamW, {}),
    "adam": (torch.optim.Adam, {}),
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
}

OPTIMIZERS = tuple(_OPTIMIZERS)

_SET_ELSEWHERE = {"lr", "params", "weight_decay"}

# How torch iterates over the parameters, unless the user chooses. On a CPU, one kernel
# for a whole group takes a third of the time of a loop. That of SGD fails if only some
# parameters of a group have had a gradient, as in networks that skip random layers.
_IMPLEMENTATIONS = {"fused", "foreach", "capturable", "differentiable"}
_FUSED = {"adamw", "adam"}
_FUSED_ON = ("cpu", "cuda")


def make_optimizer(
    name, groups, *, learning_rate, layer_decay=1.0, weight_decay=0.0, params=None,
    undecayed=(),
):  # fmt: skip
    """Return an optimizer whose parameter groups have their own learning rates.

    Parameters
    ----------
    name : {"adamw", "adam", "sgd"}
    groups : list of list of (str, Parameter)
        First stage to last, the head at the end.
    learning_rate : float
        Of the last group.
    layer_decay : float, default=1.0
        Factor by which the learning rate shrinks from each group to the one before it
        (Howard and Ruder 2018 took 1 / 2.6).
    weight_decay : float, default=0.0
        Of matrices and kernels. As is usual, biases and the parameters of
        normalizations do not decay (He et al. 2019, "Bag of tricks").
    params : dict or None, default=None
        Keyword arguments of the torch optimizer. None: torch's defaults, and a Nesterov
        momentum of 0.9 for sgd. torch's fused kernels of Adam are used unless they
        choose another implementation.
    undecayed : iterable of Parameter, default=()
        Other parameters that do not decay, whatever their shape.

    Returns
    -------
    torch.optim.Optimizer
        Each of its groups has an ``"lr_scale"``, which the learning rate of a schedule
        is multiplied by.

    Raises
    ------
    ValueError
        If the optimizer does not take `params`.
    """
    kind, defaults = look_up(_OPTIMIZERS, name, "optimizer")
    exempt = {id(parameter) for parameter in undecayed}
    options = []
    for depth, group in enumerate(reversed(groups)):
        lr_scale = layer_decay**depth
        rates = {"lr": learning_rate * lr_scale, "lr_scale": lr_scale}
        for decay, members in _split(group, weight_decay, exempt).items():
            if members:
                options.append({"params": members, "weight_decay": decay, **rates})
    fused = _fused(groups, params or {}) if name in _FUSED else {}
    if params is None:
        return kind(options, lr=learning_rate, **defaults, **fused)
    if _SET_ELSEWHERE & params.keys():
        raise ValueError(
            "The 'optimizer_params' parameter must not hold 'lr', 'params' or "
            "'weight_decay'. Set the parameters 'learning_rate' and 'weight_decay' "
            f"instead. Got {shown(params)}."
        )
    try:
        return kind(options, lr=learning_rate, **fused, **params)
    except Exception as error:  # the optimizers check little of what they are given
        raise ValueError(
            "The 'optimizer_params' parameter must hold keyword arguments of "
            f"torch.optim.{kind.__name__}. Got {shown(params)} instead "
            f"({str(error)[:200]})."
        ) from error


def _fused(groups, params):
    """Return the argument that has torch use its fused kernels, if it has them."""
    parameters = [parameter for group in groups for _, parameter in group]
    has_kernels = all(
        one.device.type in _FUSED_ON and one.is_floating_point() for one in parameters
    )
    return {"fused": True} if has_kernels and not _IMPLEMENTATIONS & set(params) else {}


def _split(group, weight_decay, exempt):
    """Return the parameters of a group by their weight decay."""
    by_decay = {weight_decay: [], 0.0: []}
    for _, parameter in group:
        decays = parameter.ndim > 1 and id(parameter) not in exempt
        by_decay[weight_decay if decays else 0.0].append(parameter)
    return by_decay
