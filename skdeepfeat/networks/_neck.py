"""A neck: a network, truncated after the wanted layers, that can describe itself."""

import contextlib
import functools
import logging
import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from .._utils._forks import released_after_fork, undisturbed_by_forks
from .._utils._parameter_errors import choice_error, first_line
from .._utils._random import random_states_kept
from ._modules import copy_network, floating_dtype, non_finite_tensors
from .probing._fingerprint import Fingerprint, fingerprint_of
from .probing._probe import Probe, probe_spec
from .probing._stages import last_map_of, stages_of
from .probing._wanted_layers import Output, resolve_outputs
from .running._batch_runner import Runner
from .running._compiled_networks import CompilationError, CompiledForm
from .running._loaded_networks import borrowed
from .running._measured_network import cheapest_network
from .running._runtimes import batch_size_for, choose_runtime, load_runtime
from .running._torch_runtime import EagerNetwork
from .running._trainable_neck import TrainableNeck
from .running._truncated_pass import run_truncated
from .sources._network_sources import make_spec
from .sources._network_spec import NetworkSpec

logger = logging.getLogger(__name__)

# Increase this when the package computes different rows for the same network, for
# example after a change of a pooling. Older cached rows are then not used.
_FORMAT = 2


@dataclass(frozen=True, eq=False)
class Neck:
    """A network from the image to the wanted layers. Its weights are loaded when used.

    Attributes
    ----------
    spec : NetworkSpec
    layer, pooling
        The parameters of these names.
    fingerprint : Fingerprint or None
        What identifies a user's own network; see `identified`.
    examined : NetworkSpec or None
        The network that `probe` and `stages` describe; None if it is that of `spec`.
    """

    spec: NetworkSpec
    layer: str | int | list | tuple | None
    pooling: str
    fingerprint: Fingerprint | None = None
    examined: NetworkSpec | None = None

    # Class attribute: whether X holds rows of numbers, as for `RowNeck`.
    takes_rows = False

    kind_of_item = "image"

    # Examining a network takes about a second. If all rows are known, it is not needed,
    # so these are computed on first use.

    @functools.cached_property
    def probe(self) -> Probe:
        """What is known about the layers."""
        return self._make_probe()

    def _make_probe(self):
        with undisturbed_by_forks():
            return probe_spec(self.spec)

    @functools.cached_property
    def outputs(self) -> tuple[Output, ...]:
        """One for each wanted layer, in the user's order."""
        return resolve_outputs(self.layer, self.pooling, self.probe, self.spec)

    @functools.cached_property
    def stages(self) -> tuple[str, ...]:
        """The names of the layers that end the network's stages; see `stages_of`."""
        with undisturbed_by_forks():
            return stages_of(self._examined)

    @property
    def _examined(self):
        return self.examined or self.spec

    def _derived(self, outputs=None, **changes):
        """Return a neck of the same modules, which need not be examined again.

        The fingerprint depends on the outputs and is not kept.
        """
        neck = replace(self, **{"fingerprint": None, **changes})
        vars(neck).update(probe=self.probe, outputs=outputs or self.outputs)
        if "stages" in vars(self):
            vars(neck)["stages"] = self.stages
        return neck

    @property
    def preprocessing(self):
        """The `Preprocessing` that belongs to the weights, at the wanted size."""
        return self.spec.preprocessing

    @property
    def bytes_of_item(self):
        """The size of an image that waits for its batch."""
        return 3 * math.prod(self.preprocessing.crop)

    def batched(self, items):
        """Return loaded items as a batch for `loaded`, and what is wrong with others.

        Parameters
        ----------
        items : list of object
            As `ItemSource.loader` returns them.

        Returns
        -------
        batch : sequence
            Of the items that can be used.
        failures : dict of int to BadItemError
            By index in `items`.
        """
        return np.stack(items), {}

    def n_features(self):
        """Return the number of features of each output. No weights are loaded."""
        return [one.n_features for one in self.outputs]

    def feature_name_prefixes(self):
        """Return the beginning of the feature names of each output."""
        return [
            "_".join(filter(None, (self.spec.model_name, one.layer, one.pooling)))
            for one in self.outputs
        ]

    @property
    def is_own(self):
        """Whether the network is a user's module, which only its values identify.

        Fine-tuned networks are such modules, too.
        """
        return self.spec.module is not None

    def identified(self, device):
        """Return a neck of a private copy of the user's network, with a fingerprint.

        So the network that was identified is the one that runs, even if the user trains
        the module in another thread meanwhile.

        Parameters
        ----------
        device : torch.device
            Where to run it on a few fixed images.

        Returns
        -------
        Neck

        Raises
        ------
        Exception
            What the network raises.
        """
        neck = self._derived(spec=self.spec.snapshot())
        return neck._derived(fingerprint=fingerprint_of(neck, device))

    def descriptions(self, precision, digest_file):
        """Return for each output what its rows depend on, other than the image.

        Parameters
        ----------
        precision : {"float32", "tf32", "bfloat16", "float16"}
        digest_file : callable
            ``digest_file(path) -> bytes``, the digest of a file's content.

        Returns
        -------
        list of dict of JSON types
            They are equal if the features are equal: a layer has the same description
            alone, in a list or as the number of a stage. For a user's own network, the
            rows of its fingerprint have to be compared as well.

        Raises
        ------
        WeightsNotFoundError
            If only the content of a weights file can identify it, and the file is not
            on this machine and cannot be downloaded.
        """
        if self.is_own:
            identity = self.fingerprint and self.fingerprint.describe()
        else:
            identity = self.spec.weights.identity(digest_file)
        if self.layer in (None, "neck") and self.pooling == "auto":
            places = [("neck", "auto")]  # without examining the network
        else:
            # How the neck is pooled by default depends on the network alone.
            places = [
                ("neck", "auto")
                if one.layer == "neck" and self.pooling == "auto"
                else (one.layer, one.pooling or "auto")
                for one in self.outputs
            ]
        return [
            {
                "format": _FORMAT,
                "architecture": self.spec.architecture,
                "weights": identity,
                "preprocessing": self.spec.preprocessing.describe(),
                "layer": layer,
                "pooling": pooling,
                "precision": precision,
            }
            for layer, pooling in places
        ]

    def borrowed(self, device):
        """Return a context that lends the network in torch; see `running`."""
        return borrowed(self.spec, device, self._check_head)

    @contextlib.contextmanager
    def loaded(
        self, device, precision="float32", runtime="torch", n_images=None, files=None
    ):
        """Lend the network on a device. Its weights are read when it is first used.

        Parameters
        ----------
        device : torch.device
        precision : {"float32", "tf32", "bfloat16", "float16"}, default="float32"
            The precision of the computation. Rows are float32 in any case.
        runtime : {"auto", "torch", "compile", "openvino"}, default="torch"
            What runs the network. ``"auto"`` selects a runtime that is installed, pays
            and can run the network, in float32 by what the first images take.
        n_images : int, default=None
            The number of images to run. None for unknown, which counts as many.
        files : files as `running._kept_networks` takes them, default=None
            Where compiled networks are kept for other processes.

        Yields
        ------
        Runner
            ``run(batch) -> list of ndarray``, one for each output. It does not work
            after the ``with``.

        Raises
        ------
        WeightsNotFoundError
            If the weights are not on this machine and cannot be downloaded.
        ImportError, ValueError
            If a weights file is damaged or belongs to another network, or if a runtime
            was requested by name and cannot run the network.
        """
        device = torch.device(device)
        with contextlib.ExitStack() as stack:
            chosen = self.chosen_runtime(device, precision, runtime, n_images)

            def in_torch(n_images=n_images):
                network = stack.enter_context(self.borrowed(device))
                return EagerNetwork(network, self, device, precision, n_images)

            form = self._form(chosen, device, precision, files)
            compiled = functools.partial(self._compiled, form, chosen == runtime)
            compute = None
            if chosen not in ("torch", runtime) and precision == "float32" and n_images:
                cheapest = cheapest_network(form, n_images, in_torch, compiled)
                compute = stack.enter_context(cheapest)
            elif chosen != "torch":
                compute = compiled()
            compute = compute or in_torch()
            run = Runner(compute, self.outputs, device)
            del compute  # only the runner has it, which drops it at the end
            stack.callback(run.close)
            yield run

    def _form(self, runtime, device, precision, files=None):
        return CompiledForm(runtime, self, device, precision, files)

    def _compiled(self, form, is_required=False):
        """Return the network in a compiled form, or None if that is impossible."""
        if self.is_own and self.fingerprint is None:
            # The module may have changed since it was compiled.
            fingerprint = fingerprint_of(self, form.device)
            form = replace(form, neck=self._derived(fingerprint=fingerprint))
        try:
            return form.load()
        except CompilationError as error:
            title, name = load_runtime(form.runtime).TITLE, self.spec.name
            if is_required:
                raise ValueError(
                    f"{title} cannot run {name!r}: {error}. Use runtime='torch', or "
                    "'auto', which then selects torch automatically."
                ) from error
            logger.info("%s runs in torch, not in %s: %s", name, title, error)
            return None

    def can_compile(self, runtime, device, precision, files=None):
        """Return whether a runtime can run the network. It is compiled for that.

        Parameters
        ----------
        runtime : {"compile", "openvino"}
        device : torch.device
        precision : {"float32", "tf32", "bfloat16", "float16"}
        files : as for `loaded`, default=None

        Returns
        -------
        bool
        """
        form = self._form(runtime, device, precision, files)
        return self._compiled(form) is not None

    def is_compiled(self, runtime, device, precision):
        """Return whether this process has the network in a compiled form.

        The parameters are those of `can_compile`. The network is not the user's own.
        """
        return self._form(runtime, device, precision).is_in_memory()

    def chosen_runtime(self, device, precision, runtime, n_images):
        """Return what is to run the network; parameters and errors are `loaded`'s.

        Returns
        -------
        {"torch", "compile", "openvino"}
            torch replaces a runtime that turns out to be unable to run the network, or
            in float32 to be the slower one.
        """
        crop = self.preprocessing.crop
        return choose_runtime(runtime, device, precision, crop, n_images)

    def suggested_batch_size(self, device, runtime="torch"):
        """Return how many images to run at once on a device.

        Parameters
        ----------
        device : torch.device
        runtime : {"torch", "compile", "openvino"}, default="torch"

        Returns
        -------
        int
            At least 1. If the memory is not enough, the runner runs parts.
        """
        return batch_size_for(runtime, torch.device(device), self.preprocessing.crop)

    def _check_head(self, random_head):
        """Raise if an output would be computed by random modules of the head."""
        for one in self.outputs:
            place = one.source.name
            if place == "neck" and self.probe.neck_module not in (None, *random_head):
                place = self.probe.neck_module
            inside = any(f"{place}.".startswith(f"{name}.") for name in random_head)
            if inside or (random_head and place == "output"):
                raise ValueError(
                    f"The weights {self.spec.weights.label!r} have no head that fits "
                    f"{self.spec.name!r}, so its layer {one.layer!r} would be random. "
                    "Choose a layer before the head."
                )

    def empty_network(self):
        """Return the network with tensors that have a shape but no values.

        Returns
        -------
        Module or None
            None if it cannot be built so.
        """
        try:
            return self.spec.build_empty()
        except Exception as error:  # a user's network may raise anything
            logger.debug(
                "%s cannot be built without weights: %s", self.spec.name, error
            )
            return None

    @undisturbed_by_forks()
    def non_finite_weights(self):
        """Return the names of the weights and buffers that are NaN or infinite.

        Returns
        -------
        list of str

        Raises
        ------
        WeightsNotFoundError, ValueError
            As `loaded` does.
        """
        with self.borrowed(torch.device("cpu")) as network:
            return non_finite_tensors(network)

    def has_float16_weights(self):
        """Return whether a user's network has weights in float16."""
        return self.is_own and any(
            weight.dtype == torch.float16 for weight in self.spec.module.parameters()
        )

    @undisturbed_by_forks()
    def trainable(self):
        """Return the network up to the neck as a module with its own weights.

        Returns
        -------
        TrainableNeck
            On the CPU.

        Raises
        ------
        WeightsNotFoundError, ValueError
            As `loaded` does.
        """
        with self.borrowed(torch.device("cpu")) as network:
            own = copy_network(network, owned=True)
        return TrainableNeck(own, self)

    def at_layer(self, layer, pooling="auto"):
        """Return a neck of the same network that ends at another layer.

        Parameters
        ----------
        layer : str or int
            As the parameter `layer` of the estimators.
        pooling : str, default="auto"

        Returns
        -------
        Neck

        Raises
        ------
        TypeError, ValueError
            If there is no such layer, or it cannot be pooled so.
        """
        outputs = resolve_outputs(layer, pooling, self.probe, self._examined)
        return self._derived(outputs, layer=layer, pooling=pooling)

    def last_map(self):
        """Return the last `Layer` with positions that the outputs depend on, or None.

        It is the layer that is pooled, or the last map of the network if it pools that
        itself. Of several outputs the last one counts.
        """
        source = max((one.source for one in self.outputs), key=lambda one: one.order)
        if source.layout in ("NCHW", "NHWC", "NLC"):
            return source
        return last_map_of(self._examined, self.probe, before=source)

    def with_network(self, network):
        """Return the neck of a network that was trained further.

        Parameters
        ----------
        network : Module
            The network of a `trainable` neck, or one with the same modules and other
            weights.

        Returns
        -------
        Neck
        """
        # A network with replaced layers has the stages of the original network.
        spec = self.spec.with_module(network)
        return self._derived(spec=spec, examined=self._examined)

    def check_network(self, network):
        """Raise if a network does not return as many features as this neck has.

        The network is on the meta device. If the original network does not run there,
        nothing is checked.

        Parameters
        ----------
        network : Module
            The original one, or one with changed layers.

        Raises
        ------
        ValueError
        """
        wanted = sum(self.n_features())
        try:
            found = self._count_on_meta(network)
        except Exception as error:  # networks may raise anything
            try:
                self._count_on_meta(self.spec.build_empty())
            except Exception:
                return
            raise ValueError(
                f"its {self.spec.name} with changed layers does not run: "
                f"{first_line(error)}"
            ) from error
        if found != wanted:
            raise ValueError(
                f"its {self.spec.name} with changed layers returns {found} features "
                f"instead of {wanted}."
            )

    def _count_on_meta(self, network):
        images = torch.empty(2, 3, *self.preprocessing.crop, device="meta")
        images = images.to(floating_dtype(network))
        with torch.no_grad(), random_states_kept():
            rows = run_truncated(network.eval(), images, self.outputs, self.probe)
        return sum(one.shape[1] for one in rows)

    def joined(self, layers, device=None):
        """Return a neck with the outputs of this one, followed by other layers'.

        Parameters
        ----------
        layers : list of str and int, or "stages"
            The parameter `cache_layers` of an estimator. ``"stages"`` means all stages
            and the neck. Layers that this neck has already are left out.
        device : torch.device, default=None
            Where to run it for its fingerprint, if this neck has one.

        Returns
        -------
        Neck
            Of the same network and pooling. One pass computes all outputs.

        Raises
        ------
        TypeError, ValueError
            If there are no such layers.
        """
        more = self._find_layers(layers, "cache_layers", "None, 'stages'")
        known = {one.layer for one in self.outputs}
        outputs = (*self.outputs, *(one for one in more if one.layer not in known))
        neck = self._derived(outputs, layer=[one.layer for one in outputs])
        if self.fingerprint is None:
            return neck
        return neck._derived(fingerprint=fingerprint_of(neck, device))

    def with_layers(self, layers):
        """Return a neck of the same network and pooling with other outputs.

        Parameters
        ----------
        layers : list of str and int, or "stages"
            ``"stages"`` means all stages and the neck.

        Returns
        -------
        Neck

        Raises
        ------
        TypeError, ValueError
            If there are no such layers. The text begins with the parameter `layers`.
        """
        outputs = self._find_layers(layers, "layers", "'stages'")
        return self._derived(outputs, layer=[one.layer for one in outputs])

    def depths(self):
        """Return for each output the share of the operations that computes it.

        Returns
        -------
        list of float
            Shares of the floating-point operations of the whole network, up to 1.
        """
        total = self.probe.total_cost or 1
        return [one.source.cumulative_cost / total for one in self.outputs]

    def _find_layers(self, layers, parameter, alternatives):
        if not len(layers):
            wanted = f"{alternatives} or a list of at least one layer"
            raise choice_error(parameter, wanted, layers)
        layers = [*self.stages, "neck"] if layers == "stages" else list(layers)
        return resolve_outputs(
            layers, self.pooling, self.probe, self._examined, parameter
        )


for _cached in (Neck.probe, Neck.outputs, Neck.stages):
    if hasattr(_cached, "lock"):  # Python 3.11 and earlier
        released_after_fork(_cached.lock)


def resolve_neck(
    model="efficientnet_lite0", *, layer=None, pooling="auto", examine=True, **described
):
    """Return the neck that the parameters describe. No weights are loaded.

    Parameters
    ----------
    model : str or Module, default="efficientnet_lite0"
        A name (see `list_models`), ``"hf-hub:OWNER/NAME"`` or a module.
    layer : None, str, int or list of str and int, default=None
        None or ``"neck"`` is the input of the last linear classifier, ``"output"`` the
        output of the network. Others are names of modules (see `list_layers`) or
        numbers of stages (0 is the first resolution, -1 the last).
    pooling : {"auto", "avg", "max", "gem", "flatten", "cls", "mean"}, default="auto"
        How maps and tokens are pooled. ``"auto"`` averages maps, uses the class token
        if there is one, and otherwise averages the tokens of the patches.
    examine : bool, default=True
        Whether to look at the network's layers now, so that errors about `layer`,
        `pooling` or `image_size` are raised here and not when the neck is first used.
    **described
        The other parameters of `make_spec`: weights, image_size, preprocessing,
        random_state, needs_weights and hub_config.

    Returns
    -------
    Neck

    Raises
    ------
    TypeError, ValueError
        If a parameter is invalid. The text begins with its name.
    """
    neck = Neck(make_spec(model, **described), layer, pooling)
    if examine:
        _ = neck.outputs
    return neck
