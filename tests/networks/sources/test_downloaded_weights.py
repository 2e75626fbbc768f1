"""Fetching weights for real from a server on this machine, and failing to."""

import dataclasses
import functools
import hashlib
import http.server
import io
import json
import logging
import os
import socket
import threading

import huggingface_hub.constants
import pytest
import timm
import torch
import torchvision

from skdeepfeat._utils._digests import digest_file
from skdeepfeat.exceptions import WeightsNotFoundError
from skdeepfeat.networks import list_layers, list_models, resolve_neck
from skdeepfeat.networks.sources._downloaded_weights import UrlWeights

CPU = torch.device("cpu")
NAME = "squeezenet1_1"


@pytest.fixture(autouse=True)
def hub_folder(tmp_path, monkeypatch):
    """Keep torch.hub's files in a folder of the test's."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "torch" / "hub" / "checkpoints"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        self.server.requests.append(self.path)


@pytest.fixture
def server(tmp_path):
    """Serve a folder on 127.0.0.1; `requests` lists what was asked for."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.requests = []
        running.folder = folder
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def network(randomise):
    """A small network that torchvision also has weights for."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return randomise(torchvision.models.squeezenet1_1(weights=None))


@pytest.fixture
def content(network):
    """Its weights file."""
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    return buffer.getvalue()


def neck_from(url, **parameters):
    neck = resolve_neck(NAME, image_size=64, **parameters)
    weights = UrlWeights(url, "IMAGENET1K_V1", sha256_in_name=True)
    return dataclasses.replace(
        neck, spec=dataclasses.replace(neck.spec, weights=weights)
    )


def url_of(server, name):
    return f"http://127.0.0.1:{server.server_address[1]}/{name}"


def named(content, sha256=None):
    digest = sha256 or hashlib.sha256(content).hexdigest()
    return f"squeezenet1_1-{digest[:8]}.pth"


def test_weights_are_fetched_once(
    server, network, content, hub_folder, batch, normalised, assert_close, caplog
):
    name = named(content)
    (server.folder / name).write_bytes(content)
    neck = neck_from(url_of(server, name))
    assert server.requests == []
    identity = neck.descriptions("float32", digest_file)[0]["weights"]
    assert identity == {"url_file": name}
    assert server.requests == []
    pixels = batch(2, 64)
    with caplog.at_level(logging.INFO, "skdeepfeat"), neck.loaded(CPU) as run:
        (rows,) = run(pixels)
    images = normalised(pixels, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.no_grad():
        assert_close(rows, network.features(images).mean((2, 3)))
    assert "downloading" in caplog.text
    with neck.loaded(CPU), neck.loaded(CPU):
        pass
    assert server.requests == [f"/{name}"]
    assert os.listdir(hub_folder) == [name]


def load(neck):
    with neck.loaded(CPU):
        raise AssertionError("weights were loaded")


def check_message(error, url, hub_folder):
    text = str(error.value)
    assert url in text
    assert str(hub_folder) in text
    assert "model='efficientnet_lite0'" in text
    assert "weights='random'" in text
    assert not hub_folder.exists() or not os.listdir(hub_folder)


def test_hash_mismatch(server, content, hub_folder):
    name = named(content, "0123456789abcdef")
    (server.folder / name).write_bytes(content)
    url = url_of(server, name)
    with pytest.raises(WeightsNotFoundError, match="invalid hash") as error:
        load(neck_from(url))
    check_message(error, url, hub_folder)


def test_not_on_the_server(server, content, hub_folder):
    url = url_of(server, named(content))
    with pytest.raises(WeightsNotFoundError, match="answered 404") as error:
        load(neck_from(url))
    check_message(error, url, hub_folder)


def test_connection_refused(content, hub_folder):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    url = f"http://127.0.0.1:{port}/{named(content)}"
    with pytest.raises(WeightsNotFoundError, match="refused") as error:
        load(neck_from(url))
    check_message(error, url, hub_folder)


def test_offline_hint_names_files_that_are_here(hub_folder):
    hub_folder.mkdir(parents=True)
    url = torchvision.models.ResNet18_Weights.DEFAULT.url
    (hub_folder / os.path.basename(url)).write_bytes(b"")
    neck = neck_from("http://127.0.0.1:9/x-01234567.pth")
    with pytest.raises(WeightsNotFoundError, match="model='resnet18', weights='IMAGE"):
        load(neck)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_damaged_local_file(damage, content, hub_folder):
    name = named(content)
    hub_folder.mkdir(parents=True)
    bad = {
        "truncated": content[: len(content) // 2],
        "flipped": content[:9000] + bytes([content[9000] ^ 1]) + content[9001:],
        "empty": b"",
    }[damage]
    (hub_folder / name).write_bytes(bad)
    with pytest.raises(ValueError, match=f"(?s){name}.*damaged.*Delete it"):
        load(neck_from(f"http://127.0.0.1:9/{name}"))


def test_offline_the_hub_is_asked_for_one_file(tmp_path, monkeypatch):
    # With a connection that is down, its client tries for 20 seconds for each file.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    download, asked = huggingface_hub.hf_hub_download, []

    def noting(repo, name, **options):
        asked.append(name)
        return download(repo, name, **options)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", noting)
    with pytest.raises(WeightsNotFoundError):
        load(resolve_neck("test_vit"))
    assert asked == ["model.safetensors"]


def test_timm_offline(tmp_path, monkeypatch):
    cache = tmp_path / "hf"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    neck = resolve_neck("test_vit")
    for act in (lambda: load(neck), lambda: neck.descriptions("float32", digest_file)):
        with pytest.raises(WeightsNotFoundError) as error:
            act()
        text = str(error.value)
        assert "timm/test_vit.r160_in1k" in text
        assert "model.safetensors" in text
        assert str(cache / "models--timm--test_vit.r160_in1k") in text
        assert "model='efficientnet_lite0'" in text
    with pytest.raises(WeightsNotFoundError, match="config.json"):
        resolve_neck("hf-hub:nobody/nothing")


@pytest.fixture
def hub_cache(tmp_path, monkeypatch, randomise):
    """A hub cache that holds timm's miniature transformer, as a download leaves it."""
    cache = tmp_path / "hf"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    network = randomise(timm.create_model("test_vit"))
    folder = cache / "models--timm--test_vit.r160_in1k"
    snapshot = folder / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("a" * 40)
    torch.save(network.state_dict(), snapshot / "pytorch_model.bin")
    config = {
        "architecture": "test_vit",
        "num_classes": 1000,
        "pretrained_cfg": {
            "input_size": [3, 160, 160],
            "fixed_input_size": True,
            "crop_pct": 0.95,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "classifier": "head",
            "first_conv": "patch_embed.proj",
        },
    }
    (snapshot / "config.json").write_text(json.dumps(config))
    return network, snapshot


def test_hub_file_that_is_here(hub_cache, batch, normalised, assert_close):
    network, snapshot = hub_cache
    neck = resolve_neck("test_vit", layer=["neck", "output"])
    pixels = batch(2, 160)
    config = network.pretrained_cfg
    images = normalised(pixels, config["mean"], config["std"])
    with torch.no_grad(), neck.loaded(CPU) as run:
        rows, output = run(pixels)
        assert_close(output, network(images))
    identity = neck.descriptions("float32", digest_file)[0]["weights"]
    path = str(snapshot / "pytorch_model.bin")
    assert identity == {"file": digest_file(path).hex()}


@pytest.mark.skipif(
    not timm.models._hub.has_hf_hub(),
    reason="this timm does not work with this huggingface_hub",
)
def test_hub_name(hub_cache, batch, normalised, assert_close):
    network, _ = hub_cache
    neck = resolve_neck("hf-hub:timm/test_vit.r160_in1k", layer="output")
    assert neck.spec.model_name == "test_vit_r160_in1k"
    assert neck.preprocessing.resize == 168
    pixels = batch(2, 160)
    images = normalised(pixels, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    with torch.no_grad(), neck.loaded(CPU) as run:
        assert_close(run(pixels)[0], network(images))
    same = resolve_neck("timm/test_vit", layer="output")
    assert (
        same.descriptions("float32", digest_file)[0]["weights"]
        == (neck.descriptions("float32", digest_file)[0]["weights"])
    )


def test_nothing_is_fetched_to_list_or_to_resolve(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    list_models("resnet*", tags=True)
    list_layers("resnet18")
    for name in ("resnet18", "timm/resnet18", "test_vit.r160_in1k"):
        neck = resolve_neck(name, layer=["neck", 1])
        assert len(neck.n_features()) == 2
        assert neck.feature_name_prefixes()
    resolve_neck("resnet18").descriptions("float32", digest_file)
