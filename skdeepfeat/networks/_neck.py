"""A neck: a network, cut after the wanted layers, that can describe itself."""

import contextlib
import functools
import logging
from dataclasses import dataclass, replace

import torch

from .._utils._forks import released_after_fork, undisturbed_by_forks
from ._copying import own_copy
from ._parameter_errors import choice_error
from .probing._examine import build_meta, last_map_of, probe_spec, stages_of
from .probing._fingerprint import Fingerprint, fingerprint_of, is_below_float32
from .probing._probe import Probe
from .probing._wanted_layers import Output, resolve_outputs
from .running import _compile_runtime, _openvino_runtime
from .running._batch_runner import Runner
from .running._compiled_networks import CompilationError, compiled_network
from .running._loaded_networks import borrowed
from .running._runtimes import choose_runtime, is_worth_folding
from .running._torch_runtime import EagerNetwork
from .running._trainable_neck import TrainableNeck
from .sources._network_sources import make_spec
from .sources._network_spec import NetworkSpec
from .sources._offline import explain_downloads

__all__ = ["Neck", "resolve_neck"]

logger = logging.getLogger(__name__)

# By the name of the runtime: what compiles for it, and its name for people.
_COMPILERS = {
    "compile": (_compile_runtime, "torch.compile"),
    "openvino": (_openvino_runtime, "OpenVINO"),
}

# Raised when the rows of an unchanged network change for a reason of ours, such as
# another arithmetic in a pooling: older cached rows are then left aside.
_FORMAT = 2

# Pixels that are run at once. torch on a CPU asks the system for each map, and the C
# library gives back at once what is larger than 32 MB, so that the system fills it with
# zeros again and again. At 8 images of 224 x 224 most maps stay below, which is faster
# than 32, while OpenVINO keeps its memory: `benchmarks/extraction.py --parts sweep`
# prints both. Accelerators like more.
_BATCH_PIXELS = {"torch": 8 * 224 * 224, "openvino": 32 * 224 * 224}
_BATCH_PIXELS_ACCELERATOR = 128 * 224 * 224


# What batch normalization calls its buffers.
_STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True, eq=False)
class Neck:
    """A network from the image to the wanted layers, as data until it is loaded.

    Attributes
    ----------
    spec : NetworkSpec
    layer, pooling
        As they were asked for.
    fingerprint : Fingerprint or None
        What a user's own network is known by; see `identified`.
    """

    spec: NetworkSpec
    layer: str | int | list | tuple | None
    pooling: str
    fingerprint: Fingerprint | None = None

    def __getstate__(self):
        # It is pickled to be sent to another process, whose machine may lack the
        # device that a user's network is on.
        return {**vars(self), "spec": self.spec.on_cpu()}

    # Examining a network takes about a second, and a run whose rows are all known does
    # not need it: so these two are found at first use.

    @functools.cached_property
    def probe(self) -> Probe:
        """What is known of the layers."""
        with undisturbed_by_forks():
            return probe_spec(self.spec)

    @functools.cached_property
    def outputs(self) -> tuple[Output, ...]:
        """One for each wanted layer, in the user's order.

        Each with `layer` (the module's name, ``"neck"`` or ``"output"``), `pooling`
        and `n_features`.
        """
        return resolve_outputs(
            self.layer,
            self.pooling,
            self.probe,
            functools.partial(stages_of, self.spec),
            self.spec.name,
            last_map=functools.partial(last_map_of, self.spec),
        )

    @property
    def model_name(self):
        """The network's short name, as in feature names."""
        return self.spec.model_name

    @property
    def preprocessing(self):
        """The `Preprocessing` that belongs to the weights, at the wanted size."""
        return self.spec.preprocessing

    def n_features(self):
        """Return the number of features of each output, without the weights."""
        return [one.n_features for one in self.outputs]

    def feature_name_prefixes(self):
        """Return for each output what its features' names begin with."""
        prefixes = []
        for one in self.outputs:
            parts = [
                self.model_name,
                one.layer,
                *([one.pooling] if one.pooling else []),
            ]
            prefixes.append("_".join(parts))
        return prefixes

    def labels(self):
        """Return for each output a name for people; the default's needs no probe."""
        return [
            "_".join(
                [self.model_name, layer, *([pooling] if pooling != "auto" else [])]
            )
            for layer, pooling in self._places()
        ]

    def _places(self):
        """Return (layer, pooling) of each output as the cache tells them apart."""
        if self.layer in (None, "neck") and self.pooling == "auto":
            return [("neck", "auto")]
        # The neck's own pooling, if it needs one, is a matter of the network.
        return [
            (one.layer, one.pooling or "auto")
            if one.layer != "neck" or self.pooling != "auto"
            else ("neck", "auto")
            for one in self.outputs
        ]

    @property
    def is_own(self):
        """Whether the network is a user's module, which nothing but itself identifies.

        A fine-tuned network is one, too.
        """
        return self.spec.module is not None

    def identified(self, device):
        """Return a neck of a private copy of the user's network, and its fingerprint.

        What is checked is then what is used, also if the user trains the network in
        another thread meanwhile.

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
        copied = Neck(self.spec.snapshot(), self.layer, self.pooling)
        # The modules are the same, so they need not be examined again.
        vars(copied).update(probe=self.probe, outputs=self.outputs)
        return copied._with_fingerprint(device)

    def _with_fingerprint(self, device):
        neck = replace(self, fingerprint=fingerprint_of(self, device))
        vars(neck).update(probe=self.probe, outputs=self.outputs)
        return neck

    def computes_exactly(self, precision):
        """Return whether rows are the same to 1e-4, whatever computes them.

        Parameters
        ----------
        precision : {"float32", "tf32", "bfloat16", "float16"}

        Returns
        -------
        bool
            False below float32, also where it is the module's own weights that are.
        """
        low = self.is_own and is_below_float32(self.spec.module)
        return precision == "float32" and not low

    def descriptions(self, precision, digest_file):
        """Return for each output what its rows depend on, beside the image.

        Parameters
        ----------
        precision : {"float32", "bfloat16", "float16"}
        digest_file : callable
            ``digest_file(path) -> bytes``, the digest of a file's content.

        Returns
        -------
        list of dict of JSON types
            Equal where the features are equal: a layer asked for alone, in a list or
            by its stage's number has one description. Of a user's own network, the
            rows of its fingerprint are to be compared as well.

        Raises
        ------
        WeightsNotFoundError
            For weights that only their file's content identifies, if that file is
            neither here nor to be downloaded.
        """
        if self.is_own:
            identity = self.fingerprint and self.fingerprint.describe()
        else:
            with explain_downloads():
                identity = self.spec.weights.identity(digest_file)
        return [
            {
                "format": _FORMAT,
                "architecture": self.spec.architecture,
                "weights": identity,
                "preprocessing": self.preprocessing.describe(),
                "layer": layer,
                "pooling": pooling,
                "precision": precision,
            }
            for layer, pooling in self._places()
        ]

    @contextlib.contextmanager
    def loaded(self, device, precision="float32", runtime="torch", n_images=None):
        """Lend the network on a device; weights are read here, at first use.

        Parameters
        ----------
        device : torch.device
        precision : {"float32", "tf32", "bfloat16", "float16"}, default="float32"
            What the network computes in; rows are float32 in any case.
        runtime : {"auto", "torch", "compile", "openvino"}, default="torch"
            What runs it. ``"auto"`` takes OpenVINO where it is installed, can run this
            network and pays.
        n_images : int, default=None
            How many images there are to run; None for unknown, which counts as many.

        Yields
        ------
        Runner
            ``run(batch) -> list of ndarray``, one for each output. It is of no use
            after the ``with``.

        Raises
        ------
        WeightsNotFoundError
            If the weights are neither here nor to be downloaded.
        ImportError, ValueError
            If a weights file is damaged or belongs to another network, or a
            runtime was asked for and cannot run it.
        """
        device = torch.device(device)
        with contextlib.ExitStack() as stack:
            chosen = self.chosen_runtime(device, precision, runtime, n_images)
            compute = None
            if chosen in _COMPILERS:
                compute = self._compiled(chosen, device, precision, chosen == runtime)
            if compute is None:
                compute = EagerNetwork(
                    stack.enter_context(self._borrowed(device)),
                    self.outputs,
                    self.probe,
                    self.preprocessing,
                    device,
                    precision,
                    is_worth_folding(
                        device, precision, self.preprocessing.crop, n_images
                    ),
                )
            run = Runner(compute, self.outputs, device)
            del compute  # the runner alone holds it, and lets go of it below
            stack.callback(run.close)
            yield run

    @contextlib.contextmanager
    def _borrowed(self, device):
        with borrowed(self.spec, device) as (network, random_head):
            self._refuse_random_head(random_head)
            # Not held on to here, or the device's memory could not be given back when
            # the borrower is done.
            lent = [network]
            del network
            yield lent.pop()

    def _compiled(self, runtime, device, precision, is_wanted):
        """Return the network in a compiled form, or None where it has to be torch's."""
        compiler, name = _COMPILERS[runtime]
        fingerprint = self.fingerprint
        if self.is_own and fingerprint is None:
            # What was compiled before may be another network by now.
            fingerprint = fingerprint_of(self, device)
        try:
            return compiled_network(
                compiler,
                self.spec,
                self.outputs,
                self.probe,
                device,
                precision,
                functools.partial(self._borrowed, device),
                fingerprint,
            )
        except CompilationError as error:
            if is_wanted:
                raise ValueError(
                    f"{name} cannot run {self.spec.name!r}: {error}. Use "
                    "runtime='torch', or 'auto', which does so by itself."
                ) from error
            logger.info("torch runs %s: %s cannot (%s)", self.spec.name, name, error)
            return None

    def can_compile(self, runtime, device, precision):
        """Return whether a runtime can run the network, which it then does at once.

        Parameters
        ----------
        runtime : {"compile", "openvino"}
        device : torch.device
        precision : {"float32", "tf32", "bfloat16", "float16"}

        Returns
        -------
        bool
        """
        return (
            self._compiled(runtime, torch.device(device), precision, False) is not None
        )

    def empty_network(self):
        """Return the network with tensors that have a shape but take no memory.

        Returns
        -------
        Module or None
            None if it cannot be built so.
        """
        try:
            return build_meta(self.spec)
        except Exception as error:  # networks are anybody's code
            logger.debug("%s needs numbers to be built: %s", self.spec.name, error)
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
        with self._borrowed(torch.device("cpu")) as network:
            # Buffers may be infinite by design, such as masks.
            weights = [
                name
                for name, tensor in network.named_parameters()
                if not torch.isfinite(tensor).all()
            ]
            buffers = [
                name
                for name, tensor in network.named_buffers()
                if torch.isnan(tensor).any()
                or (name.endswith(_STATISTICS) and not torch.isfinite(tensor).all())
            ]
        return weights + buffers

    def has_float16_weights(self):
        """Return whether a user's network computes in float16 whatever is asked for."""
        module = self.spec.module
        return module is not None and any(
            weight.dtype == torch.float16 for weight in module.parameters()
        )

    @undisturbed_by_forks()
    def trainable(self):
        """Return the network up to the neck as a module with weights of its own.

        Returns
        -------
        TrainableNeck
            On the CPU.

        Raises
        ------
        WeightsNotFoundError, ValueError
            As `loaded` does.
        """
        with self._borrowed(torch.device("cpu")) as network:
            own = own_copy(network)
        [output] = self.outputs
        stages = stages_of(self.spec)
        return TrainableNeck(own, output, self.probe, self.preprocessing, stages)

    def with_network(self, network):
        """Return the same place in a network that was trained further.

        Parameters
        ----------
        network : Module
            What `trainable` gave, or its like: the same modules, other weights.

        Returns
        -------
        Neck
        """
        neck = Neck(self.spec.with_module(network), self.layer, self.pooling)
        # The modules are the same, so they need not be examined again.
        vars(neck).update(probe=self.probe, outputs=self.outputs)
        return neck

    def joined(self, layers, device=None):
        """Return a neck with other layers' outputs behind this one's.

        Parameters
        ----------
        layers : list of str and int, or "stages"
            What the `cache_layers` parameter of an estimator says; ``"stages"`` is
            all stages and the neck. Those that this neck has already are left out.
        device : torch.device, default=None
            Where to run it for its fingerprint, if this neck has one.

        Returns
        -------
        Neck
            Of the same network and pooling, in one pass.

        Raises
        ------
        TypeError, ValueError
            If there are no such layers.
        """
        if not len(layers):
            wanted = "None, 'stages' or a list of at least one layer"
            raise choice_error("cache_layers", wanted, layers)
        stages = functools.partial(stages_of, self.spec)
        more = resolve_outputs(
            [*stages(), "neck"] if layers == "stages" else list(layers),
            self.pooling,
            self.probe,
            stages,
            self.spec.name,
            "cache_layers",
            last_map=functools.partial(last_map_of, self.spec),
        )
        known = {one.layer for one in self.outputs}
        outputs = (*self.outputs, *(one for one in more if one.layer not in known))
        neck = Neck(self.spec, [one.layer for one in outputs], self.pooling)
        # Examining a user's network takes time, and it is the same.
        vars(neck).update(probe=self.probe, outputs=outputs)
        if self.fingerprint is None:
            return neck
        return neck._with_fingerprint(device)

    def _refuse_random_head(self, head):
        for one in self.outputs:
            place = one.module
            if place == "neck" and self.probe.neck_module not in (None, *head):
                place = self.probe.neck_module
            inside = any(f"{place}.".startswith(f"{module}.") for module in head)
            if head and (place == "output" or inside):
                raise ValueError(
                    f"The weights {self.spec.weights.label!r} bring no head that fits "
                    f"{self.spec.name!r}, so its layer {one.layer!r} would be random. "
                    "Choose a layer before the head."
                )

    def chosen_runtime(self, device, precision, runtime, n_images):
        """Return what is to run the network; parameters and errors are `loaded`'s.

        Returns
        -------
        {"torch", "compile", "openvino"}
            torch takes the place of what turns out to be unable to.
        """
        return choose_runtime(
            runtime, device, precision, self.preprocessing.crop, n_images
        )

    def suggested_batch_size(self, device, runtime="torch"):
        """Return how many images to run at once on a device.

        Parameters
        ----------
        device : torch.device
        runtime : {"torch", "compile", "openvino"}, default="torch"

        Returns
        -------
        int
            At least 1. Memory may still not suffice; the runner then takes parts.
        """
        height, width = self.preprocessing.crop
        budget = _BATCH_PIXELS_ACCELERATOR
        if torch.device(device).type == "cpu":
            budget = _BATCH_PIXELS.get(runtime, _BATCH_PIXELS["torch"])
        return max(1, min(512, budget // (height * width)))


for _cached in (Neck.probe, Neck.outputs):
    if hasattr(_cached, "lock"):  # Python 3.11 and earlier
        released_after_fork(_cached.lock)


def resolve_neck(
    model="efficientnet_lite0",
    *,
    weights="default",
    layer=None,
    pooling="auto",
    image_size=None,
    preprocessing=None,
    random_state=0,
    examine=True,
    needs_weights=True,
    hub_config=None,
):
    """Return the neck that the parameters describe; no weights are loaded.

    Parameters
    ----------
    model : str or Module, default="efficientnet_lite0"
        A name (see `list_models`), ``"hf-hub:OWNER/NAME"`` or a module.
    weights : str, PathLike or None, default="default"
        ``"default"``, a name that the source knows (``"IMAGENET1K_V1"``, a timm tag),
        a file (``.safetensors``, ``.pth``) or None for random ones.
    layer : None, str, int or list of str and int, default=None
        None or ``"neck"`` is what enters the last linear classifier, ``"output"`` what
        the network returns; else the names of modules (see `list_layers`) or numbers
        of stages (0 the first resolution, -1 the last).
    pooling : {"auto", "avg", "max", "gem", "flatten", "cls", "mean"}, default="auto"
        What is done to maps and tokens. ``"auto"`` averages maps, takes the class
        token where there is one, and averages the patches' tokens where not.
    image_size : int, (int, int) or None, default=None
        Pixels, instead of the weights' own size.
    preprocessing : Preprocessing, dict, transform or None, default=None
        For modules, weights files and random weights.
    random_state : int, default=0
        The seed of ``weights="random"``.
    examine : bool, default=True
        Whether to look at the network's layers at once, and raise what is wrong with
        `layer`, `pooling` or `image_size` here and not at the first use.
    needs_weights : bool, default=True
        False where the weights of `Neck.with_network` will take the place of a weights
        file, which may then be gone.
    hub_config : dict, default=None
        A spec's `hub_config`, for a network of a hub repository that is not to be
        asked for again.

    Returns
    -------
    Neck

    Raises
    ------
    TypeError, ValueError
        If a parameter is wrong; its name comes first.
    """
    spec = make_spec(
        model,
        weights,
        image_size,
        preprocessing,
        random_state,
        needs_weights,
        hub_config,
    )
    neck = Neck(spec, layer, pooling)
    if examine:
        _ = neck.outputs
    return neck
