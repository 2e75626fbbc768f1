"""Optimizers, and which parameter is trained how fast."""

import torch

from ._registry import look_up

__all__ = ["OPTIMIZERS", "make_optimizer"]


def _sgd(groups, lr, momentum):
    nesterov = momentum > 0
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov)


_OPTIMIZERS = {
    "adamw": lambda groups, lr, momentum: torch.optim.AdamW(groups, lr=lr),
    "adam": lambda groups, lr, momentum: torch.optim.Adam(groups, lr=lr),
    "sgd": _sgd,
}

OPTIMIZERS = tuple(_OPTIMIZERS)


def make_optimizer(
    name, groups, *, learning_rate, layer_decay=1.0, weight_decay=0.0, momentum=0.9,
    undecayed=(),
):  # fmt: skip
    """Return an optimizer whose parameter groups know their share of the rate.

    Parameters
    ----------
    name : {"adamw", "adam", "sgd"}
        sgd with Nesterov's momentum.
    groups : list of list of (str, Parameter)
        First stage to last, the head at the end.
    learning_rate : float
        Of the last group.
    layer_decay : float, default=1.0
        Each group learns this many times as fast as the one behind it (Howard and
        Ruder 2018 took 1 / 2.6).
    weight_decay : float, default=0.0
        Of matrices and kernels; biases and the parameters of normalizations are left
        alone, as is usual (He et al. 2019, "Bag of tricks").
    momentum : float, default=0.9
        Of sgd.
    undecayed : iterable of Parameter, default=()
        Others that are left alone, whatever their shape.

    Returns
    -------
    torch.optim.Optimizer
        Each of its groups has a ``"share"``, what a schedule's rate is multiplied
        with.
    """
    make = look_up(_OPTIMIZERS, name, "optimizer")
    options = []
    exempt = {id(parameter) for parameter in undecayed}
    for depth, group in enumerate(reversed(groups)):
        share = layer_decay**depth
        for decay, members in _split(group, weight_decay, exempt).items():
            if members:
                options.append(
                    {
                        "params": members,
                        "weight_decay": decay,
                        "lr": learning_rate * share,
                        "share": share,
                    }
                )
    return make(options, learning_rate, momentum)


def _split(group, weight_decay, exempt):
    """Return the parameters of a group by their weight decay."""
    by_decay = {weight_decay: [], 0.0: []}
    for _, parameter in group:
        decays = parameter.ndim > 1 and id(parameter) not in exempt
        by_decay[weight_decay if decays else 0.0].append(parameter)
    return by_decay
