"""A process notices that the code of a module, or what it uses, has changed."""

import copy
import functools
import gc
import logging
import os
import pickle
import threading
import types
import weakref

import cloudpickle
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from skdeepfeat import TorchFeatureExtractor
from skdeepfeat.networks import _code_state, resolve_item_neck
from skdeepfeat.networks._code_state import code_state

ROWS = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
FACTOR = 2.0
SETTINGS = {"factor": 2.0, "functions": [abs]}
CONFIG = types.SimpleNamespace(factor=2.0)
TENSOR = torch.tensor(2.0)


def scale(x):
    return x * 2.0


def scale_more(x):
    return x * 6.0


class Scale:
    def __call__(self, x):
        return x * 2.0


def call_helper(x):
    return scale(x)


class Meta(type):
    factor = 2.0


class WithMeta(metaclass=Meta):
    pass


class Slotted:
    __slots__ = ("linear",)


SLOTTED = Slotted()
SLOTTED.linear = nn.Linear(3, 3)
ARRAY = np.full(200_000, 2.0, np.float32)
TABLE = pd.DataFrame({"factor": [2.0]})
NORMAL = torch.distributions.Normal(0.0, 2.0)


def activate(x):
    return x * activate.factor


activate.factor = 2.0

FORWARDS = {
    "helper": lambda module, x: scale(module.linear(x)),
    "helper's helper": lambda module, x: call_helper(module.linear(x)),
    "constant": lambda module, x: FACTOR * module.linear(x),
    "entry": lambda module, x: SETTINGS["factor"] * module.linear(x),
    "attribute": lambda module, x: CONFIG.factor * module.linear(x),
    "tensor": lambda module, x: TENSOR * module.linear(x),
    "class": lambda module, x: Scale()(module.linear(x)),
    "nested": lambda module, x: [scale(one) for one in [module.linear(x)]][0],
    "values of a tensor": lambda module, x: TENSOR * module.linear(x),
    "array": lambda module, x: float(ARRAY[7]) * module.linear(x),
    "table": lambda module, x: float(TABLE["factor"].sum()) * module.linear(x),
    "distribution": lambda module, x: NORMAL.scale * module.linear(x),
    "slots": lambda module, x: SLOTTED.linear.bias[0] * module.linear(x),
    "attribute of a function": lambda module, x: activate(module.linear(x)),
    "name as text": lambda module, x: globals()["scale"](module.linear(x)),
    "code as text": lambda module, x: eval("scale(1.0)") * module.linear(x),
    "metaclass": lambda module, x: WithMeta.factor * module.linear(x),
    "environment": lambda module, x: float(os.environ["FACTOR"]) * module.linear(x),
    "installed": lambda module, x: torch.nn.functional.softsign(module.linear(x)),
    "imported": lambda module, x: torch.nn.functional.relu(2.0 * module.linear(x)),
}


def set_global(name, value):
    return lambda patch: patch.setitem(globals(), name, value)


CHANGES = {
    "helper": set_global("scale", scale_more),
    "helper's helper": set_global("scale", scale_more),
    "constant": set_global("FACTOR", 6.0),
    "entry": lambda patch: patch.setitem(SETTINGS, "factor", 6.0),
    "attribute": lambda patch: patch.setattr(CONFIG, "factor", 6.0),
    "tensor": lambda patch: patch.setitem(globals(), "TENSOR", torch.tensor(6.0)),
    "class": lambda patch: patch.setattr(Scale, "__call__", lambda _, x: x * 6.0),
    "nested": set_global("scale", scale_more),
    "values of a tensor": lambda patch: TENSOR.data.fill_(6.0),
    "array": lambda patch: ARRAY.fill(6.0),
    "table": lambda patch: TABLE.__setitem__("factor", [6.0]),
    "distribution": lambda patch: patch.setattr(NORMAL, "scale", torch.tensor(6.0)),
    "slots": lambda patch: SLOTTED.linear.bias.data.fill_(6.0),
    "attribute of a function": lambda patch: patch.setattr(activate, "factor", 6.0),
    "name as text": set_global("scale", scale_more),
    "code as text": set_global("scale", scale_more),
    "metaclass": lambda patch: patch.setattr(Meta, "factor", 6.0),
    "environment": lambda patch: patch.setenv("FACTOR", "6"),
    "installed": lambda patch: patch.setattr(
        nn.functional, "softsign", lambda x: 3 * x / (1 + x.abs())
    ),
}


def make_module(forward):
    """Return a module with the same weights and the same name of its class."""
    module = type("Net", (nn.Module,), {"forward": forward})()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module.linear = nn.Linear(4, 3)
    return module


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_what_the_module_uses(monkeypatch, name):
    monkeypatch.setenv("FACTOR", "2")
    monkeypatch.setitem(globals(), "TENSOR", torch.tensor(2.0))
    SLOTTED.linear.bias.data.fill_(2.0)
    module = make_module(FORWARDS[name])
    extractor = TorchFeatureExtractor(module, np.stack, layer="output").fit(ROWS)
    first = extractor.transform(ROWS)
    CHANGES[name](monkeypatch)
    assert_allclose(extractor.transform(ROWS), 3 * first, rtol=1e-5)


@pytest.mark.parametrize("name", ["helper", "constant", "entry"])
def test_a_change_of_what_collate_uses(monkeypatch, name):
    forward = FORWARDS[name]
    holder = types.SimpleNamespace(linear=lambda x: x)
    extractor = TorchFeatureExtractor(
        make_module(lambda module, x: module.linear(x)),
        lambda items: forward(holder, torch.tensor(np.stack(items))),
        layer="output",
    )
    first = extractor.fit_transform(ROWS)
    CHANGES[name](monkeypatch)
    assert np.abs(extractor.transform(ROWS) - first).max() > 0.1


def test_constants_with_the_same_values(monkeypatch):
    for name, value in [("ONE", 2), ("TWO", 3), ("THREE", 3)]:
        monkeypatch.setitem(globals(), name, value)
    module = make_module(lambda module, x: ONE + TWO * module.linear(x) ** THREE)  # noqa: F821
    state = code_state(module, np.stack)
    for name, value in [("ONE", 3), ("TWO", 2), ("THREE", 2)]:
        with monkeypatch.context() as patch:
            patch.setitem(globals(), name, value)
            assert code_state(module, np.stack) != state
    assert code_state(module, np.stack) == state


def test_a_class_and_a_function_that_were_defined_again():
    factors = [1.0, 2.0]
    found = []
    for factor in factors:
        module = make_module(lambda self, x, factor=factor: factor * self.linear(x))
        extractor = TorchFeatureExtractor(module, np.stack, layer="output")
        found.append(extractor.fit_transform(ROWS))
    assert_allclose(found[1], 2 * found[0], rtol=1e-5)


def test_hooks_and_functions_that_a_module_holds():
    module = make_module(lambda self, x: self.linear(x))
    extractor = TorchFeatureExtractor(module, np.stack, layer="output").fit(ROWS)
    first = extractor.transform(ROWS)
    handle = module.register_forward_hook(lambda module, args, output: 2 * output)
    assert_allclose(extractor.transform(ROWS), 2 * first, rtol=1e-5)
    handle.remove()
    assert_allclose(extractor.transform(ROWS), first, rtol=1e-5)
    module.forward = types.MethodType(lambda self, x: 3 * self.linear(x), module)
    assert_allclose(extractor.transform(ROWS), 3 * first, rtol=1e-5)


def test_a_module_without_tensors_of_the_same_name():
    for width in (2, 3):
        module = type("Net", (nn.Module,), {"forward": lambda s, x, n=width: x[:, :n]})
        extractor = TorchFeatureExtractor(module(), np.stack, cache=None)
        assert extractor.fit_transform(ROWS).shape == (9, width)


class Slots:
    __slots__ = ("itself",)


def odd_module():
    """Return a module that holds what cannot be compared, and cycles."""
    module = make_module(FORWARDS["helper"])
    module.slots = Slots()
    module.slots.itself = module.slots
    module.logger = logging.getLogger("odd")
    module.settings = {"lock": threading.Lock(), "act": functools.partial(scale, x=1)}
    module.settings["again"] = module.settings
    module.names = {str(i): i for i in range(200_000)}
    module.itself = [module]
    return module


def test_copies_have_the_same_state():
    module = odd_module()
    module.settings.pop("lock")  # which cannot be copied
    state = code_state(module, np.stack)
    assert code_state(copy.deepcopy(module), np.stack) == state
    assert hash(code_state(module, np.stack)) == hash(state)


@pytest.mark.parametrize("name", FORWARDS)
def test_nothing_changed(name):
    module = make_module(FORWARDS[name])
    assert code_state(module, np.stack) == code_state(module, np.stack)


def test_what_cannot_be_compared_is_no_error():
    module = odd_module()
    state = code_state(module, np.stack)
    assert code_state(module, np.stack) == state
    module.settings["act"] = functools.partial(scale_more, x=1)
    assert code_state(module, np.stack) != state


def test_deeply_nested_containers_take_no_long(monkeypatch):
    """Each level was encoded again, until the lock at its end."""
    n_encoded = []
    encode = _code_state.encode_item
    monkeypatch.setattr(
        _code_state, "encode_item", lambda one: n_encoded.append(1) or encode(one)
    )
    monkeypatch.setattr(_code_state, "_MAX_WASTED", 1000)
    module = make_module(FORWARDS["helper"])
    module.nested = [threading.Lock()]
    for _ in range(500):
        module.nested = [module.nested]
    state = code_state(module, np.stack)
    assert len(n_encoded) < 100
    assert code_state(module, np.stack) == state


def test_code_at_the_end_of_a_deep_network(monkeypatch):
    """It is looked at before the attributes of a thousand other modules."""
    head = make_module(FORWARDS["helper"])
    module = nn.Sequential(*[nn.Conv2d(1, 1, 1) for _ in range(1500)], head)
    state = code_state(module, np.stack)
    assert code_state(module, np.stack) == state
    CHANGES["helper"](monkeypatch)
    assert code_state(module, np.stack) != state


class LazyTable(dict):
    """Imports what it holds when it is asked, as those of transformers."""

    def __iter__(self):
        raise AssertionError("code of an object has run")

    keys = values = items = __iter__


def test_no_method_of_a_container_runs(caplog):
    module = make_module(FORWARDS["helper"])
    module.table = LazyTable(lock=threading.Lock(), act=scale)
    with caplog.at_level(logging.DEBUG):
        state = code_state(module, np.stack)
    assert not caplog.records
    dict.__setitem__(module.table, "act", scale_more)
    assert code_state(module, np.stack) != state


def test_a_modules_own_slots():
    class Net(nn.Linear):
        __slots__ = ("factor",)

        def forward(self, x):
            return self.factor * super().forward(x)

    module = Net(4, 3)
    module.factor = 2.0
    extractor = TorchFeatureExtractor(module, np.stack, layer="output").fit(ROWS)
    first = extractor.transform(ROWS)
    module.factor = 6.0
    assert_allclose(extractor.transform(ROWS), 3 * first, rtol=1e-5)


@functools.cache
def cached_factor():
    return FACTOR


def test_a_change_of_what_a_cached_function_uses(monkeypatch):
    module = make_module(lambda module, x: cached_factor() * module.linear(x))
    state = code_state(module, np.stack)
    monkeypatch.setitem(globals(), "FACTOR", 6.0)
    assert code_state(module, np.stack) != state


class Nameless:
    @property
    def __class__(self):
        raise RuntimeError("nobody may know")


class Uncounted(dict):
    def __len__(self):
        raise RuntimeError("nobody may count")


def test_an_object_that_raises_hides_nothing_else(monkeypatch):
    module = make_module(FORWARDS["helper"])
    module.odd = [Nameless(), np.array([Uncounted()], object)]
    module.table = Uncounted()
    state = code_state(module, np.stack)
    assert code_state(module, np.stack) == state
    CHANGES["helper"](monkeypatch)
    assert code_state(module, np.stack) != state


MANY = [np.zeros(10_000) for _ in range(100)]


def test_a_state_holds_no_content():
    """Neither of weights that a hook leads to, nor of a list of images."""
    module = make_module(lambda module, x: module.linear(x) + MANY[0][0])
    module.linear = nn.Linear(4, 2000)
    module.register_forward_hook(types.MethodType(lambda self, *rest: None, module))
    state = code_state(module, np.stack)
    assert sum(len(one) for one in state if isinstance(one, bytes)) < 20_000
    with torch.no_grad():
        module.linear.weight += 1  # through the hook, they are compared all the same
    assert code_state(module, np.stack) != state


def test_a_state_does_not_keep_large_objects_alive(monkeypatch):
    monkeypatch.setattr(_code_state, "_MAX_NUMBERS", 2)
    monkeypatch.setitem(globals(), "TENSOR", torch.ones(3))
    kept = weakref.ref(TENSOR)
    module = make_module(FORWARDS["tensor"])
    state = code_state(module, np.stack)
    globals()["TENSOR"] = torch.ones(3)
    gc.collect()
    assert kept() is None
    assert code_state(module, np.stack) != state


def test_a_neck_is_sent_to_a_worker_without_it():
    module, examples = make_module(FORWARDS["helper"]), tuple(ROWS)
    neck = resolve_item_neck(module, np.stack, layer="output", examples=examples)
    sent = pickle.loads(cloudpickle.dumps(neck.snapshot()))
    [rows] = sent.rows_of(list(ROWS), torch.device("cpu"))
    assert_allclose(rows, scale(module.linear(torch.tensor(ROWS))).detach(), rtol=1e-5)
