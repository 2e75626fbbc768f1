"""A hub repository's config.json is a stranger's file."""

import copy
import itertools
import json
import textwrap

import huggingface_hub
import pytest
import timm
import torch

from benchmarks._forks import run_python
from skdeepfeat.exceptions import BadFileError
from skdeepfeat.networks import resolve_neck
from skdeepfeat.networks.sources._hub_config import fetch_hub_config, read_hub_config

CONFIG = {
    "architecture": "test_vit",
    "num_classes": 7,
    "num_features": 64,
    "global_pool": "token",
    "license": "apache-2.0",
    "pretrained_cfg": {
        "tag": "mine",
        "url": "http://127.0.0.1:9/never.pth",
        "file": "/never.pth",
        "hf_hub_id": "nobody/else",
        "custom_load": True,
        "source": "local-dir",
        "input_size": [3, 160, 160],
        "crop_pct": 0.95,
        "crop_mode": "center",
        "interpolation": "bicubic",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "classifier": "blocks.0",
        "label_names": ["a", "b"],
    },
}


GEOMETRY = {
    "input_size", "crop_pct", "crop_mode", "interpolation", "mean", "std",
}  # fmt: skip
NUMBERS = itertools.count()


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Return a function that puts a config.json into the hub's cache."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))

    def put(config):
        name = f"mallory/net{next(NUMBERS)}"  # configurations are remembered by name
        folder = tmp_path / f"models--{name.replace('/', '--')}"
        snapshot = folder / "snapshots" / ("a" * 40)
        snapshot.mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("a" * 40)
        content = config if isinstance(config, bytes) else json.dumps(config).encode()
        (snapshot / "config.json").write_bytes(content)
        return name

    return put


def changed(key, value):
    config = copy.deepcopy(CONFIG)
    *path, last = key.split(".")
    inner = config
    for one in path:
        inner = inner.setdefault(one, {})
    inner[last] = value
    return config


def test_only_what_is_listed_is_used(repository):
    found = fetch_hub_config(repository(CONFIG))
    own = timm.get_pretrained_cfg("test_vit")
    assert found["pretrained_cfg"] == {
        "classifier": own.classifier,
        "first_conv": own.first_conv,
        "pool_size": own.pool_size,
        "fixed_input_size": own.fixed_input_size,
        "num_classes": 7,
        **{
            key: value
            for key, value in CONFIG["pretrained_cfg"].items()
            if key in GEOMETRY
        },
    }  # fmt: skip
    assert found["model_args"] == {}
    again = read_hub_config(json.loads(json.dumps(found)), found["repository"])
    assert again == found
    old = {**CONFIG, **CONFIG["pretrained_cfg"]}
    del old["pretrained_cfg"]
    name = repository(old)
    assert fetch_hub_config(name) == {**found, "repository": name}


@pytest.mark.parametrize(
    "args",
    [
        {"img_size": 64, "reg_tokens": 2},
        {"depth": 3, "class_token": False, "global_pool": "avg"},
        {"norm_layer": "layernorm", "act_layer": "relu", "init_values": 1e-5},
    ],
)
def test_arguments_of_the_architecture(args, repository):
    config = changed("model_args", args)
    neck = resolve_neck(
        f"hf-hub:{repository(config)}", weights="random", layer="output"
    )
    assert neck.n_features() == [7]
    size = args.pop("img_size", 160)
    built = neck.spec.architecture
    assert {key: built[key] for key in args} == args
    assert neck.preprocessing.crop == (size, size)


# timm opens what the first nine name.
ARGUMENTS = {
    "pretrained_cfg": {"url": "http://127.0.0.1:9/x.pth"},
    "pretrained_cfg_overlay": {"file": "/etc/passwd", "hf_hub_id": "a/b"},
    "checkpoint_path": "/etc/passwd",
    "pretrained": True,
    "cache_dir": "/tmp/x",
    "pretrained_model_args": {},
    "pretrained_filter_fn": "os.system",
    "features_only": True,
    "model_cfg": {},
    "scriptable": True,
    "exportable": True,
    "no_jit": True,
    "feature_cfg": {},
    "kwargs_filter": [],
    "device": "cuda",
    "dtype": "float64",
    "": 1,
    "embed_dim": 2**40,
    "depth": 10**9,
    "num_classes": 2**40,
    "img_size": [224] * 1000,
    "patch_size": -1,
    "norm_layer": "os.system('true')",
    "act_layer": {"a": 1},
    "global_pool": "x" * 1000,
    "init_values": 1e400,
}


@pytest.mark.parametrize("key", ARGUMENTS)
def test_other_arguments_are_refused_by_name(key, repository):
    name = repository(changed("model_args", {key: ARGUMENTS[key]}))
    with pytest.raises(BadFileError, match=f"'model'.*'model_args.{key}'") as error:
        resolve_neck(f"hf-hub:{name}")
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("architecture", "hf-hub:timm/resnet18"),
        ("architecture", "local-dir:/tmp"),
        ("architecture", "resnet18.nobodys_tag"),
        ("architecture", None),
        ("architecture", ["resnet18"]),
        ("model_args", [1]),
        ("pretrained_cfg", 3),
        ("num_classes", 2**40),
        ("num_classes", "10"),
        ("pretrained_cfg.input_size", [3, 10**6, 10**6]),
        ("pretrained_cfg.input_size", [3, 224]),
        ("pretrained_cfg.crop_pct", 1e-9),
        ("pretrained_cfg.crop_pct", True + 2),
        ("pretrained_cfg.std", [0, 0, 0]),
        ("pretrained_cfg.mean", "half"),
        ("pretrained_cfg.mean", [0.5]),
        ("pretrained_cfg.std", [0.5] * 64),
        ("pretrained_cfg.interpolation", "random"),
        ("pretrained_cfg.crop_mode", {"a": 1}),
        ("pretrained_cfg.hf_hub_filename", "../../secret"),
    ],
)
def test_other_values_are_refused_by_name(key, value, repository):
    name = repository(changed(key, value))
    with pytest.raises(BadFileError, match=f"'model'.*{name}.*{key.split('.')[-1]}"):
        resolve_neck(f"hf-hub:{name}")


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b"x" * (5 * 2**20)]
)
def test_damaged_configurations(content, repository):
    with pytest.raises(BadFileError, match="config.json of 'mallory/net"):
        resolve_neck(f"hf-hub:{repository(content)}")


def test_arguments_that_make_a_network_of_any_size(repository):
    large = changed("model_args", {"embed_dim": 8192, "depth": 150})
    # Few weights, and tables of 500 million positions in each block.
    table = changed("model_args", {"window_size": 150, "img_size": 1200})
    table["architecture"] = "swin_tiny_patch4_window7_224"
    for config in (large, table):
        with pytest.raises(ValueError, match="'model' .*at most 8 times as large"):
            resolve_neck(f"hf-hub:{repository(config)}")


@pytest.mark.slow
def test_nothing_is_opened_for_it(repository, tmp_path):
    """An audit hook sees connections and files, which are timm's as well as ours."""
    weights = tmp_path / "w.pth"
    network = timm.create_model("test_vit", num_classes=7)
    torch.save(network.state_dict(), weights)
    name = repository(CONFIG)
    code = textwrap.dedent(
        """
        import os, sys
        import huggingface_hub, torch
        from skdeepfeat.networks import resolve_neck
        import skdeepfeat.networks.sources._hub  # imports open many files
        huggingface_hub.constants.HF_HUB_CACHE = sys.argv[3]

        def hook(event, arguments):
            if event.startswith(("socket.connect", "socket.getaddrinfo")):
                os._exit(3)
            if event == "open" and "never" in str(arguments[0]):
                os._exit(4)

        sys.addaudithook(hook)
        neck = resolve_neck("hf-hub:" + sys.argv[1], weights=sys.argv[2])
        with neck.loaded(torch.device("cpu")):
            print(neck.n_features())
        """
    )
    done = run_python(["-c", code, name, weights, tmp_path])
    assert (done.returncode, done.stdout) == (0, "[64]\n"), done.stderr
