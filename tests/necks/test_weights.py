"""Weights files of every kind, and what is wrong with them."""

import argparse
import pathlib
import re

import numpy as np
import pytest
import timm
import torch
import torchvision
from child import drop_privileges, in_child

from skdeepfeat._errors import WeightsNotFoundError
from skdeepfeat._fingerprint import digest_file
from skdeepfeat.necks import resolve_neck

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


@pytest.mark.parametrize(
    ("wrapping", "suffix"),
    [(wrapping, ".pth") for wrapping in WRAPPINGS]
    + [("bare", suffix) for suffix in (".pt", ".bin", ".ckpt")],
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
    with pytest.raises(ValueError, match="evil.pth holds Python objects"):
        rows_of(path, batch(1, 64))
    assert not (tmp_path / "pickle_was_run").exists()


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
    with pytest.raises(ValueError, match="must hold a state dict.*It holds list"):
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


def test_missing_files_and_suffixes(tmp_path):
    with pytest.raises(
        WeightsNotFoundError, match="'weights'.*no file '/no/where.pth'"
    ):
        resolve_neck("resnet18", weights="/no/where.pth")
    with pytest.raises(ValueError, match="'weights'.*ends in one of .safetensors"):
        resolve_neck("resnet18", weights=tmp_path / "weights.npz")
    with pytest.raises(TypeError, match="'weights' .*Got 3 instead"):
        resolve_neck("resnet18", weights=3)


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
        neck._refuse_random_head(("classifier",))
    neck = resolve_neck("vgg16", weights="IMAGENET1K_FEATURES", layer="features")
    neck._refuse_random_head(("classifier",))


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
        neck = resolve_neck("resnet18", weights=None, random_state=seed, image_size=64)
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
            resolve_neck("resnet18", weights=None, random_state=bad)
