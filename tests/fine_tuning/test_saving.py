"""Fitted estimators as files: they come back as they were, or not at all."""

import copy
import json
import os
import pathlib
import pickle
import shutil
import stat
import subprocess
import sys

import huggingface_hub
import joblib
import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from networks import fix_weights
from numpy.testing import assert_array_equal
from sklearn.base import clone
from torch import nn
from torchvision.models import ResNet18_Weights

from skdeepfeat import (
    BadFileError,
    FineTuneClassifier,
    FineTuneRegressor,
    Preprocessing,
    WeightsNotFoundError,
)
from skdeepfeat._utils._random import seeded
from skdeepfeat.fine_tuning._saved_values import (
    _decode_array,
    decode_parameters,
    encode_attribute,
    encode_parameter,
)
from skdeepfeat.networks.sources import _hub, _timm
from skdeepfeat.training._tensor_file import dump_tensors

N = 12
GEOMETRY = Preprocessing(resize=20, crop=(16, 16), interpolation="bicubic")


class TinyNet(nn.Module):
    """Tied weights, batch normalisation, a buffer that no state dict has."""

    def __init__(self, seed=0, width=6):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.first = nn.Conv2d(width, width, 1)
        self.second = nn.Conv2d(width, width, 1)
        self.second.weight = self.first.weight
        self.head = nn.Linear(width, 4)
        self.register_buffer("gain", torch.ones(1), persistent=False)
        fix_weights(self, scale=1 / 2, seed=seed)
        self.gain += seed

    def forward(self, x):
        x = self.norm(self.stem(x)).relu() * self.gain
        x = self.second(self.first(x).relu()).relu()
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def pixels():
    """Twelve 24 x 28 colour images, dark and light by turns, all different."""
    images = np.random.default_rng(0).integers(0, 128, (N, 24, 28, 3), np.uint8)
    images[1::2] += 110
    return images


def tiny(kind=FineTuneClassifier, **parameters):
    parameters = {
        "model": TinyNet(),
        "preprocessing": GEOMETRY,
        "max_epochs": 2,
        "batch_size": 4,
        "device": "cpu",
        "cache": None,
        "random_state": 0,
        **parameters,
    }
    return kind(**parameters)


def embedded(kind=FineTuneClassifier, **parameters):
    parameters = {
        "image_size": 32,
        "max_epochs": 1,
        "device": "cpu",
        "cache": None,
        "random_state": 0,
        **parameters,
    }
    return kind(**parameters)


def same_history(one, other):
    pd.testing.assert_frame_equal(one.history_, other.history_, check_exact=True)


# Of every type that comes as labels: what is given, and the type of `classes_`.
LABELS = {
    "text": (np.array(["dark", "light"]), np.dtype("<U5")),
    "objects": (np.array(["dark", "light"], object), np.dtype(object)),
    "bool": (np.array([False, True]), np.dtype(bool)),
    "int": (np.array([-7, 2**60]), np.dtype(np.int64)),
    "uint8": (np.array([3, 255], np.uint8), np.dtype(np.uint8)),
    "float": (np.array([0.0, 3.0], np.float32), np.dtype(np.float32)),
}


@pytest.mark.parametrize("kind", LABELS)
def test_a_classifier_comes_back_with_labels_of_any_type(kind, pixels, tmp_path):
    labels, dtype = LABELS[kind]
    fitted = tiny().fit(pixels, labels[np.arange(N) % 2])
    fitted.save(tmp_path / "c.safetensors")
    again = FineTuneClassifier.load(tmp_path / "c.safetensors", model=TinyNet(seed=5))
    assert_array_equal(again.predict_proba(pixels), fitted.predict_proba(pixels))
    assert_array_equal(again.predict(pixels), fitted.predict(pixels))
    assert again.classes_.dtype == fitted.classes_.dtype == dtype
    assert [type(one) for one in again.classes_] == [
        type(one) for one in fitted.classes_
    ]
    same_history(again, fitted)


@pytest.mark.parametrize(("unfreeze", "hidden"), [(None, (5, 3)), ("all", ())])
def test_every_attribute_and_parameter_comes_back(unfreeze, hidden, pixels, tmp_path):
    frame = pd.DataFrame({"picture": list(pixels)})
    fitted = embedded(
        unfreeze=unfreeze,
        hidden_layer_sizes=hidden,
        dropout=0.25,
        head_epochs=2,
        image_size=(32, 40),
        class_weight={0: 1.0, 2: np.float32(1.5)},
        cache=tmp_path / "features",
        learning_rate=np.float64(1e-3),
        early_stopping=True,
        validation_fraction=0.25,
    ).fit(frame, np.array([0, 2])[np.arange(N) % 2])
    fitted.set_output(transform="pandas")
    path = tmp_path / "folder" / "c.safetensors"
    fitted.save(str(path))
    again = FineTuneClassifier.load(str(path))
    assert_array_equal(again.predict_proba(frame), fitted.predict_proba(frame))
    pd.testing.assert_frame_equal(
        again.transform(frame), fitted.transform(frame), check_exact=True
    )
    parameters, expected = again.get_params(), fitted.get_params()
    # Where rows are kept, who loads it decides.
    assert parameters["cache"] == "default"
    assert parameters == {**expected, "cache": "default"}
    parameters = {**parameters, "cache": expected["cache"]}
    types = {k: type(v) for k, v in expected.items()}
    # NumPy's numbers come back as Python's.
    assert {k: type(v) for k, v in parameters.items()} == {
        **types, "learning_rate": float,
    }  # fmt: skip
    assert [type(v) for v in parameters["class_weight"].values()] == [float, float]
    assert vars(again).keys() == vars(fitted).keys()
    for name in ("n_features_in_", "n_epochs_", "best_epoch_", "_n_features_out"):
        assert getattr(again, name) == getattr(fitted, name), name
    assert again.best_validation_score_ == fitted.best_validation_score_
    assert again.feature_names_in_.tolist() == ["picture"]
    same_history(again, fitted)
    assert (again.body_ is None) == (unfreeze is None)
    if unfreeze == "all":
        strides = [
            [one.stride() for one in estimator.body_.parameters()]
            for estimator in (again, fitted)
        ]
        assert strides[0] == strides[1]
    assert clone(again).get_params() == again.get_params()
    assert not hasattr(clone(again), "head_")
    # The network itself is 17 MB.
    assert path.stat().st_size < (200_000 if unfreeze is None else 25_000_000)


@pytest.mark.parametrize("n_targets", [None, 1, 3])
def test_a_regressor_comes_back_with_the_scale_of_its_targets(
    n_targets, pixels, tmp_path
):
    targets = pixels.mean((1, 2)).astype(float) * 1000 - 7
    targets = targets[:, 0] if n_targets is None else targets[:, :n_targets]
    if n_targets == 1:
        targets = targets.ravel()
    fitted = tiny(FineTuneRegressor).fit(pixels, targets)
    fitted.save(tmp_path / "r.safetensors")
    again = FineTuneRegressor.load(tmp_path / "r.safetensors", model=TinyNet())
    assert_array_equal(again.predict(pixels), fitted.predict(pixels))
    assert again.predict(pixels).shape == targets.shape


def test_several_labels_an_image(pixels, tmp_path):
    labels = np.arange(N)[:, None] // [1, 2, 4] % 2
    fitted = tiny().fit(pixels, labels)
    fitted.save(tmp_path / "c.safetensors")
    again = FineTuneClassifier.load(tmp_path / "c.safetensors", model=TinyNet())
    assert_array_equal(again.predict(pixels), fitted.predict(pixels))
    assert again.multilabel_ is True


@pytest.mark.parametrize("unfreeze", [None, "all"])
def test_a_network_of_the_users_gets_its_weights_back(unfreeze, pixels, tmp_path):
    network = TinyNet(seed=1).to(memory_format=torch.channels_last)
    fitted = tiny(model=network, unfreeze=unfreeze).fit(pixels, np.arange(N) % 2)
    fitted.save(tmp_path / "c.safetensors")
    given = TinyNet(seed=2)
    again = FineTuneClassifier.load(tmp_path / "c.safetensors", model=given)
    assert_array_equal(again.predict_proba(pixels), fitted.predict_proba(pixels))
    # A later fit starts from the same weights, tied as they were.
    assert again.model.first.weight is again.model.second.weight
    refitted = clone(again).fit(pixels, np.arange(N) % 2)
    assert_array_equal(refitted.predict_proba(pixels), fitted.predict_proba(pixels))
    # What was given is the user's.
    assert_array_equal(given.stem.weight.detach(), TinyNet(2).stem.weight.detach())
    assert again.model is not given


def test_loading_reads_no_pretrained_weights(pixels, tmp_path, monkeypatch):
    fitted = embedded(model="resnet18", weights="random", unfreeze=1)
    fitted.fit(pixels, np.arange(N) % 2)
    expected = fitted.predict_proba(pixels)
    # As it would be with weights that this machine has not: they are not asked for.
    fitted.set_params(weights=ResNet18_Weights.IMAGENET1K_V1)
    fitted.save(tmp_path / "c.safetensors")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    again = FineTuneClassifier.load(tmp_path / "c.safetensors")
    assert again.weights == "IMAGENET1K_V1"
    assert again.body_.fc.weight.shape == (1000, 512)
    assert_array_equal(again.predict_proba(pixels), expected)


@pytest.fixture
def weights_file(tmp_path):
    """Return a file of the user's with weights for ``"squeezenet1_1"``."""
    path = tmp_path / "weights.safetensors"
    with seeded(0):
        network = torchvision.models.squeezenet1_1()
    safetensors.torch.save_file(network.state_dict(), path)
    return path


def test_tuned_weights_need_no_weights_file_any_more(pixels, tmp_path, weights_file):
    y = np.arange(N) % 2
    fitted = embedded(model="squeezenet1_1", weights=weights_file).fit(pixels, y)
    expected, rows = fitted.predict_proba(pixels), fitted.transform(pixels)
    fitted.save(tmp_path / "before.safetensors")
    weights_file.unlink()
    fitted.save(tmp_path / "after.safetensors")
    for one in (
        fitted,
        copy.deepcopy(fitted),
        pickle.loads(pickle.dumps(fitted)),
        FineTuneClassifier.load(tmp_path / "before.safetensors"),
        FineTuneClassifier.load(tmp_path / "after.safetensors"),
    ):
        assert_array_equal(one.predict_proba(pixels), expected)
        assert_array_equal(one.transform(pixels), rows)
    # What goes on from the tuned weights needs no others; what begins anew does.
    again = copy.deepcopy(fitted).partial_fit(pixels, y)
    assert not np.array_equal(again.predict_proba(pixels), expected)
    fitted.set_params(warm_start=True).fit(pixels, y)
    with pytest.raises(WeightsNotFoundError, match="'weights' parameter must be a"):
        clone(fitted).fit(pixels, y)


def test_a_body_as_it_came_needs_its_weights_file(pixels, tmp_path, weights_file):
    fitted = embedded(model="squeezenet1_1", weights=weights_file, unfreeze=None)
    fitted.fit(pixels, np.arange(N) % 2).save(tmp_path / "c.safetensors")
    moved = weights_file.rename(tmp_path / "moved.safetensors")
    for one in (fitted, FineTuneClassifier.load(tmp_path / "c.safetensors")):
        with pytest.raises(WeightsNotFoundError, match="'weights' parameter must be a"):
            one.predict(pixels)
        one.set_params(weights=moved).predict(pixels)


def test_global_random_state_is_left_alone(pixels, tmp_path):
    fitted = tiny().fit(pixels, np.arange(N) % 2)
    network = TinyNet()
    of_torch, of_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()
    fitted.save(tmp_path / "c.safetensors")
    FineTuneClassifier.load(tmp_path / "c.safetensors", model=network)
    pickle.loads(pickle.dumps(fitted))
    assert_array_equal(torch.get_rng_state(), of_torch)
    assert_array_equal(np.random.get_state()[1], of_numpy)


# -- What cannot be saved, or loaded


def shout(images):
    return images


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("augment", shout),
        ("random_state", np.random.RandomState(0)),
    ],
)
def test_code_and_handles_are_refused_by_name(name, value, pixels, tmp_path):
    fitted = tiny(unfreeze=None).fit(pixels, np.arange(N) % 2)
    fitted.set_params(**{name: value})
    with pytest.raises(ValueError, match=f"'{name}' parameter .*Got an object of type"):
        fitted.save(tmp_path / "c.safetensors")
    assert not (tmp_path / "c.safetensors").exists()


def test_what_load_would_refuse_is_not_saved(pixels, tmp_path):
    fitted = tiny(unfreeze=None).fit(pixels, np.arange(N) % 2)
    fitted.optimizer = "unknown"
    with pytest.raises(ValueError, match="^The 'optimizer' parameter"):
        fitted.save(tmp_path / "c.safetensors")
    assert not (tmp_path / "c.safetensors").exists()


@pytest.fixture(scope="module")
def saved(pixels, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "c.safetensors"
    tiny().fit(pixels, np.arange(N) % 2).save(path)
    return path


def test_every_damaged_byte_is_noticed(saved, tmp_path):
    content = saved.read_bytes()
    path = tmp_path / "c.safetensors"
    for place in np.random.default_rng(0).integers(0, len(content), 150):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="c.safetensors' cannot be loaded"):
            FineTuneClassifier.load(path, model=TinyNet())


@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.999])
def test_a_truncated_file(share, saved, tmp_path):
    content = saved.read_bytes()
    path = tmp_path / "c.safetensors"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="c.safetensors' cannot be loaded: it is dam"):
        FineTuneClassifier.load(path, model=TinyNet())


def test_foreign_files(tmp_path):
    path = tmp_path / "c.safetensors"
    foreign = [
        b"",
        b"not a model",
        pickle.dumps({"a": 1}),
        safetensors.torch.save({"a": torch.ones(2)}),
        safetensors.torch.save({"a": torch.ones(2)}, {"format": "pt"}),
        safetensors.torch.save({}, {"skdeepfeat": "3", "digest": ""}),
    ]
    for content in foreign:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be loaded: "):
            FineTuneClassifier.load(path)
    with pytest.raises(FileNotFoundError):
        FineTuneClassifier.load(tmp_path / "nowhere")


def rewritten(path, change):
    """Change the header as another version of this package would have written it."""
    content = path.read_bytes()
    tensors = safetensors.torch.load(content)
    size = int.from_bytes(content[:8], "little")
    text = json.loads(content[8 : 8 + size])["__metadata__"]["skdeepfeat"]
    header = json.loads(text)
    change(header)
    return dump_tensors(tensors, json.dumps(header))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.update(format=3, version="9.9"), "skdeepfeat 9.9 in format 3"),
        (lambda h: h.update(format=1, version="0.0"), "skdeepfeat 0.0 in format 1"),
        (lambda h: h["parameters"].update(a_new_one=3), "no parameters .'a_new_one'"),
        (lambda h: h["attributes"].update(x_={"date": "?"}), "'x_', which no fit"),
        (lambda h: h["parameters"].update(device="abacus"), "abacus"),
    ],
)
def test_files_of_other_versions(change, message, saved, tmp_path):
    path = tmp_path / "c.safetensors"
    path.write_bytes(rewritten(saved, change))
    with pytest.raises(ValueError, match=f"cannot be loaded: .*{message}"):
        FineTuneClassifier.load(path, model=TinyNet())


def network_of(name):
    return lambda h: h["parameters"].update(model=name)


def parameter(name, value):
    return lambda h: h["parameters"].update({name: value})


def attribute(name, value):
    return lambda h: h["attributes"].update({name: value})


def array(dtype, *values):
    return {"dtype": dtype, "values": list(values)}


def changes(prefix, value):
    return lambda h: h.update(changes={prefix: value})


# Sound in itself, but the tensors in the file are others.
SMALLER = {"layer": "head", "kind": "low_rank", "rank": 2, "bias": True}

FORGED = {
    "method": attribute("predict", []),
    "private": attribute("_resolve_neck", 3),
    "class": attribute("__class__", "x"),
    "body": attribute("body_", 3),
    "parameter as attribute": attribute("cache", "/tmp/x"),
    "labels": attribute("classes_", array("|O", None, [])),
    "labels of no array": attribute("classes_", ["dark", "light"]),
    "no labels": attribute("classes_", array("<i8")),
    "label": attribute("classes_", array("<i8", 3)),
    "label twice": attribute("classes_", array("<i8", 3, 3)),
    "labels in no order": attribute("classes_", array("<U1", "b", "a")),
    "label of NaN": attribute("classes_", array("<f8", 1.0, float("nan"))),
    "wide": attribute("classes_", array("<U999999999", "a", "b")),
    "structure": attribute("classes_", array("i4,O", 1, 2)),
    "type": attribute("classes_", array(["<i8"], 1, 2)),
    "too large": attribute("classes_", array("<i1", 1, 2**40)),
    "values": attribute("classes_", {"dtype": "<i8", "values": 3}),
    "history": attribute("history_", [["a", "Sparse[int]", 1]]),
    "history of dicts": attribute("history_", [{"phase": {"a": 1}, "epoch": 1}]),
    "history by columns": attribute("history_", {"phase": ["body"], "epoch": [1]}),
    "count": attribute("n_epochs_", -1),
    "score": attribute("best_validation_score_", "high"),
    "features": attribute("_n_features_out", 7),
    "lacking": lambda h: h["attributes"].pop("history_"),
    "output": attribute("_sklearn_output_config", {"transform": "os"}),
    "device": parameter("device", "privateuseone"),
    "devices": parameter("device", "meta"),
    "constraint": parameter("batch_size", -1),
    "optimizer": parameter("optimizer_params", {"lr": 3}),
    "scorer": parameter("scoring", "os.system"),
    "code": parameter("augment", "os.system"),
    "size": parameter("image_size", 10**9),
    "side": parameter("image_size", [32, "a"]),
    "crop": lambda h: h["parameters"]["preprocessing"].update(crop=[10**6, 10**6]),
    "mean": lambda h: h["parameters"]["preprocessing"].update(mean="abc"),
    "class weights": parameter("class_weight", {"pairs": [[[], 1.0]]}),
    "no class weights": parameter("class_weight", {"weights": 3}),
    "body or not": lambda h: h.update(has_body="yes"),
    "machine": parameter("weights", "//mallory/share/w.pth"),
    "other weights": parameter("weights", {"name": "A.B"}),
    "verbose": parameter("verbose", {}),
    "memory": lambda h: h["head"][-1][1].update(in_features=2**40, out_features=2**40),
    "layer": lambda h: h["head"].append(["Bilinear", {}]),
    "many layers": lambda h: h["head"].extend([["ReLU", {}]] * 10**6),
    "sizes": lambda h: h["head"][-1].append(3),
    "head": lambda h: h.update(head=3),
    "format": lambda h: h.update(format="x"),
    "strides": lambda h: h.update(channels_last=["nothing"]),
    "flat": lambda h: h.update(channels_last=["head.0.weight"]),
    "attributes": lambda h: h.update(attributes=[1]),
    "parameters": lambda h: h.pop("parameters"),
    "class name": lambda h: h.update({"class": ["x"] * 1000}),
    "escapes": lambda h: h.update({"class": "\x1b[31m"}),
    "version": lambda h: h.update(format=1, version="\x1b[31m"),
    "changes": lambda h: h.update(changes=[3]),
    "changes of the body": changes("body", {"layer": "stem"}),
    "kind of change": changes("body", [{"layer": "stem", "kind": "code"}]),
    "changed model": changes("model", [SMALLER]),
    "changed body": changes("body", [SMALLER]),
    "report": attribute("compression_report_", [{"layer": []}]),
    "ragged report": attribute("compression_report_", [{"layer": "a"}, {"kind": "b"}]),
    "deep": parameter("verbose", json.loads("[" * 300 + "1" + "]" * 300)),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_file_says_only_what_a_fit_would(name, saved, tmp_path):
    """The checksum is right, as whoever makes a file to do harm sees to it."""
    path = tmp_path / "c.safetensors"
    path.write_bytes(rewritten(saved, FORGED[name]))
    with pytest.raises(BadFileError, match="c.safetensors' cannot be loaded") as error:
        FineTuneClassifier.load(path, model=TinyNet())
    assert len(str(error.value)) < 700
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize("prefix", ["head.", "body."])
def test_tensors_of_several_types_are_refused(prefix, saved, tmp_path):
    content = saved.read_bytes()
    size = int.from_bytes(content[:8], "little")
    text = json.loads(content[8 : 8 + size])["__metadata__"]["skdeepfeat"]
    tensors = safetensors.torch.load(content)
    name = next(name for name in tensors if name.startswith(prefix))
    tensors[name] = tensors[name].half()
    path = tmp_path / "c.safetensors"
    path.write_bytes(dump_tensors(tensors, text))
    with pytest.raises(BadFileError, match="c.safetensors' cannot be loaded"):
        FineTuneClassifier.load(path, model=TinyNet())


def test_what_concerns_a_machine_is_not_taken_from_a_file(saved, tmp_path):
    def change(header):
        header["parameters"].update(
            cache="/nowhere/cache",
            checkpoint="/nowhere/checkpoint",
            storage_options={},
            max_pixels=None,
        )

    path = tmp_path / "c.safetensors"
    path.write_bytes(rewritten(saved, change))
    loaded = FineTuneClassifier.load(path, model=TinyNet())
    default = FineTuneClassifier()
    for name in ("cache", "checkpoint", "storage_options", "max_pixels"):
        assert getattr(loaded, name) == getattr(default, name)


LOAD_OFFLINE = """
import os, sys

def hook(event, arguments):
    if event.startswith(("socket.connect", "socket.getaddrinfo", "socket.gethostby")):
        os.write(2, repr((event, arguments)).encode())
        os._exit(3)

sys.addaudithook(hook)
from skdeepfeat import BadFileError, FineTuneClassifier
try:
    print(FineTuneClassifier.load(sys.argv[1]).model)
except BadFileError as error:
    print("refused", error)
"""


def load_offline(path):
    done = subprocess.run(
        [sys.executable, "-c", LOAD_OFFLINE, str(path)],
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_loading_opens_no_connection(pixels, tmp_path):
    fitted = embedded(unfreeze=None).fit(pixels, np.arange(N) % 2)
    path, forged = tmp_path / "c.safetensors", tmp_path / "forged.safetensors"
    fitted.save(path)
    forged.write_bytes(rewritten(path, network_of("hf-hub:mallory/net")))
    printed = load_offline(forged)
    assert "refused" in printed and "loading opens no connection" in printed


@pytest.mark.slow
def test_a_network_of_the_hub_is_loaded_without_it(pixels, tmp_path, monkeypatch):
    cache = tmp_path / "hf"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    folder = cache / "models--mallory--net"
    snapshot = folder / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("a" * 40)
    network = timm.create_model("test_vit", num_classes=3, img_size=32)
    torch.save(network.state_dict(), snapshot / "pytorch_model.bin")
    config = {
        "architecture": "test_vit",
        "num_classes": 3,
        "pretrained_cfg": {"input_size": [3, 32, 32]},
    }
    (snapshot / "config.json").write_text(json.dumps(config))
    fitted = embedded(model="hf-hub:mallory/net", image_size=None, max_epochs=1)
    fitted.fit(pixels, np.arange(N) % 2)
    fitted.save(tmp_path / "c.safetensors")
    expected = fitted.predict_proba(pixels)
    shutil.rmtree(cache)
    _hub._fetch_once.cache_clear()
    again = FineTuneClassifier.load(tmp_path / "c.safetensors")
    assert_array_equal(again.predict_proba(pixels), expected)
    pickled = pickle.loads(pickle.dumps(fitted))
    assert_array_equal(pickled.predict_proba(pixels), expected)
    assert load_offline(tmp_path / "c.safetensors") == "hf-hub:mallory/net\n"


@pytest.mark.slow
def test_a_small_file_does_not_make_a_large_network(pixels, tmp_path, monkeypatch):
    fitted = embedded(model="squeezenet1_1", weights="random", unfreeze=1)
    fitted.fit(pixels, np.arange(N) % 2).save(tmp_path / "c")
    (tmp_path / "c").write_bytes(
        rewritten(tmp_path / "c", network_of("timm/vit_7b_patch16_dinov3"))
    )
    # What would take 27 GB is never asked for.
    monkeypatch.setattr(_timm, "build_network", refuse_numbers(_timm.build_network))
    with pytest.raises(BadFileError, match="tensors are not those of this Eva"):
        FineTuneClassifier.load(tmp_path / "c")


def refuse_numbers(build):
    def checked(*args, **kwargs):
        assert torch.empty(0).device.type == "meta", "memory is taken"
        return build(*args, **kwargs)

    return checked


def test_a_file_of_another_estimator_or_network(saved, pixels, tmp_path):
    with pytest.raises(ValueError, match="holds a FineTuneClassifier. Use FineTuneC"):
        FineTuneRegressor.load(saved, model=TinyNet())
    with pytest.raises(ValueError, match="'model' .* must be a TinyNet.*Got None"):
        FineTuneClassifier.load(saved)
    with pytest.raises(ValueError, match="'model' .* must be a TinyNet.*Got str"):
        FineTuneClassifier.load(saved, model="resnet18")
    with pytest.raises(ValueError, match="tensors are not those of this TinyNet"):
        FineTuneClassifier.load(saved, model=TinyNet(width=7))
    with pytest.raises(ValueError, match="tensors are not those of this Linear"):
        FineTuneClassifier.load(saved, model=nn.Linear(2, 2))
    named = embedded(unfreeze=None).fit(pixels, np.arange(N) % 2)
    named.save(tmp_path / "named")
    with pytest.raises(ValueError, match="'model' .* must be None.*Got TinyNet"):
        FineTuneClassifier.load(tmp_path / "named", model=TinyNet())


def test_nothing_is_unpickled(saved, tmp_path):
    """A file made to run code on loading is refused before any of it runs."""

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    path = tmp_path / "trap"
    for content in (pickle.dumps(Trap()), saved.read_bytes() + pickle.dumps(Trap())):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be loaded"):
            FineTuneClassifier.load(path, model=TinyNet())
    assert not (tmp_path / "sprung").exists()


def test_unfitted_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not fitted"):
        tiny().save(tmp_path / "c.safetensors")


# -- Writing


def test_an_interrupted_save_leaves_the_old_file(saved, pixels, tmp_path, monkeypatch):
    path = tmp_path / "c.safetensors"
    path.write_bytes(saved.read_bytes())
    fitted = FineTuneClassifier.load(path, model=TinyNet())

    def interrupted(descriptor):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "fsync", interrupted)
        fitted.save(path)
    assert path.read_bytes() == saved.read_bytes()
    assert os.listdir(tmp_path) == ["c.safetensors"]


@pytest.mark.skipif(os.name != "posix", reason="permissions are tested on POSIX")
def test_the_file_is_as_readable_as_any_other(saved, tmp_path):
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (saved, ordinary)]
    assert modes[0] == modes[1]


@pytest.mark.parametrize(
    "value",
    [
        np.array([0.1, np.inf, -0.0, 1e-310]),
        np.array([0.1, 3e38], np.float32),
        np.array([0.1, np.nan], np.float16),
        np.array(["", "ünïcode"]),
        np.array(["a", 1, 2.5, True], object),
        np.array([0, 2**64 - 1], np.uint64),
        np.array([False, True]),
        np.array([1, 2], ">i4"),
    ],
    ids=lambda value: value.dtype.str,
)
def test_arrays_come_back_to_the_bit(value):
    again = _decode_array(**json.loads(json.dumps(encode_attribute("x_", value))))
    assert (
        again.dtype == value.dtype
        and again.tobytes() == value.tobytes()
        or (value.dtype == object)
    )
    assert repr(again) == repr(value)
    assert [type(one) for one in again] == [type(one) for one in value]


@pytest.mark.parametrize(
    "value",
    [
        np.array(["2026-01-01"], "M8[D]"),
        np.array([1j]),
        np.array([b"a"]),
        np.array([1], np.longdouble),
        np.array([object()]),
    ],
    ids=lambda value: value.dtype.str,
)
def test_other_arrays_are_refused_by_name(value):
    if value.dtype == np.float64:
        pytest.skip("a longdouble is a double on this machine")
    with pytest.raises(ValueError, match="attribute 'classes_' cannot be saved"):
        encode_attribute("classes_", value)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("class_weight", {"a": 1, "b": 2.5}, {"a": 1, "b": 2.5}),
        ("class_weight", {1: 0.5, np.int64(2): 1.0}, {1: 0.5, 2: 1.0}),
        ("class_weight", [{0: 1, 1: 2}, {0: 2, 1: 1}], [{0: 1, 1: 2}, {0: 2, 1: 1}]),
        ("class_weight", "balanced", "balanced"),
        ("hidden_layer_sizes", np.array([3, 4]), (3, 4)),
        ("hidden_layer_sizes", (), ()),
        ("image_size", [32, 40], (32, 40)),
        ("optimizer_params", {"betas": (0.8, 0.9)}, {"betas": [0.8, 0.9]}),
        ("preprocessing", GEOMETRY, GEOMETRY),
        ("preprocessing", {"resize": 9, "crop": (8, 8)}, Preprocessing(9, (8, 8))),
        ("weights", pathlib.Path("a") / "b.pth", os.path.join("a", "b.pth")),
        ("weights", ResNet18_Weights.IMAGENET1K_V1, "IMAGENET1K_V1"),
        ("device", torch.device("cuda", 1), "cuda:1"),
        ("learning_rate", np.float32(0.5), 0.5),
        ("max_grad_norm", None, None),
    ],
)  # fmt: skip
def test_parameters_come_back_through_json(name, value, expected):
    encoded = json.loads(json.dumps(encode_parameter(name, value)))
    [again] = decode_parameters(FineTuneClassifier, {name: encoded}).values()
    assert again == expected and type(again) is type(expected)


# -- Pickles and their like


def round_trips(estimator, tmp_path, with_skops):
    yield "pickle", pickle.loads(pickle.dumps(estimator))
    joblib.dump(estimator, tmp_path / "e.joblib")
    yield "joblib", joblib.load(tmp_path / "e.joblib")
    yield "deepcopy", copy.deepcopy(estimator)
    if with_skops:
        import skops.io

        data = skops.io.dumps(estimator)
        trusted = skops.io.get_untrusted_types(data=data)
        assert all(name.startswith("skdeepfeat.") for name in trusted)
        yield "skops", skops.io.loads(data, trusted=trusted)


@pytest.mark.parametrize(
    "unfreeze", [pytest.param(None, marks=pytest.mark.slow), "all"]
)
def test_round_trips_lose_nothing(unfreeze, pixels, tmp_path):
    names = np.array(["dark", "light"], object)
    fitted = embedded(unfreeze=unfreeze).fit(pixels, names[np.arange(N) % 2])
    expected = fitted.predict_proba(pixels)
    for name, again in round_trips(fitted, tmp_path, with_skops=True):
        assert again.get_params() == fitted.get_params(), name
        assert_array_equal(again.predict_proba(pixels), expected, name)
        assert_array_equal(again.predict(pixels), fitted.predict(pixels), name)
        assert vars(again).keys() == vars(fitted).keys(), name
        same_history(again, fitted)
    if unfreeze is None:
        assert len(pickle.dumps(fitted)) < 30_000


def test_the_regressor_takes_the_same_ways(pixels, tmp_path):
    targets = pixels.mean((1, 2)) * [1, 10, 100]
    fitted = embedded(FineTuneRegressor, unfreeze=None).fit(pixels, targets)
    for name, again in round_trips(fitted, tmp_path, with_skops=True):
        assert_array_equal(again.predict(pixels), fitted.predict(pixels), name)


def test_a_network_of_the_users_travels_along(pixels, tmp_path):
    fitted = tiny(dropout=0.5).fit(pixels, np.arange(N) % 3)
    for name, again in round_trips(fitted, tmp_path, with_skops=False):
        assert again.model is not fitted.model
        assert_array_equal(again.predict_proba(pixels), fitted.predict_proba(pixels))
        assert again.head_[0].p == 0.5, name
    unfitted = pickle.loads(pickle.dumps(tiny()))
    assert not hasattr(unfitted, "head_")


def test_a_loaded_estimator_trains_on(pixels, tmp_path):
    targets = np.arange(N) % 2
    fitted = tiny(warm_start=True).fit(pixels, targets)
    fitted.save(tmp_path / "c.safetensors")
    loaded = FineTuneClassifier.load(tmp_path / "c.safetensors", model=TinyNet())
    pickled = pickle.loads(pickle.dumps(fitted))
    expected = fitted.fit(pixels, targets).predict_proba(pixels)
    for again in (loaded, pickled):
        again.fit(pixels, targets)
        assert_array_equal(again.predict_proba(pixels), expected)


def test_a_damaged_pickle_says_so(pixels):
    content = pickle.dumps(tiny(unfreeze=None).fit(pixels, np.arange(N) % 2))
    place = content.rindex(b"head.0.weight")
    damaged = content[:place] + b"head.1.weight" + content[place + 13 :]
    with pytest.raises(ValueError, match="pickled FineTuneClassifier cannot be loaded"):
        pickle.loads(damaged)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_is_saved_beside_a_gpu_is_on_the_cpu(pixels, tmp_path):
    fitted = tiny(model=TinyNet().cuda(), device="cuda").fit(pixels, np.arange(N) % 2)
    fitted.set_params(device="cpu")
    again = pickle.loads(pickle.dumps(fitted))
    places = {tensor.device.type for tensor in again.model.state_dict().values()}
    assert places == {"cpu"}
    fitted.save(tmp_path / "c.safetensors")
    loaded = FineTuneClassifier.load(tmp_path / "c.safetensors", model=TinyNet())
    expected = again.predict_proba(pixels)
    assert_array_equal(loaded.predict_proba(pixels), expected)
