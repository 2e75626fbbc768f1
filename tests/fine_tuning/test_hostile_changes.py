"""Files with a correct checksum and a false description of changed layers."""

import copy
import functools
import json
import re

import numpy as np
import pytest
import safetensors.torch
import torch
from networks import fix_weights
from torch import nn

from skdeepfeat import BadFileError, FineTuneClassifier
from skdeepfeat.networks import apply_changes, change_layer, changes_of
from skdeepfeat.training import named_tensors
from skdeepfeat.training._tensor_file import dump_tensors

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)


class Net(nn.Module):
    """Layers for all kinds of changes."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.third = nn.Conv2d(8, 8, 3, padding=1)
        self.point = nn.Conv2d(8, 12, 1)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.block = nn.ModuleList([nn.Linear(12, 12)])
        self.hidden = nn.Linear(12, 12)
        self.neck = nn.Linear(12, 6)
        self.head = nn.Linear(6, 4)
        fix_weights(self, scale=1 / 3)

    def forward(self, x):
        x = self.second(self.norm(self.stem(x)).relu()).relu()
        x = self.depthwise(self.point(self.third(x).relu()).relu()).mean((2, 3))
        return self.head(self.neck(self.hidden(self.block[0](x)).relu()))


CHANGES = [
    {"layer": "stem", "kind": "resized", "inputs": 3, "outputs": 5},
    {"layer": "norm", "kind": "resized", "inputs": 5, "outputs": 5},
    {"layer": "second", "kind": "resized", "inputs": 5, "outputs": 8},
    {"layer": "second", "kind": "tucker", "ranks": [2, 3]},
    {"layer": "second.1", "kind": "separable", "rank": 4},
    {"layer": "third", "kind": "low_rank", "rank": 2, "bias": True},
    {"layer": "point", "kind": "widened", "inputs": 8, "outputs": 14},
    {"layer": "depthwise", "kind": "widened", "inputs": 14, "outputs": 14},
    {"layer": "block.0", "kind": "widened", "inputs": 14, "outputs": 12},
    {"layer": "block.0", "kind": "repeated"},
    {
        "layer": "hidden", "kind": "tensor_train", "in_shape": [3, 4],
        "out_shape": [4, 3], "ranks": [5],
    },
    {
        "layer": "neck", "kind": "deepened", "channels": 6, "kernel": None,
        "batch_norm": True, "before": True,
    },
]  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return the header and the tensors of a valid file."""
    fitted = FineTuneClassifier(
        Net(), image_size=16, max_epochs=1, cache=None, device="cpu", random_state=0
    ).fit(PIXELS, np.arange(8) % 2)
    # A repeated block needs as many inputs as outputs, so this one is not widened.
    changes = [one for one in CHANGES if one["layer"] != "block.0"]
    changes += [
        {"layer": "depthwise", "kind": "resized", "inputs": 12, "outputs": 12},
        {"layer": "point", "kind": "resized", "inputs": 8, "outputs": 12},
        {"layer": "block.0", "kind": "repeated"},
    ]
    for change in changes:
        new = apply_changes(copy.deepcopy(fitted.body_), [change])
        layer = new.get_submodule(change["layer"])
        tensors = {
            name: torch.rand(one.shape).to(one.dtype)
            for name, one in named_tensors(layer).items()
        }
        change_layer(fitted.body_, change, tensors)
    path = tmp_path_factory.mktemp("saved") / "c.safetensors"
    fitted.save(path)
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    text = json.loads(content[8 : 8 + size])["__metadata__"]["skdeepfeat"]
    assert json.loads(text)["changes"]["body"] == changes
    return json.loads(text), safetensors.torch.load(content)


def load(path, header, tensors):
    path.write_bytes(dump_tensors(tensors, json.dumps(header)))
    return FineTuneClassifier.load(path, model=Net())


def nested(depth, make):
    return functools.reduce(lambda inner, _: make(inner), range(depth), 1)


VALUES = [
    None, True, False, -1, 0, 1, 2, 3, 8, 13, 2**31, 2**63, 10**30, 1.0, 2.5,
    float("nan"), float("inf"), "", ".", "3", "stem", "stem.", "..", "body.stem",
    "second.0", "third", "block", "forward", "__class__", "_modules", "stem.weight",
    "norm.running_mean", "x" * 5000, "code", "resized", "repeated", "low_rank",
    [], [1], [2, 3], [1] * 1000, {}, {"layer": "stem"}, *CHANGES,
    nested(100, lambda inner: [inner]), nested(100, lambda inner: {"kind": inner}),
]  # fmt: skip


def any_of(rng, values):
    return copy.deepcopy(values[rng.integers(len(values))])


def lie_about_layers(rng, header, tensors):
    """Change something, at any depth, in the description of the layers."""
    node = header["changes"]["body"]
    while True:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        if not len(keys):
            return
        key = keys[rng.integers(len(keys))]
        if isinstance(node[key], (dict, list)) and rng.random() < 0.8:
            node = node[key]
            continue
        what = rng.integers(5)
        if what == 0:
            del node[key]
        elif what == 1 and isinstance(node, list):
            node.insert(rng.integers(len(node) + 1), any_of(rng, [*node, *VALUES]))
        elif what == 2 and isinstance(node, list):
            rng.shuffle(node)
        elif what == 3 and isinstance(node, dict):
            node[any_of(rng, ["code", "rank", "ranks", "bias"])] = any_of(rng, VALUES)
        else:
            node[key] = any_of(rng, VALUES)
        return


def lie_about_tensors(rng, header, tensors):
    name = any_of(rng, sorted(tensors))
    tensor = tensors[name]
    other = any_of(rng, sorted(tensors))
    ways = {
        "missing": lambda: tensors.pop(name),
        "more": lambda: tensors.update({f"{name}.more": tensor.clone()}),
        "of nothing": lambda: tensors.update({f"x{name}": tensor.clone()}),
        "swapped": lambda: tensors.update(
            {name: tensors[other].clone(), other: tensor.clone()}
        ),
        "flat": lambda: tensors.update({name: tensor.flatten().clone()}),
        "empty": lambda: tensors.update({name: tensor.flatten()[:0].clone()}),
        "larger": lambda: tensors.update({name: torch.stack([tensor, tensor])}),
        "deeper": lambda: tensors.update({name: tensor[None].clone()}),
        "type": lambda: tensors.update({name: tensor.to(any_of(rng, TYPES))}),
        "strides": lambda: header["channels_last"].extend([name] * 100_000),
    }
    ways[any_of(rng, sorted(ways))]()


TYPES = [
    torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.bool,
    torch.complex64, torch.float8_e4m3fn,
]  # fmt: skip


def lie_about_the_rest(rng, header, tensors):
    ways = {
        "no body": lambda: header.update(has_body=False),
        "prefix": lambda: header["changes"].update(head=[CHANGES[0]]),
        "model": lambda: header["changes"].update(model=header["changes"]["body"]),
        "none": lambda: header.pop("changes"),
        "any": lambda: header.update(changes=any_of(rng, VALUES)),
        "body": lambda: header["changes"].update(body=any_of(rng, VALUES)),
        "head": lambda: header.update(head=[["ReLU", {}]] * 100_000 + header["head"]),
        "version": lambda: header.update(format=any_of(rng, VALUES)),
        "strides": lambda: header.update(channels_last=any_of(rng, VALUES)),
    }
    ways[any_of(rng, sorted(ways))]()


LIES = [lie_about_layers, lie_about_layers, lie_about_tensors, lie_about_the_rest]


def load_lie(rng, path, header, tensors):
    """Load a file with lies; return whether it was refused."""
    header, tensors = copy.deepcopy(header), copy.deepcopy(tensors)
    for _ in range(rng.integers(1, 3)):
        try:
            LIES[rng.integers(len(LIES))](rng, header, tensors)
        except (AttributeError, KeyError, TypeError):
            break  # an earlier lie has removed what this one would change
    try:
        loaded = load(path, header, tensors)
    except BadFileError as error:
        assert "cannot be loaded: " in str(error) and len(str(error)) < 700
        return True
    # A fit could have saved this: other numbers, or layers in another order.
    assert np.isfinite(loaded.predict_proba(PIXELS[:2])).all()
    json.dumps(changes_of(loaded.body_))
    return False


@pytest.mark.parametrize("seed", range(4))
def test_a_file_that_lies_is_refused_or_works(seed, saved, tmp_path):
    rng = np.random.default_rng(seed)
    refused = [load_lie(rng, tmp_path / "c", *saved) for _ in range(40)]
    assert sum(refused) > 25


def test_the_sound_file_is_loaded(saved, tmp_path):
    loaded = load(tmp_path / "c", *saved)
    assert loaded.predict_proba(PIXELS).shape == (8, 2)
    assert len(changes_of(loaded.body_)) == len(saved[0]["changes"]["body"])


def test_layers_that_do_not_fit_each_other_are_refused(saved, tmp_path):
    """Names, sizes and tensors agree, but the next layer takes a different size."""
    header, tensors = copy.deepcopy(saved)
    changes = header["changes"]["body"]
    changes.append({"layer": "third.1", "kind": "resized", "inputs": 2, "outputs": 3})
    for name in ("weight", "bias"):
        key = f"body.third.1.{name}"
        tensors[key] = tensors[key][:3].clone()
    with pytest.raises(BadFileError, match="does not run"):
        load(tmp_path / "c", header, tensors)


def test_a_head_for_other_features_is_refused(saved, tmp_path):
    header, tensors = copy.deepcopy(saved)
    header["attributes"]["_n_features_out"] = 5
    [kind, sizes] = header["head"][-1]
    header["head"][-1] = [kind, {**sizes, "in_features": 5}]
    [name] = [name for name in tensors if re.fullmatch(r"head\..*weight", name)]
    tensors[name] = tensors[name][:, :5].clone()
    with pytest.raises(BadFileError, match="takes 5 features"):
        load(tmp_path / "c", header, tensors)


COUNT = "body.norm.num_batches_tracked"

REFUSED = {
    "head layers": lambda h, t: h.update(head=[["ReLU", {}]] * 20_000 + h["head"]),
    "tensor of nothing": lambda h, t: t.update(x=torch.ones(1)),
    "changes of nothing": lambda h, t: h["changes"].update(head=[]),
    "bool": lambda h, t: t.update({COUNT: t[COUNT].bool()}),
    "float8": lambda h, t: t.update(
        {k: v.to(torch.float8_e4m3fn) for k, v in t.items() if v.is_floating_point()
         and k.startswith("body.")}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_network_in_the_file_has_is_refused(name, saved, tmp_path):
    header, tensors = copy.deepcopy(saved)
    REFUSED[name](header, tensors)
    with pytest.raises(BadFileError, match="cannot be loaded: its? "):
        load(tmp_path / "c", header, tensors)


def test_a_memory_format_is_given_once(saved, tmp_path, monkeypatch):
    header, tensors = copy.deepcopy(saved)
    header["channels_last"] = ["body.stem.weight"] * 1000
    calls, empty_like = [], torch.empty_like
    monkeypatch.setattr(
        torch, "empty_like", lambda *a, **k: calls.append(1) or empty_like(*a, **k)
    )
    load(tmp_path / "c", header, tensors)
    assert len(calls) < 500


@pytest.mark.parametrize("depth", [900, 100_000])
@pytest.mark.parametrize("brackets", ["[]", ['{"kind": ', "}"]])
def test_descriptions_of_any_depth(brackets, depth, saved, tmp_path):
    header, tensors = saved
    start, end = brackets
    deep = f"{start * depth}1{end * depth}"
    text = json.dumps(header).replace('"rank": 4', f'"rank": {deep}')
    (tmp_path / "c").write_bytes(dump_tensors(tensors, text))
    with pytest.raises(BadFileError, match="cannot be loaded"):
        FineTuneClassifier.load(tmp_path / "c", model=Net())


def test_changes_without_end(saved, tmp_path):
    header, tensors = copy.deepcopy(saved)
    inside = [
        {"layer": f"head{'.0' * k}", "kind": "low_rank", "rank": 4, "bias": False}
        for k in range(9000)
    ]
    same = {"layer": "stem", "kind": "resized", "inputs": 3, "outputs": 5}
    for changes in (inside, [same] * 20_000):
        header["changes"]["body"] = changes
        with pytest.raises(BadFileError, match="more than"):
            load(tmp_path / "c", header, tensors)
