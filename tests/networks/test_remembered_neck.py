"""Notes about named networks: what is recalled is what would be found out, or nothing.

That a new process imports no library then is tested in tests/test_import.py.
"""

import json

import numpy as np
import pytest
import timm
import torch
from torch import nn

from skdeepfeat._utils._digests import digest_file
from skdeepfeat.networks import _installed_code, _remembered_neck, resolve_neck
from skdeepfeat.networks._remembered_neck import (
    key_of_neck,
    may_be_noted,
    note_of_neck,
    recall_neck,
)
from skdeepfeat.networks.sources import _embedded

DEFAULTS = {
    "layer": None,
    "pooling": "auto",
    "weights": "random",
    "image_size": None,
    "preprocessing": None,
    "random_state": 0,
}
NAMED = [
    ("efficientnet_lite0", {"weights": "default", "image_size": 64}),
    ("efficientnet_lite0", {"layer": [-1, "neck"], "image_size": (64, 96)}),
    ("resnet18", {"layer": "layer2", "pooling": "gem", "random_state": 3}),
    ("squeezenet1_1", {"weights": "default"}),
    ("test_vit", {"layer": ["blocks.0", "output"], "pooling": "mean"}),
    ("timm/resnet18.a1_in1k", {"layer": np.int64(-2)}),
]


def noted(model, **changes):
    parameters = {**DEFAULTS, **changes}
    key = key_of_neck(model, **parameters)
    neck = resolve_neck(model, **parameters)
    return parameters, key, neck, note_of_neck(neck, key)


@pytest.mark.parametrize("model, changes", NAMED)
def test_recalled_neck_describes_itself_as_the_resolved_one(model, changes):
    parameters, key, neck, note = noted(model, **changes)
    found = recall_neck(note, key, model, **parameters)
    for precision in ("float32", "bfloat16"):
        assert found.descriptions(precision, digest_file) == (
            neck.descriptions(precision, digest_file)
        )
    assert found.outputs == neck.outputs
    assert found.preprocessing == neck.preprocessing
    assert found.feature_name_prefixes() == neck.feature_name_prefixes()
    assert found.spec.model_name == neck.spec.model_name
    assert found.resolved.outputs == neck.outputs


def test_every_setting_and_every_version_is_in_the_key(monkeypatch, tmp_path):
    (tmp_path / "a.pth").write_bytes(b"")
    keys = [key_of_neck("resnet18", **DEFAULTS), key_of_neck("resnet34", **DEFAULTS)]
    for change in (
        {"layer": -1}, {"layer": "layer1"}, {"layer": ["layer1"]}, {"pooling": "max"},
        {"weights": "default"}, {"weights": "IMAGENET1K_V1"}, {"random_state": 1},
        {"weights": tmp_path / "a.pth"}, {"image_size": 64}, {"image_size": (64, 32)},
        {"cache_layers": "stages"}, {"cache_layers": ["layer1"]},
    ):  # fmt: skip
        keys.append(key_of_neck("resnet18", **{**DEFAULTS, **change}))
    code = _installed_code.installed_code()
    for name, other in [
        ("timm", ["99.0", code["timm"][1]]), ("timm", [code["timm"][0], "changed"]),
        ("torchvision", ["99.0", code["torchvision"][1]]), ("torch", "99.0"),
        ("skdeepfeat", "changed"),
    ]:  # fmt: skip
        changed = {**code, name: other}
        monkeypatch.setattr(
            _remembered_neck, "installed_code", lambda changed=changed: changed
        )
        keys.append(key_of_neck("resnet18", **DEFAULTS))
    texts = {json.dumps(key) for key in keys}
    assert len(texts) == len(keys)
    assert "null" not in texts


def test_note_of_another_key_is_not_recalled():
    parameters, key, _, note = noted("resnet18")
    for change in ({"code": {}}, {"image_size": [64, 64]}, {"model": "resnet34"}):
        assert recall_neck(note, {**key, **change}, "resnet18", **parameters) is None


def test_nothing_is_noted_about_modules_hubs_and_bad_values():
    assert key_of_neck(nn.Identity(), **DEFAULTS) is None
    assert key_of_neck("hf-hub:owner/name", **DEFAULTS) is None
    transform = timm.data.create_transform(64)
    for change in (
        {"layer": 1.5}, {"layer": True}, {"image_size": -1}, {"preprocessing": {}},
        {"preprocessing": transform}, {"weights": "no/such/file.pth"},
    ):  # fmt: skip
        assert key_of_neck("resnet18", **{**DEFAULTS, **change}) is None


def test_networks_that_a_user_has_registered_are_not_noted(monkeypatch):
    neck = resolve_neck("test_vit", weights="random")
    monkeypatch.setattr(_remembered_neck, "is_as_imported", lambda package: True)
    assert may_be_noted(neck, were_imported=True)
    monkeypatch.setattr(timm.models, "model_entrypoint", lambda name: noted)
    assert not may_be_noted(neck, were_imported=True)


def test_code_that_changed_after_its_import_is_not_noted(monkeypatch):
    neck = resolve_neck("test_vit", weights="random")
    changed = {"timm": False, "torchvision": True}
    monkeypatch.setattr(_remembered_neck, "is_as_imported", changed.get)
    assert not may_be_noted(neck, were_imported=True)
    assert may_be_noted(neck, were_imported=False)
    own = _installed_code._OWN_CODE
    monkeypatch.setattr(_installed_code, "_OWN_CODE", "of the version before")
    _installed_code.installed_code.cache_clear()
    assert key_of_neck("test_vit", **DEFAULTS) is None
    monkeypatch.setattr(_installed_code, "_OWN_CODE", own)
    _installed_code.installed_code.cache_clear()
    assert may_be_noted(neck, were_imported=False)
    monkeypatch.setattr(_installed_code, "digest_code", lambda package: "changed")
    assert not may_be_noted(neck, were_imported=False)


def test_weights_file_is_identified_anew(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(resolve_neck("resnet18", weights="random").spec.build(), path)
    parameters, key, _, note = noted("resnet18", weights=path)
    found = recall_neck(note, key, "resnet18", **parameters)
    before = found.descriptions("float32", digest_file)
    path.write_bytes(path.read_bytes() + b"\0")
    assert found.descriptions("float32", digest_file) != before


def test_address_of_a_stranger_is_not_asked(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(_embedded, "_locate", lambda name: None)
    parameters, key, _, note = noted("resnet18", weights="default")
    for weights in (
        {"url": {"url": "http://127.0.0.1:9/a.pth", "label": "", "sha256_in_name": 0}},
        {"url": {"url": "http://127.0.0.1:9/a.pth", "label": "",
                 "sha256_in_name": True}},
        {"hub": {"repo": "nobody/nothing", "file_name": None, "label": "default"}},
        {"hub": {"repo": "../..", "file_name": None, "label": "default"}},
        {"file": {"path": "/etc/passwd"}}, {"embedded": "efficientnet_lite1"},
        {"embedded": "resnet18"},
    ):  # fmt: skip
        changed = json.loads(note)
        changed["neck"]["weights"] = weights
        changed = json.dumps(changed).encode()
        assert recall_neck(changed, key, "resnet18", **parameters) is None


ODD = [None, True, -1, 1.5, 10**30, 10**400, "", "x", [], [1], {}, {"a": 1}, [[]]]


def places(value, path=()):
    """Yield the path of every value in a JSON document."""
    yield path
    inside = value.items() if isinstance(value, dict) else ()
    inside = enumerate(value) if isinstance(value, list) else inside
    for name, one in inside:
        yield from places(one, (*path, name))


def replaced(document, path, value):
    if not path:
        return value
    copied = dict(document) if isinstance(document, dict) else list(document)
    copied[path[0]] = replaced(document[path[0]], path[1:], value)
    return copied


def test_whatever_a_stranger_wrote_is_refused_or_of_the_right_types():
    parameters, key, neck, note = noted("resnet18", layer="layer1")
    document = json.loads(note)
    for path in places(document):
        for odd in ODD:
            changed = replaced(document, path, odd)
            data = json.dumps(changed).encode()
            found = recall_neck(data, key, "resnet18", **parameters)
            if found is None or changed == document:
                continue
            assert path[0] == "neck"
            json.dumps(found.descriptions("float32", digest_file))
            assert all(type(n) is int for n in found.n_features())
            assert 0 <= sum(found.n_features()) <= 2**20
            assert found.feature_name_prefixes()
    for data in (b"", b"{", b"\xff", b"[" * 10**5, b'{"key": ' * 10**5, b"null", b"1"):
        assert recall_neck(data, key, "resnet18", **parameters) is None
