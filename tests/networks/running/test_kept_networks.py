"""Compiled networks on disk: found again by another process, or not used at all."""

import os
import pathlib

import numpy as np
import pytest
import torch
from networks import NormNet

from skdeepfeat.cache import FeatureCache
from skdeepfeat.networks import resolve_neck
from skdeepfeat.networks.running import (
    _compiled_networks,
    _kept_networks,
    _loaded_networks,
    _openvino_runtime,
)

CPU = torch.device("cpu")
SMALL = {"weights": "random", "image_size": 32}


@pytest.fixture
def files(tmp_path):
    (tmp_path / "cache").mkdir()
    return FeatureCache(tmp_path / "cache").open().converted


@pytest.fixture
def calls(monkeypatch):
    """Note what is compiled and what is restored, with nothing in memory."""
    noted = []

    def note(name):
        original = getattr(_openvino_runtime, name)

        def call(*args):
            noted.append(name.removesuffix("_network"))
            return original(*args)

        monkeypatch.setattr(_openvino_runtime, name, call)

    note("compile_network")
    note("restore_network")
    yield noted
    _compiled_networks._compiled.clear()


def rows_of(neck, pixels, files, precision="float32"):
    """Return rows as a new process computes them."""
    _compiled_networks._compiled.clear()
    _loaded_networks._entries.clear()
    with neck.loaded(CPU, precision, "openvino", files=files) as run:
        return run(pixels)


def key_of(runtime, neck, precision="float32"):
    form = _compiled_networks.CompiledForm(runtime, neck, CPU, precision)
    return _kept_networks.key_of_network(form)


def paths_of(files):
    return list(pathlib.Path(files.folder).iterdir())


def test_another_process_neither_compiles_nor_loads_weights(batch, files, calls):
    neck = resolve_neck("resnet18", layer=["layer1", None], **SMALL)
    pixels = batch(3, 32)
    first = rows_of(neck, pixels, files)
    second = rows_of(resolve_neck("resnet18", layer=["layer1", None], **SMALL), pixels,
                     files)  # fmt: skip
    assert calls == ["compile", "restore"]
    assert not _loaded_networks._entries
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.slow
def test_in_bfloat16_it_is_another_file(batch, files, calls):
    if not _openvino_runtime.computes_bfloat16():
        pytest.skip("this processor does not compute in bfloat16")
    neck, pixels = resolve_neck("resnet18", **SMALL), batch(2, 32)
    exact = rows_of(neck, pixels, files)[0]
    rough = [rows_of(neck, pixels, files, "bfloat16")[0] for _ in range(2)]
    assert calls == ["compile", "compile", "restore"]
    np.testing.assert_array_equal(*rough)
    assert not np.array_equal(rough[0], exact)


@pytest.mark.slow
@pytest.mark.parametrize("place", [0.0, 0.5])
def test_a_damaged_file_is_never_loaded_but_replaced(batch, files, calls, place):
    neck, pixels = resolve_neck("test_vit", **SMALL), batch(2, 32)
    [wanted] = rows_of(neck, pixels, files)
    [path] = paths_of(files)
    whole = bytearray(path.read_bytes())
    whole[int(place * (len(whole) - 1))] ^= 64
    path.write_bytes(whole)
    np.testing.assert_array_equal(rows_of(neck, pixels, files)[0], wanted)
    np.testing.assert_array_equal(rows_of(neck, pixels, files)[0], wanted)
    assert calls == ["compile", "compile", "restore"]


def test_a_foreign_file_is_never_loaded(batch, files, calls, tmp_path, monkeypatch):
    """A whole cache of somebody else, with a valid file of the same network."""
    neck, pixels = resolve_neck("test_vit", **SMALL), batch(2, 32)
    rows_of(neck, pixels, files)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "me"))
    rows_of(neck, pixels, files)
    assert calls == ["compile", "compile"]
    rows_of(neck, pixels, files)
    assert calls == ["compile", "compile", "restore"]


def test_a_file_that_computes_something_else_is_replaced(batch, files, calls):
    necks = [resolve_neck("test_vit", random_state=seed, **SMALL) for seed in (0, 1)]
    keys = [key_of("openvino", one) for one in necks]
    pixels = batch(2, 32)
    wanted, other = [rows_of(neck, pixels, files)[0] for neck in necks]
    data, others = files.read(keys[0]), files.read(keys[1])
    # Torch's row of the one, and the network of the other.
    head = int.from_bytes(data[:8], "little") + 8 + 4 * wanted.shape[1]
    files.write(keys[0], data[:head] + others[head:])
    np.testing.assert_array_equal(rows_of(necks[0], pixels, files)[0], wanted)
    files.write(keys[0], b"of an older format")
    np.testing.assert_array_equal(rows_of(necks[0], pixels, files)[0], wanted)
    assert calls == ["compile", "compile", "restore", "compile", "compile"]


def test_own_networks_are_told_apart_by_what_they_compute(batch, files, calls):
    class Changed(NormNet):
        def forward(self, images):
            return super().forward(images) * 2

    class Net(NormNet):
        pass

    Changed.__name__ = "Net"
    pixels = batch(2, 32)

    def rows(kind):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            neck = resolve_neck(kind(), image_size=32, layer="output")
        return rows_of(neck, pixels, files)[0]

    one, again, other = rows(Net), rows(Net), rows(Changed)
    assert calls == ["compile", "restore", "compile"]
    np.testing.assert_array_equal(one, again)
    np.testing.assert_allclose(other, 2 * one, rtol=1e-4)


def test_everything_that_it_depends_on_belongs_to_the_key(monkeypatch):
    def key(model="resnet18", precision="float32", **parameters):
        neck = resolve_neck(model, **{**SMALL, **parameters})
        return key_of("openvino", neck, precision)

    keys = [
        key(),
        key("resnet34"),
        key(random_state=1),
        key(image_size=48),
        key(layer="layer1"),
        key(layer=["layer1", None]),
        key(pooling="max"),
        key(precision="bfloat16"),
    ]
    for name, other in [
        ("installed_code", {"torch": "another"}),
        ("_describe_processor", {"flags": "fpu"}),
    ]:
        with monkeypatch.context() as patched:
            patched.setattr(_kept_networks, name, lambda other=other: other)
            keys.append(key())
    with monkeypatch.context() as patched:
        patched.setattr(
            _openvino_runtime, "installed_code", lambda: ["2030.1", "files"]
        )
        keys.append(key())
    assert len(set(keys)) == len(keys)
    assert key() == keys[0]
    monkeypatch.setattr(_kept_networks, "installed_code", lambda: None)
    assert key() is None
    neck = resolve_neck(NormNet(), image_size=32)
    assert key_of("compile", neck.identified(CPU)) is None


def test_where_nothing_can_be_kept_it_compiles(batch, files, calls):
    os.chmod(pathlib.Path(files.folder).parent, 0o777)  # others may write
    neck = resolve_neck("test_vit", **SMALL)
    for _ in range(2):
        rows_of(neck, batch(2, 32), files)
    assert calls == ["compile", "compile"]
    assert not pathlib.Path(files.folder).exists()
