"""The tensors of a module that training changes, by name."""

import torch


def named_tensors(module, *, with_duplicates=False):
    """Return parameters and buffers, also those that `state_dict` leaves out.

    Parameters
    ----------
    module : Module
    with_duplicates : bool, default=False
        Whether a tensor that is there under several names is returned under each.

    Returns
    -------
    dict of str to Tensor
    """
    unique = not with_duplicates
    return {
        **dict(module.named_parameters(remove_duplicate=unique)),
        **dict(module.named_buffers(remove_duplicate=unique)),
    }


def copy_state(module):
    """Return a copy of the parameters and buffers, on the CPU."""
    return {
        name: tensor.detach().cpu().clone()
        for name, tensor in named_tensors(module).items()
    }


@torch.no_grad()
def load_state(module, state):
    """Copy the values of `copy_state` back."""
    for name, tensor in named_tensors(module).items():
        tensor.copy_(state[name])
