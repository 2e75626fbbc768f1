"""A neck over rows of numbers: a user's module that takes tensors (n, n_columns)."""

import torch
from torch import nn

from .._utils._hooks import forward_hooks
from ._modules import copy_network
from .running._trainable_neck import TrainableNeck


class RowNeck:
    """A module over rows of numbers, up to the input of its last linear layer.

    It has what fine-tuning needs of a `Neck`. Nothing is cached.

    Parameters
    ----------
    module : Module
        Not changed.
    n_columns : int

    Raises
    ------
    ValueError
        If the module does not turn rows with this many columns into rows.
    """

    takes_rows = True

    def __init__(self, module, n_columns):
        self.module = module
        self.n_columns = n_columns
        self._body = RowBody(copy_network(module, owned=True), n_columns)

    def n_features(self):
        """Return the number of features, in a list as that of `Neck`."""
        return [self._body.n_features]

    def trainable(self):
        """Return the network as a `RowBody` with its own weights, on the CPU."""
        return RowBody(copy_network(self.module, owned=True), self.n_columns)

    def with_network(self, network):
        """Return the neck of a network that was trained further."""
        return RowNeck(network, self.n_columns)

    def suggested_batch_size(self, device):
        """Return how many rows to run at once."""
        return 1024


class RowBody(TrainableNeck):
    """A network over rows, up to the input of its last linear layer.

    Without a linear layer, the output of the network is the features. Each module with
    a matrix of weights begins a stage, in the order in which they run.

    Parameters
    ----------
    network : Module
        No other module may share its parameters.
    n_columns : int
    """

    def __init__(self, network, n_columns):
        nn.Module.__init__(self)
        self.network = network
        names, self._head, self.n_features = _try_rows(network, n_columns)
        starts = [name for name in names if _has_matrix(network, name)]
        self.n_stages = max(1, len(starts))
        self.stage_of_module, stage = {}, -1
        for name in names:
            stage += name in starts
            self.stage_of_module[name] = max(stage, 0)
        self.stage_layers = tuple(starts) or ("neck",)
        self._train_only(self._reached(torch.zeros(2, n_columns)))

    def forward(self, rows):
        """Return the features of rows, float32 of shape (n_rows, n_features)."""
        return self._run(self.network, rows)

    def _run(self, network, rows):
        if self._head is None:
            return network(rows).flatten(1)
        inputs = []
        head = network.get_submodule(self._head)
        with head.register_forward_pre_hook(lambda head, args: inputs.extend(args)):
            network(rows)
        return inputs[-1].flatten(1)


def _has_matrix(network, name):
    own = network.get_submodule(name).parameters(recurse=False)
    return any(parameter.ndim > 1 for parameter in own)


def _try_rows(network, n_columns):
    """Return the modules that run before the head, the head, and n_features."""
    order, sizes = [], {}

    def note(name, module, args, output):
        if name not in order:
            order.append(name)
        if isinstance(module, nn.Linear):
            # Moved to the end if it runs again.
            sizes.pop(name, None)
            sizes[name] = args[0].flatten(1).shape[1]

    # The network itself may be a linear layer: then it is its own head.
    modules = network.named_modules()
    leaves = [named for named in modules if not list(named[1].children())]
    try:
        with torch.no_grad(), forward_hooks(note, leaves):
            output = network.eval()(torch.zeros(2, n_columns))
        is_row = isinstance(output, torch.Tensor) and output.ndim >= 2
        if not (is_row and len(output) == 2):
            raise ValueError(f"it returned {type(output).__name__}, not one row each")
    except Exception as error:  # a user's network may raise anything
        raise ValueError(
            f"The 'model' parameter must be a network that takes rows of {n_columns} "
            "numbers, the rows of X, and returns one row for each. If they are "
            "flat images, pass flat_image_shape=(H, W, C). Got "
            f"{type(network).__name__}, which failed ({str(error)[:200]})."
        ) from error
    if sizes:
        head = list(sizes)[-1]
        return order[: order.index(head)], head, sizes[head]
    return order, None, output.flatten(1).shape[1]
