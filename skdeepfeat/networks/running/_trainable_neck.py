"""A neck with weights of its own, that gradients flow through."""

import fnmatch
import itertools
import logging

import torch
from torch import nn

from .._copying import copy_network
from ._truncated_pass import run_truncated

__all__ = ["TrainableNeck"]

logger = logging.getLogger(__name__)

# timm's fused normalizations with an activation derive from these as well.
_BATCH_NORM = nn.modules.batchnorm._BatchNorm

# As torchvision calls what its recipes train without weight decay (its
# `transformer_embedding_decay=0`), and two kinds of scales, which in timm's networks
# are vectors or listed.
_UNDECAYED = (
    "class_token", "layer_scale", "logit_scale", "pos_embedding",
    "relative_position_bias_table",
)  # fmt: skip


class TrainableNeck(nn.Module):
    """A network up to its neck as one module: images in, rows of features out.

    Parameters
    ----------
    network : Module
        Used as it is: no other module may share its parameters.
    output : Output
        The place where the features are taken.
    probe : Probe
    preprocessing : Preprocessing
        Its mean and std are applied in `forward`.
    stages : sequence of str
        The layers that end the network's stages, first to last.

    Attributes
    ----------
    n_features, n_stages : int
    stage_of_module, stage_of_parameter : dict of str to int
        By the names in the network: of the modules that run, and of the parameters
        that the features depend on.
    """

    def __init__(self, network, output, probe, preprocessing, stages):
        super().__init__()
        self.network = network
        self.n_features = output.n_features
        self._output = output
        self._probe = probe
        shape = (1, 3, 1, 1)
        for name in ("mean", "std"):
            value = torch.tensor(getattr(preprocessing, name)).reshape(shape)
            self.register_buffer(f"_{name}", value, persistent=False)
        self.n_stages, self.stage_of_module = _stages_of_modules(probe, stages)
        # What lies behind the neck gets no gradient, so no optimizer and no process
        # that waits for the others' gradients may count on one.
        reached, self._memory_format = self._try_backward(preprocessing.crop)
        self.stage_of_parameter = {
            name: self._stage_of(name)
            for name, _ in network.named_parameters()
            if name in reached
        }
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name in reached)
            # Of a user who trained it, or of the trial.
            parameter.grad = None

    def forward(self, images):
        """Return the features of images.

        Parameters
        ----------
        images : Tensor, shape (n_images, 3, height, width)
            uint8, or floats in [0, 1].

        Returns
        -------
        Tensor of float32, shape (n_images, n_features)
        """
        if images.dtype == torch.uint8:
            images = images.to(torch.float32).div_(255)
        images = (images - self._mean) / self._std
        images = images.to(_dtype_of(self.network))
        images = images.contiguous(memory_format=self._memory_format)
        [rows] = run_truncated(self.network, images, [self._output], self._probe)
        return rows

    def parameter_groups(self):
        """Return the parameters that the features depend on, by stage.

        Returns
        -------
        list of list of (str, Parameter)
            First stage to last. Names are those in the network.
        """
        groups = [[] for _ in range(self.n_stages)]
        for name, parameter in self.network.named_parameters():
            if name in self.stage_of_parameter:
                groups[self.stage_of_parameter[name]].append((name, parameter))
        return groups

    def undecayed_parameters(self):
        """Return the parameters that no weight decay is meant for.

        Embeddings of positions, class tokens and scales, which are no kernels whatever
        their shape: what timm's networks list themselves, and what torchvision's
        networks call so. Biases and normalizations, which are vectors, are not among
        them unless listed.

        Returns
        -------
        list of Parameter
        """
        listed = getattr(self.network, "no_weight_decay", None)
        # timm takes patterns as well as names.
        patterns = list(listed()) if callable(listed) else []
        return [
            parameter
            for name, parameter in self.network.named_parameters()
            if name.rpartition(".")[2] in _UNDECAYED
            or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        ]

    def train_from(self, first_stage, *, freeze_statistics=False):
        """Put the stages from a number on into training mode; those before rest.

        A frozen batch normalization uses its running statistics and leaves them alone.

        Parameters
        ----------
        first_stage : int
            `n_stages` freezes all.
        freeze_statistics : bool, default=False
            Whether batch normalizations of the stages that learn use their running
            statistics, too, and leave them alone; their weights learn in any case.
        """
        for name, parameter in self.network.named_parameters():
            stage = self.stage_of_parameter.get(name)
            parameter.requires_grad_(stage is not None and stage >= first_stage)
        for name, module in self.network.named_modules():
            # Not `Module.train`, which would change the modules inside as well.
            rests = freeze_statistics and isinstance(module, _BATCH_NORM)
            module.training = not rests and self._stage_of(f"{name}.") >= first_stage

    def _stage_of(self, parameter_name):
        """Return the stage of a parameter by the nearest module that is known."""
        owner = parameter_name.rpartition(".")[0]
        while owner and owner not in self.stage_of_module:
            owner = owner.rpartition(".")[0]
        # Parameters of the network itself, such as a class token, are used first.
        return self.stage_of_module.get(owner, 0)

    def _try_backward(self, size):
        """Return the names of the parameters with a gradient, and a memory format.

        Channels last is the faster one, but some networks' `view` cannot do with it.
        """
        *first, last = itertools.product(
            (torch.device("meta"), torch.device("cpu")),
            (torch.channels_last, torch.contiguous_format),
        )
        for device, memory_format in first:
            try:
                return self._backward(device, memory_format, size), memory_format
            except Exception as error:  # networks are anybody's code
                logger.debug("no gradients (%s, %s): %s", device, memory_format, error)
        return self._backward(*last, size), last[1]

    def _backward(self, device, memory_format, size):
        network = copy_network(self.network, device)
        for parameter in network.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
            parameter.grad = None
        images = torch.zeros(2, 3, *size, device=device, dtype=_dtype_of(network))
        images = images.contiguous(memory_format=memory_format)
        with torch.enable_grad():
            [rows] = run_truncated(network, images, [self._output], self._probe)
            if rows.requires_grad:
                rows.sum().backward()
        return {n for n, p in network.named_parameters() if p.grad is not None}


def _dtype_of(network):
    floating = (p.dtype for p in network.parameters() if p.is_floating_point())
    return next(floating, torch.float32)


def _stages_of_modules(probe, stages):
    """Return the number of stages, and the stage of each module that runs."""
    layers = probe.layers
    ends = [layers[name].order for name in stages]
    last = max(len(ends) - 1, 0)
    numbers = {}
    for name, layer in layers.items():
        # What counts for a module around several stages is where it begins.
        inside = [
            one.order for key, one in layers.items() if key.startswith(f"{name}.")
        ]
        order = min([layer.order, *inside])
        # What comes after the last stage belongs to it.
        numbers[name] = min(sum(end < order for end in ends), last)
    return last + 1, numbers
