"""A neck of any module over any items: texts, recordings, rows of a table."""

import contextlib
import functools
import random
import threading
import types
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cloudpickle
import numpy as np
import torch

from .._utils._device import compute_context, try_on_device
from .._utils._digests import digest_bytes, digest_strings
from .._utils._forks import released_after_fork, undisturbed_by_forks
from .._utils._item_encoding import NotEncodableError, encode_item
from .._utils._parameter_errors import choice_error
from .._utils._preprocessing import Preprocessing
from .._utils._random import has_generator, random_states, random_states_kept
from ._code_state import CONTENT, code_state
from ._neck import Neck
from .probing._diagnosis import check_module
from .probing._fingerprint import digest_tensors, rows_agree
from .probing._layer_recorder import Recorder
from .probing._probe import Probe, make_probe
from .running._batch_runner import Runner, too_large
from .running._items import collate_items, explained
from .running._layer import first_tensor
from .running._poolings import pool
from .running._truncated_pass import run_truncated
from .sources import _user_module

# Number of items that identify a module.
N_PROBE_ITEMS = 4

_BATCH_SIZE = 32
_BATCH_SIZE_ACCELERATOR = 256

# Number of modules, and of items, whose rows a process remembers.
_N_REMEMBERED = 256
_OFTEN = 2**31

_CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class ItemNeck(Neck):
    """A user's module from items to the wanted layers.

    Attributes
    ----------
    collate : callable
        ``collate(list of items)``, the module's input.
    examples : tuple of object
        Some items, to find out what the layers return.
    tensors : str or None
        The digest of the module's tensors; see `snapshot`.
    state : str or None
        Identifies the module and `collate` in this process.
    """

    collate: Callable = list
    examples: tuple = ()
    tensors: str | None = None
    state: Any = None

    # Whether a pass of the module drew random numbers.
    _draws_numbers = False
    kind_of_item = "item"
    bytes_of_item = 1

    def __getstate__(self):
        # Results about the code in this process are not valid in another one.
        return {**vars(self), "state": None}

    def _make_probe(self) -> Probe:
        """Return what is known about the layers, from a pass of the examples."""
        known = _remembered_probes.get(self.state)
        return known or self._examine(self._usable_examples())[0]

    def snapshot(self):
        """Return a neck of a private copy of the module, which is known by `tensors`.

        So the module that was identified is the one that runs, even if the user trains
        it in another thread meanwhile.
        """
        spec = self.spec.snapshot()
        tensors = digest_tensors(spec.module)
        state = (
            tensors,
            _state_of(spec.module),
            _identity_of(self.collate),
            code_state(spec.module, self.collate),
        )
        return replace(self, spec=spec, tensors=tensors, state=state)

    def descriptions(self, precision, digest_file):
        """Return for each output what its rows depend on, other than the item.

        Parameters and result are those of `Neck.descriptions`. The rows of some items
        have to be compared as well.
        """
        return [
            {
                "format": 1,
                "architecture": self.spec.architecture,
                "weights": self.tensors,
                "preprocessing": "collate",
                "layer": layer or "neck",
                "pooling": self.pooling,
                "precision": precision,
            }
            for layer in _as_list(self.layer)
        ]

    def batched(self, items):
        """Return an `ItemBatch`, and which items `collate` cannot take."""
        with _one_collates:
            return collate_items(items, self.collate)

    @contextlib.contextmanager
    def loaded(
        self, device, precision="float32", runtime="torch", n_images=None, files=None
    ):
        """Lend the module on a device; as `Neck.loaded`, for an `ItemBatch`."""
        outputs, probe = self.outputs, self.probe
        with self.borrowed(device) as network:

            def compute(batch):
                with compute_context(device, "float32"):
                    inputs = batch.for_network(network, device)
                    with explained(inputs):
                        rows = run_truncated(network, inputs, outputs, probe)
                    return [one.cpu().numpy() for one in rows]

            with contextlib.closing(Runner(compute, outputs, device)) as runner:
                yield runner

    def chosen_runtime(self, device, precision, runtime, n_images):
        """Return ``"torch"``, which alone runs any module."""
        return "torch"

    def suggested_batch_size(self, device, runtime="torch"):
        """Return how many items to run at once on a device."""
        is_cpu = torch.device(device).type == "cpu"
        return _BATCH_SIZE if is_cpu else _BATCH_SIZE_ACCELERATOR

    def rows_of(self, items, device, name=None):
        """Return the rows of some items, which this process computes once.

        Parameters
        ----------
        items : list of object
            All of which `collate` can take.
        device : torch.device
        name : hashable or None, default=None
            Identifies the items. With it, and for a `snapshot`, the rows are
            remembered. Without it, random numbers in the module differ.

        Returns
        -------
        list of ndarray of float32, shape (len(items), n_features)
            One for each output.
        """
        key = (self.state, tuple(_as_list(self.layer)), self.pooling, name)
        if name is None or self.state is None:
            return self._examine(items, device, draws=True)[1]
        rows = _remembered_rows.get(key)
        if rows is None:
            rows = self._examine(items, device)[1]
            _remember(_remembered_rows, key, rows)
        return rows

    def agree(self, found, wanted):
        """Return whether two arrays of rows can be those of this module."""
        return rows_agree(found, wanted, self.spec.module)

    def may_draw_numbers(self):
        """Return whether a pass of the module drew random numbers, or may have."""
        return self._draws_numbers or has_generator(self.spec.module)

    def _usable_examples(self):
        """Return the first examples that `collate` can take."""
        usable, failure = [], None
        for item in self.examples:
            _, failures = self.batched([item])
            failure = failure or failures.get(0)
            if not failures:
                usable.append(item)
            if len(usable) == N_PROBE_ITEMS:
                break
        if not usable and failure is not None:
            raise failure
        return usable

    @undisturbed_by_forks()
    def _examine(self, items, device=_CPU, draws=False):
        """Return the `Probe` and the rows of items, from one pass of the whole module.

        It is that of `loaded` and of a second pass that looks at the layers, in one.
        """
        call = functools.partial(self._examine_at_once, items, device, draws)
        found, cause = try_on_device(device, call)
        if cause is None:
            return found
        if len(items) == 1:
            raise too_large(device, cause)
        parts = [self._examine([item], device, draws) for item in items]
        rows = zip(*(rows for _, rows in parts), strict=True)
        return parts[0][0], [np.concatenate(one) for one in rows]

    def _examine_at_once(self, items, device, draws):
        if not items:
            raise RuntimeError("items are needed to find out what the layers return")
        batch, failures = self.batched(list(items))
        if failures:
            raise failures[min(failures)]
        with (
            random_states_kept(device),
            self.borrowed(device) as network,
            compute_context(device, "float32"),
        ):
            if draws:
                _draw(device)
            inputs = batch.for_network(network, device)
            recorder = Recorder(network, (len(items),), None, _as_list(self.layer))
            before = random_states(device)
            with recorder, explained(inputs):
                returned = inputs.run(network)
            if random_states(device) != before:
                vars(self)["_draws_numbers"] = True
            probe = _of_any_length(make_probe(network, recorder, returned))
            output = first_tensor(returned)
            if len(items) > 1 and self.state is not None:
                _remember(_remembered_probes, self.state, probe)
            # For the first items, because shapes depend on the lengths of items.
            probe = vars(self).setdefault("probe", probe)
            rows = []
            for one in self.outputs:
                tensor = recorder.kept.get(one.source.name, output)
                if one.source == probe.neck and probe.neck_module is not None:
                    tensor = recorder.linear[1]
                rows.append(pool(tensor, one.source, one.pooling, inputs.mask))
            return probe, [one.cpu().numpy() for one in rows]


def resolve_item_neck(model, collate, *, layer=None, pooling="auto", examples=()):
    """Return the neck that the parameters describe. The module does not run.

    Parameters
    ----------
    model : Module
    collate : callable
    layer : None, str or list of str, default=None
    pooling : str, default="auto"
    examples : sequence of object, default=()

    Returns
    -------
    ItemNeck

    Raises
    ------
    TypeError, ValueError
        If there is no such layer. The text begins with the name of the parameter.
    """
    check_module(model, "collate(X[:2])")
    name = type(model).__name__
    names = [one for one, _ in model.named_modules() if one]
    for one in [] if layer is None else _as_list(layer):
        if not isinstance(one, str):
            wanted = "None, the name of a module, or a list of names"
            raise choice_error("layer", wanted, layer, error=TypeError)
        if one not in ("neck", "output", *names):
            wanted = (
                f"None, 'neck', 'output', the name of one of the {len(names)} modules "
                f"of {name!r}, or a list of these"
            )
            raise choice_error("layer", wanted, one, ["neck", "output", *names])
    spec = _user_module.make_spec(model, "default", None, Preprocessing(1, (1, 1)))
    architecture = {**spec.architecture, "takes": "items"}
    spec = replace(spec, architecture=architecture, takes_items=True)
    return ItemNeck(spec, layer, pooling, collate=collate, examples=tuple(examples))


def _as_list(layer):
    return layer if isinstance(layer, (list, tuple)) else [layer]


def _of_any_length(probe):
    """Return a probe in which a module that ran several times may run more often.

    How often may depend on the length of an item, so the pass must not end early.
    """

    def of_any_length(layer):
        return replace(layer, n_calls=_OFTEN) if layer.n_calls > 1 else layer

    layers = {name: of_any_length(one) for name, one in probe.layers.items()}
    return replace(probe, layers=layers, neck=of_any_length(probe.neck))


def _draw(device):
    """Draw some random numbers, so that a module gets others."""
    torch.rand(7)
    torch.rand(7, device=device)
    np.random.random(7)
    random.random()


# -- Results that this process remembers

_remembered_probes: OrderedDict = OrderedDict()
_remembered_rows: OrderedDict = OrderedDict()
_memory_lock = released_after_fork(threading.Lock())

# Tokenizers are not thread-safe.
_one_collates = released_after_fork(threading.Lock())


def _remember(memory, key, value):
    with _memory_lock:
        memory[key] = value
        while len(memory) > _N_REMEMBERED:
            memory.popitem(last=False)


def _state_of(module):
    """Return a digest of the plain attributes of a module, without its tensors."""
    parts = []
    for name, one in module.named_modules():
        parts.append(f"{name} {type(one).__module__}.{type(one).__qualname__}".encode())
        for attribute, value in sorted(vars(one).items()):
            if attribute in CONTENT:
                continue
            try:
                data = encode_item(value)
            except NotEncodableError:
                data = type(value).__qualname__.encode()
            parts += [attribute.encode(), data]
    return digest_strings(parts)


def _identity_of(collate):
    """Return what tells `collate` from other functions in this process.

    A function stays the same object in clones. Other callables are copied, so their
    content counts.
    """
    if isinstance(collate, (types.FunctionType, types.BuiltinFunctionType, type)):
        return collate
    try:
        return digest_bytes(cloudpickle.dumps(collate))
    except Exception:  # of the user's class
        # A new object has no remembered results.
        return collate if _is_hashable(collate) else object()


def _is_hashable(value):
    try:
        hash(value)
    except TypeError:
        return False
    return True
