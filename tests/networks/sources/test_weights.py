"""Weights files of every kind, and what is wrong with them."""

import argparse
import dataclasses
import os
import pathlib
import re
import traceback
import warnings
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from child import drop_privileges, in_child
from torch import nn

from skdeepfeat._utils._digests import digest_file
from skdeepfeat.exceptions import BadFileError, WeightsNotFoundError
from skdeepfeat.networks import resolve_neck
from skdeepfeat.networks.sources._match_weights import match_network
from skdeepfeat.networks.sources._weights_file import read_weights_file

CPU = torch.device("cpu")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture
def network(randomise):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return randomise(torchvision.models.shufflenet_v2_x0_5(weights=None))


def rows_of(path, pixels, model="shufflenet_v2_x0_5", layer="output"):
    neck = resolve_neck(model, weights=path, image_size=pixels.shape[1], layer=layer)
    with neck.loaded(CPU) as run:
        return run(pixels)[0]


@dataclasses.dataclass
class Settings:
    """A class that the reader of the checkpoint may not have."""

    rate: float = 0.1
    kind: type = dict


class Saved(NamedTuple):
    """Another one."""

    epoch: int
    state: dict


def of_lightning(state):
    """A Lightning checkpoint of a class-weighted loss, with all that it brings."""
    parameter = torch.nn.Parameter(torch.zeros(5))
    optimizer = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimizer.step()
    return {
        "state_dict": {
            **prefixed(state, "model."),
            "criterion.weight": torch.ones(3),
        },
        "optimizer_states": [optimizer.state_dict()],
        "hyper_parameters": argparse.Namespace(lr=np.float64(0.1), out=pathlib.Path()),
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best": np.float32(0.5)}},
        "settings": Settings(),
        "epoch": np.int64(3),
        "device": torch.device("cuda", 1),
    }


def prefixed(state, prefix):
    return {f"{prefix}{key}": value for key, value in state.items()}


def within(state, wrapper):
    """Return a state dict with names as if each layer were wrapped."""
    return {k.replace(".", f".{wrapper}.", 1): v for k, v in state.items()}


def other(state):
    """The same names with other numbers."""
    return {key: torch.full_like(value, 7) for key, value in state.items()}


def without_head(state):
    return {key: value for key, value in state.items() if not key.startswith("fc.")}


WRAPPINGS = {
    "bare": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3, "args": [1, 2.0]},
    "model": lambda state: {"model": state},
    "ema": lambda state: {"state_dict": {}, "state_dict_ema": state},
    "nested": lambda state: {"model": {"state_dict": state}},
    "timm": lambda state: {"state_dict": state, "args": argparse.Namespace(lr=1)},
    "parallel": lambda state: {f"module.{k}": v for k, v in state.items()},
    "compiled": lambda state: {f"module._orig_mod.{k}": v for k, v in state.items()},
    "lightning": lambda state: {
        "state_dict": {f"model.{k}": v for k, v in state.items()}
    },
    "plain dict": lambda state: {
        k: v for k, v in state.items() if "num_batches" not in k
    },
}


# What else is found by the names of the network that lie under some prefix.
PREFIXES = {
    "lightning with more": of_lightning,
    "backbone": lambda state: prefixed(state, "backbone."),
    "net": lambda state: prefixed(state, "net."),
    "deep": lambda state: {"a": {"b": [1, {"c": prefixed(state, "module.backbone.")}]}},
    "under net": lambda state: {"net": state, "acc": 90.1, "epoch": 3},
    "params": lambda state: {"params": prefixed(state, "network.")},
    "averaged": lambda state: {
        **prefixed(state, "module."),
        "n_averaged": torch.ones(1),
    },
    "moco": lambda state: {
        "state_dict": {
            **prefixed(other(state), "module.encoder_k."),
            **prefixed(state, "module.encoder_q."),
            "module.queue": torch.zeros(9, 4),
        }
    },
    "dino": lambda state: {
        "student": prefixed(other(state), "module.backbone."),
        "teacher": {**prefixed(state, "backbone."), "head.mlp.0.weight": torch.ones(2)},
    },
    "ema last": lambda state: {"params": other(state), "params_ema": state},
    "a tuple": lambda state: (3, state),
    "parameters": lambda state: {
        k: torch.nn.Parameter(v) if v.is_floating_point() else v
        for k, v in state.items()
    },
    "one more": lambda state: {**state, "loss.weight": torch.ones(4)},
    "a named tuple": lambda state: Saved(3, state),
    "compiled blocks": lambda state: within(state, "_orig_mod"),
    "checkpointed": lambda state: prefixed(
        within(state, "_checkpoint_wrapped_module"), "module."
    ),
    "sharded": lambda state: {
        "model": prefixed(
            within(state, "_fsdp_wrapped_module"), "_fsdp_wrapped_module."
        )
    },
    "compiled module": lambda state: {"_orig_mod": state},
}


@pytest.mark.parametrize("wrapping", PREFIXES)
def test_prefixes(wrapping, tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        small = nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), fc=nn.Linear(4, 2)
            )
        )
    path = tmp_path / "weights"
    torch.save(PREFIXES[wrapping](small.state_dict()), path)
    file = read_weights_file(os.fspath(path))
    found = file.take(match_network(file, small.state_dict(), ("fc",)).names)
    small.load_state_dict(found)  # all of them, and no others
    wanted = small.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in found.items())
    assert not any((value == 7).all() for value in found.values())


@pytest.mark.parametrize(
    ("wrapping", "suffix"),
    [(wrapping, ".pth") for wrapping in WRAPPINGS]
    + [("bare", suffix) for suffix in (".PTH", ".pth.tar", "")],
)
def test_wrappings(
    wrapping, suffix, network, tmp_path, batch, normalised, assert_close
):
    path = tmp_path / f"weights{suffix}"
    torch.save(WRAPPINGS[wrapping](network.state_dict()), path)
    pixels = batch(2, 64)
    with torch.no_grad():
        assert_close(rows_of(path, pixels), network(normalised(pixels, MEAN, STD)))


def test_str_and_path_and_safetensors_are_one(network, saved, batch):
    pixels = batch(2, 64)
    path = saved(network)
    one = rows_of(str(path), pixels)
    assert np.array_equal(one, rows_of(path, pixels))
    assert np.array_equal(one, rows_of(saved(network, "w.pth"), pixels))


def test_a_relative_path_means_the_same_after_chdir(network, saved, batch, monkeypatch):
    path = saved(network)
    monkeypatch.chdir(path.parent)
    neck = resolve_neck("shufflenet_v2_x0_5", weights=f"./{path.name}", image_size=64)
    monkeypatch.chdir(pathlib.Path("/"))
    with neck.loaded(CPU) as run:
        assert run(batch(1, 64))[0].shape == (1, 1024)


def test_a_changed_file_is_read_again(network, randomise, saved, batch):
    pixels = batch(2, 64)
    path = saved(network)
    neck = resolve_neck("shufflenet_v2_x0_5", weights=path, image_size=64)
    before = rows_of(path, pixels)
    described = neck.descriptions("float32", digest_file)
    saved(randomise(network, seed=5))
    assert not np.allclose(before, rows_of(path, pixels))
    assert neck.descriptions("float32", digest_file) != described


class Payload:
    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path("pickle_was_run"),)


def test_pickled_code_is_refused(network, tmp_path, monkeypatch, batch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pth"
    torch.save({"state_dict": network.state_dict(), "hook": Payload()}, path)
    with pytest.raises(ValueError, match="evil.pth has Python objects"):
        rows_of(path, batch(1, 64))
    assert not (tmp_path / "pickle_was_run").exists()


@pytest.mark.slow
def test_files_of_other_kinds_of_torch(
    network, tmp_path, batch, normalised, assert_close
):
    pixels, path = batch(2, 64), tmp_path / "weights"
    with torch.no_grad():
        wanted = network(normalised(pixels, MEAN, STD))
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=False)
    assert_close(rows_of(path, pixels), wanted)
    torch.save(network, path)  # a whole module
    assert_close(rows_of(path, pixels), wanted)
    torch.save({"model": network}, path, _use_new_zipfile_serialization=False)
    assert_close(rows_of(path, pixels), wanted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated
        torch.jit.trace(network, torch.zeros(1, 3, 64, 64)).save(path)
    assert_close(rows_of(path, pixels), wanted)
    torch.save(network.to(memory_format=torch.channels_last).state_dict(), path)
    assert_close(rows_of(path, pixels), wanted)
    torch.save({k: v.double() for k, v in network.state_dict().items()}, path)
    assert_close(rows_of(path, pixels), wanted)


def test_the_content_of_a_safetensors_file_decides(network, saved, batch):
    pixels = batch(2, 64)
    path = saved(network)
    one = rows_of(path, pixels)
    renamed = path.rename(path.with_name("weights.pth"))
    assert np.array_equal(one, rows_of(renamed, pixels))
    prefixes = prefixed(network.state_dict(), "model.backbone.")
    safetensors.torch.save_file({**prefixes, "x": torch.ones(1)}, renamed)
    assert np.array_equal(one, rows_of(renamed, pixels))


def test_a_file_in_this_folder_needs_no_ending(network, saved, batch, monkeypatch):
    path = saved(network, "mine")
    monkeypatch.chdir(path.parent)
    assert np.array_equal(rows_of("mine", batch(2, 64)), rows_of(path, batch(2, 64)))


def test_what_is_ignored_is_in_the_log(network, tmp_path, batch, caplog):
    path = tmp_path / "w"
    torch.save(of_lightning(network.state_dict()), path)
    with caplog.at_level("INFO", "skdeepfeat"):
        rows_of(path, batch(1, 64))
    assert "tensors of" in caplog.text and "criterion" in caplog.text


@pytest.mark.parametrize(
    "keys", [("best", "last"), ("state_dict", "best_state_dict"), ("init", "final")]
)
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_copies_that_nothing_tells_apart_are_refused(keys, ending, tmp_path):
    own = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3), fc=nn.Linear(4, 2)))
    state, path = own.state_dict(), os.fspath(tmp_path / f"w{ending}")

    def match(**copies):
        if ending == ".pth":
            torch.save(copies, path)
        else:
            flat = {f"{k}.{n}": v for k, one in copies.items() for n, v in one.items()}
            safetensors.torch.save_file(flat, path)
        file = read_weights_file(path)
        return file.take(match_network(file, state, ("fc",)).names)

    first, second = keys
    with pytest.raises(ValueError, match="times, with different values") as error:
        match(**{first: state, second: other(state)})
    assert repr(f"{first}.") in str(error.value)
    same = {name: tensor.clone() for name, tensor in state.items()}
    assert torch.equal(
        match(**{first: state, second: same})["conv.bias"], state["conv.bias"]
    )
    # These are no networks.
    for name in ("grads", "optimizer"):
        found = match(**{name: other(state), "the_weights": state})
        assert torch.equal(found["conv.bias"], state["conv.bias"])


HOSTILE = "x\x1b[31m\nError: \x07"


def test_names_in_a_file_reach_no_terminal(network, tmp_path, batch, caplog):
    path = tmp_path / f"{HOSTILE}.pth"
    own = network.state_dict()
    half = {f"{HOSTILE}.{k}": v for k, v in list(own.items())[::2]}
    cases = [
        {**own, HOSTILE: torch.ones(1)},
        {**own, f"fc.{HOSTILE}": torch.ones(1)},
        {**{f"{HOSTILE}.{k}": v for k, v in own.items()}, **own},
        {**own, f"conv5.{HOSTILE}": torch.ones(1)},
        {HOSTILE: torch.ones(1)},
        half,
        {HOSTILE: 3},
        {k: v.int() for k, v in own.items()},
    ]
    for content in cases:
        torch.save(content, path)
        with caplog.at_level("INFO", "skdeepfeat"):
            try:
                rows_of(path, batch(1, 64))
                text = ""
            except ValueError as error:
                text = "".join(traceback.format_exception(error))
        text += "\n".join(record.getMessage() for record in caplog.records)
        assert "\x1b" not in text and "\nError: " not in text
        assert len(text) < 8000
    path.write_bytes(b"PK\3\4")
    with pytest.raises(BadFileError) as error:
        rows_of(path, batch(1, 64))
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize("model", ["shufflenet_v2_x0_5", "timm/test_efficientnet"])
def test_the_nearest_is_named(model, randomise, tmp_path, batch):
    name = model.rpartition("/")[2]
    own = (
        timm.create_model(name) if "/" in model else torchvision.models.get_model(name)
    )
    state = own.state_dict()
    first, second = sorted(k for k in state if k.endswith("weight"))[:2]
    path = tmp_path / "w.pth"
    broken = {k: v for k, v in state.items() if k != first}
    broken[second] = torch.zeros(1, 2)
    torch.save({"state_dict": prefixed(broken, "net.enc.")}, path)
    with pytest.raises(ValueError, match="do not belong to this network") as error:
        rows_of(path, batch(1, 64), model)
    text = str(error.value)
    assert "'state_dict.net.enc.'" in text and len(text) < 2500
    assert re.search(r"\d+ of \d+ names match", text)
    assert f"'{first}' is missing" in text
    assert f"'{second}' has shape (1, 2) there" in text


def test_weights_of_a_deeper_network_are_refused(tmp_path, batch):
    # All names and shapes of a ResNet-18 are in a ResNet-34.
    path = tmp_path / "w.pth"
    torch.save(torchvision.models.resnet34().state_dict(), path)
    with pytest.raises(ValueError, match="do not belong .*Unexpected key"):
        rows_of(path, batch(1, 64), "resnet18")


def test_whole_numbers_are_not_taken_for_weights(network, tmp_path, batch):
    path = tmp_path / "w.pth"
    torch.save({k: v.to(torch.int8) for k, v in network.state_dict().items()}, path)
    with pytest.raises(ValueError, match="torch.int8"):
        rows_of(path, batch(1, 64))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_damaged_files(damage, suffix, network, saved, batch):
    path = saved(network, f"bad{suffix}")
    content = path.read_bytes()
    bad = {"truncated": content[:-500], "empty": b"", "text": b"<html>404</html>"}
    path.write_bytes(bad[damage])
    with pytest.raises(ValueError, match=rf"bad{suffix} is damaged.*Delete it"):
        rows_of(path, batch(1, 64))


def test_what_is_no_state_dict(tmp_path, batch):
    path = tmp_path / "list.pth"
    torch.save([torch.zeros(3)], path)
    with pytest.raises(ValueError, match="must hold a state dict.*It holds a list"):
        rows_of(path, batch(1, 64))
    torch.save({"weights": {"a": 1}}, path)
    with pytest.raises(ValueError, match=r"It holds a dict with \['weights'\]"):
        rows_of(path, batch(1, 64))


def test_weights_of_another_network(network, saved, batch):
    path = saved(network)
    with pytest.raises(ValueError) as error:
        rows_of(path, batch(1, 64), model="resnet18")
    text = str(error.value)
    assert "do not belong to this network (ResNet)" in text
    assert "Missing key" in text and "Unexpected key" in text
    assert len(text) < 1500
    wider = torchvision.models.shufflenet_v2_x1_0(weights=None)
    with pytest.raises(ValueError, match="size mismatch for stage2"):
        rows_of(saved(wider), batch(1, 64))


def test_a_missing_file_in_a_deleted_folder(tmp_path):
    def resolve():
        folder = tmp_path / "gone"
        folder.mkdir()
        os.chdir(folder)
        folder.rmdir()
        with pytest.raises(WeightsNotFoundError, match="no file 'a.pth' .*working dir"):
            resolve_neck("resnet18", weights="a.pth")

    in_child(resolve)


def test_missing_files_and_suffixes(tmp_path):
    with pytest.raises(
        WeightsNotFoundError, match="'weights'.*no file '/no/where.pth'"
    ):
        resolve_neck("resnet18", weights="/no/where.pth")
    with pytest.raises(WeightsNotFoundError, match="'weights'.*no file.*weights'"):
        resolve_neck("resnet18", weights=tmp_path / "weights")
    with pytest.raises(TypeError, match="'weights' .*Got 3 instead"):
        resolve_neck("resnet18", weights=3)
    with pytest.raises(WeightsNotFoundError, match="no file 'https://") as caught:
        resolve_neck("resnet18", weights="https://me:hunter2@host/a.pth?token=hunter2")
    assert "hunter2" not in str(caught.value)


@pytest.mark.slow
def test_unreadable_file(network, saved, batch):
    path = saved(network)
    neck = resolve_neck("shufflenet_v2_x0_5", weights=path, image_size=64)
    path.chmod(0)

    def load():
        drop_privileges()
        with pytest.raises(WeightsNotFoundError, match=f"{path} cannot be read"):
            with neck.loaded(CPU):
                pass

    in_child(load)


@pytest.mark.parametrize("model", ["shufflenet_v2_x0_5", "timm/test_efficientnet"])
@pytest.mark.parametrize("head", ["other size", "none"])
def test_a_head_of_another_size_is_fine(
    model, head, randomise, saved, batch, normalised, assert_close
):
    name = model.rpartition("/")[2]
    if model.startswith("timm/"):
        own = timm.create_model(name, num_classes=7)
        preset = own.pretrained_cfg["mean"], own.pretrained_cfg["std"]
        prefix = "classifier."
    else:
        own = torchvision.models.get_model(name, weights=None, num_classes=7)
        preset, prefix = (MEAN, STD), "fc."
    randomise(own)
    path = saved(own, "head.pth")
    if head == "none":
        state = {k: v for k, v in own.state_dict().items() if not k.startswith(prefix)}
        torch.save(state, path)
    pixels = batch(2, 64)
    images = normalised(pixels, *preset)
    setattr(own, prefix[:-1], torch.nn.Identity())
    with torch.no_grad():
        assert_close(rows_of(path, pixels, model, None), own(images))
    for layer in ("output", prefix[:-1], ["neck", "output"]):
        with pytest.raises(ValueError, match="no head that fits.*would be random"):
            rows_of(path, pixels, model, layer)


def test_vgg_features_alone():
    neck = resolve_neck("vgg16", weights="IMAGENET1K_FEATURES")
    with pytest.raises(ValueError, match="layer 'neck' would be random"):
        neck._check_head(("classifier",))
    neck = resolve_neck("vgg16", weights="IMAGENET1K_FEATURES", layer="features")
    neck._check_head(("classifier",))


def test_old_names_of_densenets_modules(
    randomise, tmp_path, batch, normalised, assert_close
):
    network = randomise(torchvision.models.densenet121(weights=None))
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", key): value
        for key, value in network.state_dict().items()
        if "num_batches_tracked" not in key
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    path = tmp_path / "densenet.pth"
    torch.save(old, path)
    pixels = batch(2, 64)
    images = normalised(pixels, MEAN, STD)
    with torch.no_grad():
        assert_close(rows_of(path, pixels, "densenet121"), network(images))


def test_formats_versions_are_kept(tmp_path, batch):
    # MNASNet rebuilds its stem when the file's format is the first one.
    network = torchvision.models.mnasnet0_5(weights=None)
    state = network.state_dict()
    state._metadata[""]["version"] = 1
    path = tmp_path / "mnasnet.pth"
    torch.save(state, path)
    with (
        pytest.warns(UserWarning, match="previous version"),
        pytest.raises(ValueError, match="size mismatch for layers.0"),
    ):
        rows_of(path, batch(1, 64), "mnasnet0_5")


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v2"])
def test_real_files(name, shared_data, batch, normalised, assert_close):
    path = shared_data / "weights" / f"{name}.pth"
    network = torchvision.models.get_model(name, weights=None)
    network.load_state_dict(torch.load(path, weights_only=True))
    pixels = batch(2, 96)
    with torch.no_grad():
        wanted = network.eval()(normalised(pixels, MEAN, STD))
    assert_close(rows_of(path, pixels, name), wanted)


def test_random_weights_follow_random_state(batch):
    pixels = batch(2, 64)

    def rows(seed):
        neck = resolve_neck(
            "resnet18", weights="random", random_state=seed, image_size=64
        )
        with neck.loaded(CPU) as run:
            return neck.descriptions("float32", digest_file), run(pixels)[0]

    before = torch.get_rng_state()
    described, one = rows(0)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(99)
    again, same = rows(np.int64(0))
    other_described, other = rows(1)
    assert described == again and np.array_equal(one, same)
    assert described != other_described and not np.allclose(one, other)
    for bad in (None, "0", True, np.random.RandomState(0)):
        with pytest.raises(TypeError, match="'random_state' .* must be an int"):
            resolve_neck("resnet18", weights="random", random_state=bad)


def test_random_weights_are_of_the_libraries_that_are_imported(monkeypatch):
    weights = resolve_neck("resnet18", weights="random", random_state=0).spec.weights
    before = weights.identity(digest_file)
    assert weights.identity(digest_file) == before
    monkeypatch.setattr(torchvision, "__version__", "0.1.0+cpu")
    assert weights.identity(digest_file) == {**before, "torchvision": "0.1.0+cpu"}
    version = f"{before['torchvision'].partition('+')[0]}+cu1"  # not in all metadata
    monkeypatch.setattr(torchvision, "__version__", version)
    assert weights.identity(digest_file) == before
