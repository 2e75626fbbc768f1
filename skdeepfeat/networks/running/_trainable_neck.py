"""A neck with its own weights, through which gradients flow."""

import copy
import fnmatch
import json
import logging
import re
from collections.abc import Mapping

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from ..._utils._forks import undisturbed_by_forks
from ..._utils._hooks import forward_hooks
from ..._utils._parameter_errors import choice_error
from ..._utils._random import random_states_kept
from .._modules import copy_network, floating_dtype
from ._frozen_part import FrozenPart, LayerOutputs
from ._layer import first_tensor
from ._truncated_pass import run_truncated

logger = logging.getLogger(__name__)

# timm's fused normalizations with an activation derive from these as well.
_BATCH_NORM = nn.modules.batchnorm._BatchNorm

# The part of a network that consists of all its normalization layers.
NORMALIZATION = "normalization"

# Parameters that torchvision's recipes train without weight decay (the recipes'
# `transformer_embedding_decay=0`), and two kinds of scales. timm's networks list
# theirs, or have them as vectors.
_UNDECAYED = (
    "class_token", "layer_scale", "logit_scale", "pos_embedding",
    "relative_position_bias_table",
)  # fmt: skip

# torch's own nodes of a graph. Others, such as that of a user's function, may have no
# gradient for what they depend on.
_KNOWN_NODE = re.compile(
    r"\w+Backward\d+|(torch::autograd::)?(AccumulateGrad|CopySlices|CopyBackwards)"
)

# By architecture, outputs and size. Two threads may compute the same result.
_examined: dict[tuple, tuple] = {}


class TrainableNeck(nn.Module):
    """A network up to its neck as one module: images in, rows of features out.

    Parameters
    ----------
    network : Module
        No other module may share its parameters.
    neck : Neck
        Of the same architecture. The features of several outputs are concatenated, and
        mean and std of the preprocessing are applied in `forward`.

    Attributes
    ----------
    n_features, n_stages : int
    stage_layers : tuple of str
        The layer that ends each stage; the neck if there are no stages.
    stage_of_module, stage_of_parameter : dict of str to int
        The stages of the modules that run, and of the parameters that the features
        depend on, by their names in the network.
    """

    def __init__(self, network, neck):
        super().__init__()
        self.network = network
        self.n_features = sum(neck.n_features())
        # Not the neck itself, which may hold the user's network.
        self._outputs = neck.outputs
        self._probe = neck.probe
        self._size = neck.preprocessing.crop
        self._frozen_part = None
        shape = (1, 3, 1, 1)
        for name in ("mean", "std"):
            value = torch.tensor(getattr(neck.preprocessing, name)).reshape(shape)
            self.register_buffer(f"_{name}", value, persistent=False)
        self.stage_layers = neck.stages or ("neck",)
        self.n_stages, self.stage_of_module = _stages_of_modules(neck)
        # Parameters after the neck get no gradient, so they must not be given to an
        # optimizer, or to processes that wait for each other's gradients.
        # For a named network this is remembered, because finding out takes as long as a
        # training step. A user can change a network.
        architecture = json.dumps(neck.spec.architecture, sort_keys=True)
        key = architecture, self._outputs, self._size
        found = None if neck.is_own else _examined.get(key)
        if found is None:
            with random_states_kept():
                found = self._try_out()
            if not neck.is_own:
                _examined[key] = found
        reached, self._memory_format = found
        self._train_only(reached)

    def _train_only(self, reached):
        """Require gradients of the named parameters, and of no others."""
        self.stage_of_parameter = {}
        for name, parameter in self.network.named_parameters():
            if name in reached:
                self.stage_of_parameter[name] = self._stage_of(name)
            parameter.requires_grad_(name in reached)
            parameter.grad = None  # from the user's own training

    def forward(self, images):
        """Return the features of images.

        Parameters
        ----------
        images : Tensor, shape (n_images, 3, height, width), or LayerOutputs
            uint8, or floats in [0, 1]. Outputs of the layer of `begin_at` stand for
            the images that they are of.

        Returns
        -------
        Tensor of float32, shape (n_images, n_features)
        """
        if isinstance(images, LayerOutputs):
            return self._go_on(images.as_subclass(torch.Tensor))
        if images.dtype == torch.uint8:
            images = images.to(torch.float32).div_(255)
        images = (images - self._mean) / self._std
        images = images.to(floating_dtype(self.network))
        images = images.contiguous(memory_format=self._memory_format)
        return self._run(self.network, images)

    def forward_with_maps(self, images, layers, *, cut=False):
        """Return the features, and what layers on the way to them return.

        Parameters
        ----------
        images : Tensor, shape (n_images, 3, height, width)
            As for `forward`.
        layers : sequence of str
            Names of modules of the network.
        cut : bool, default=False
            Whether gradients end at these layers. Then no graph is kept of what is
            computed before them.

        Returns
        -------
        features : Tensor of float32, shape (n_images, n_features)
        maps : dict of str to Tensor
            The output of each of the layers that run: its first tensor, and that of
            the last run if there are several.
        """
        maps = {}

        def keep(name, module, args, output):
            tensor = first_tensor(output)
            maps[name] = tensor.detach().requires_grad_() if cut else tensor
            # A copy, because the next layer may work in place, as ReLU often does.
            return _with_first_tensor(output, maps[name].clone())

        modules = [(name, self.network.get_submodule(name)) for name in layers]
        with forward_hooks(keep, modules):
            return self(images), maps

    def _run(self, network, images):
        rows = run_truncated(network, images, self._outputs, self._probe)
        return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)

    def last_frozen_layer(self):
        """Return the `Layer` that ends the frozen first stages, or None.

        Returns
        -------
        Layer or None
            None if a parameter of the first stage is trained, or none at all.
        """
        trained = [
            self.stage_of_parameter[name]
            for name, parameter in self.network.named_parameters()
            if parameter.requires_grad
        ]
        if not trained or min(trained) == 0:
            return None
        return self._probe.layers.get(self.stage_layers[min(trained) - 1])

    @undisturbed_by_forks()
    def begin_at(self, layer):
        """Accept the outputs of a layer instead of images from now on.

        Parameters
        ----------
        layer : Layer or None
            None accepts images only.

        Raises
        ------
        Exception
            If the network cannot go on from there. It then accepts images only.
        """
        self._frozen_part = None
        if layer is None:
            return
        modes = [(module, module.training) for module in self.network.modules()]
        device = self._mean.device
        images = torch.rand(
            2, 3, *self._size, generator=torch.Generator().manual_seed(0)
        )
        try:
            self.network.eval()  # without dropout, so that passes can be compared
            part = FrozenPart(self.network, layer, self.forward, images.to(device))
        finally:
            for module, mode in modes:
                module.training = mode
        if any(mode and module in part.modules for module, mode in modes):
            raise ValueError(f"a module up to {layer.name!r} is in training mode")
        self._frozen_part = part

    def _go_on(self, maps):
        """Return the features of images whose outputs of a layer are given."""
        is_map = self._frozen_part.layer.layout == "NCHW"
        order = self._memory_format if is_map else torch.preserve_format
        # A copy, because layers may work in place, and a batch may be run again.
        maps = maps.to(floating_dtype(self.network), memory_format=order, copy=True)
        # Only the shape of the image matters.
        images = maps.new_empty((len(maps), 3, *self._size))
        with self._frozen_part.left_out(maps):
            return self._run(self.network, images)

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
        """Return the parameters that should have no weight decay.

        These are position embeddings, class tokens and scales: those that timm's
        networks list, and those with the names that torchvision's networks use. Biases
        and normalizations are not included unless they are listed.

        Returns
        -------
        list of Parameter
        """
        listed = getattr(self.network, "no_weight_decay", None)
        # timm's lists contain both patterns and names.
        patterns = list(listed()) if callable(listed) else []
        return [
            parameter
            for name, parameter in self.network.named_parameters()
            if name.rpartition(".")[2] in _UNDECAYED
            or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        ]

    def train_parts(self, parts, *, freeze_statistics=False):
        """Put some parts of the network into training mode, and freeze the others.

        A frozen batch normalization uses its running statistics and does not change
        them.

        Parameters
        ----------
        parts : iterable of (int or str)
            As for `modules_of`. Empty freezes all.
        freeze_statistics : bool, default=False
            Whether batch normalizations of the trained parts also use their running
            statistics and do not change them. Their weights are trained in any case.

        Raises
        ------
        ValueError
            If there is no such part.
        """
        trained = set().union(*map(self.modules_of, parts))
        for name, parameter in self.network.named_parameters():
            is_trained = name.rpartition(".")[0] in trained
            parameter.requires_grad_(is_trained and name in self.stage_of_parameter)
        for name, module in self.network.named_modules():
            # Not `Module.train`, which would also change the modules inside.
            is_frozen = freeze_statistics and isinstance(module, _BATCH_NORM)
            module.training = name in trained and not is_frozen

    def modules_of(self, part):
        """Return the names of the modules that are a part of the network.

        Parameters
        ----------
        part : int or str
            The number of a stage, of which 0 is the first and -1 the last;
            ``"normalization"``, all normalization layers; or the name of a module,
            which includes all modules in it.

        Returns
        -------
        set of str

        Raises
        ------
        ValueError
            If there is no such part, or the features depend on no weight of a layer.
        """
        modules = dict(self.network.named_modules())
        owners = {name.rpartition(".")[0] for name in self.stage_of_parameter}
        if not isinstance(part, str):
            stage = part + self.n_stages if part < 0 else part
            if 0 <= stage < self.n_stages:
                return {n for n in modules if self._stage_of(f"{n}.") == stage}
            raise self._no_such_part(part, modules, owners)
        if part == NORMALIZATION:
            found = {name for name, one in modules.items() if _is_normalization(one)}
        else:
            found = {name for name in modules if f"{name}.".startswith(f"{part}.")}
        if found.isdisjoint(owners):
            raise self._no_such_part(part, modules, owners)
        return found

    def _no_such_part(self, part, modules, owners):
        ends = ", ".join(
            f"{i} ends with {name!r}" for i, name in enumerate(self.stage_layers)
        )
        if len(ends) > 400:
            ends = f"{ends[:400]} ..."
        candidates = [NORMALIZATION, *self.stage_layers]
        candidates += [
            name
            for name in modules
            if any(f"{owner}.".startswith(f"{name}.") for owner in owners)
        ]
        return choice_error(
            "unfreeze",
            "'all', 'gradual', 'normalization', None, a number of stages, a layer with "
            "weights before the neck, or a tuple of layers and stages. This network "
            f"has {self.n_stages} stage(s) ({ends})",
            part,
            filter(None, candidates),
        )

    def _stage_of(self, parameter_name):
        """Return the stage of a parameter: that of the nearest module with one."""
        owner = parameter_name.rpartition(".")[0]
        while owner and owner not in self.stage_of_module:
            owner = owner.rpartition(".")[0]
        # Parameters of the network itself, such as a class token, are used first.
        return self.stage_of_module.get(owner, 0)

    def _try_out(self):
        """Return the names of the parameters with a gradient, and a memory format.

        Channels last is faster, but the `view` of some networks fails with it.
        """
        images = torch.zeros(2, 3, *self._size, dtype=floating_dtype(self.network))
        for memory_format in (torch.channels_last, torch.contiguous_format):
            images = images.contiguous(memory_format=memory_format)
            try:
                return self._reached(images), memory_format
            except Exception as error:  # a user's network may raise anything
                logger.debug("gradients failed (%s): %s", memory_format, error)
                last_error = error
        raise last_error

    def _reached(self, inputs):
        """Return the names of the parameters that a gradient of the features reaches.

        The graph of a forward pass tells that, unless a user's function is a part of
        it. Without a backward pass, none of the results in between are kept.
        """
        with saved_tensors_hooks(lambda tensor: None, lambda nothing: nothing):
            rows, network = self._run_copy(inputs)
        leaves = _leaves_of(rows)
        if leaves is None:
            rows, network = self._run_copy(inputs)
            rows.sum().backward()
            leaves = [one for one in network.parameters() if one.grad is not None]
        found = {id(one) for one in leaves}
        return {name for name, one in network.named_parameters() if id(one) in found}

    def _run_copy(self, inputs):
        """Return features with their graph, and what computed them.

        That is a copy, because a network may change its buffers while it runs, and it
        gets a copy of the inputs, because it may change these in place.
        """
        network = copy_network(self.network, owned=True)
        for parameter in network.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
            parameter.grad = None
        with torch.enable_grad():
            return self._run(network, inputs.clone()), network


def _leaves_of(tensor):
    """Return the leaves that gradients of a tensor reach; None if that is not known."""
    leaves, seen, left = [], {None}, [tensor.grad_fn]
    while left:
        node = left.pop()
        if node in seen:
            continue
        seen.add(node)
        if not _KNOWN_NODE.fullmatch(node.name()):
            return None
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        left += [following for following, _ in node.next_functions]
    return leaves


def _with_first_tensor(output, tensor):
    """Return a module's output with another tensor as its first."""
    if isinstance(output, torch.Tensor):
        return tensor
    is_mapping = isinstance(output, Mapping)
    keys = list(output) if is_mapping else range(len(output))
    first = next(key for key in keys if first_tensor(output[key]) is not None)
    changed = copy.copy(output) if is_mapping else list(output)
    changed[first] = _with_first_tensor(output[first], tensor)
    if isinstance(output, tuple):
        return type(output)(*changed) if hasattr(output, "_fields") else tuple(changed)
    return changed


def _is_normalization(module):
    # torch, torchvision, timm and the classes that derive from theirs use this word.
    return any("Norm" in kind.__name__ for kind in type(module).__mro__)


def _stages_of_modules(neck):
    """Return the number of stages, and the stage of each module that runs."""
    layers = neck.probe.layers
    ends = [layers[name].order for name in neck.stages]
    last = max(len(ends) - 1, 0)
    numbers = {}
    for name, layer in layers.items():
        # A module that contains several stages belongs to the first of them.
        inside = [
            one.order for key, one in layers.items() if key.startswith(f"{name}.")
        ]
        order = min([layer.order, *inside])
        # Modules after the last stage belong to it.
        numbers[name] = min(sum(end < order for end in ends), last)
    return last + 1, numbers
