"""How large activations are: what an L1 penalty on them adds to a loss."""

import torch
from torch.overrides import TorchFunctionMode

from .._utils._activations import is_other_activation, limit_of_relu


class ActivationSizes(TorchFunctionMode):
    """Records the mean outputs of the ReLUs that run while it is active.

    Attributes
    ----------
    n_relus : int
        Number of ReLUs that ran.
    others : list of str
        The other activations and kinds of attention that ran.
    """

    def __init__(self):
        super().__init__()
        self.n_relus = 0
        self.others = []
        self._means = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if limit_of_relu(func.__name__, args, kwargs) is not None:
            self.n_relus += 1
            if result.requires_grad:  # not in frozen layers
                self._means.append(result.mean(dtype=torch.float32))
        elif is_other_activation(func.__name__, args):
            self.others.append(func.__name__)
        return result

    def mean(self):
        """Return the mean over ReLUs, in layers that learn, of their mean output.

        Returns
        -------
        Tensor or float
            0.0 if there is none.
        """
        if not self._means:
            return 0.0
        return torch.stack(self._means).mean()
