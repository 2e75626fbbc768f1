"""`import skdeepfeat` costs next to nothing, and nobody notices that it is lazy."""

import ast
import importlib
import pathlib
import pickle
import subprocess
import sys

import pytest
import timm
import torch

import skdeepfeat
from benchmarks._forks import run_python


def in_fresh_process(code):
    return " ".join(in_fresh_process_lines(code)).split()


def in_fresh_process_lines(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def in_fork(code, *arguments):
    """The same where it does not matter that torch has been imported."""
    code = f"import warnings\nwarnings.simplefilter('error')\n{code}"
    done = run_python(["-c", code, *arguments])
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_heavy_packages_are_not_imported():
    loaded = in_fresh_process(
        "import skdeepfeat, sys; dir(skdeepfeat); skdeepfeat.__version__\n"
        "print(*sys.modules)"
    )
    assert not {"torch", "torchvision", "timm", "sklearn", "pandas"} & set(loaded)


def test_errors_and_cache_do_without_torch():
    loaded = in_fresh_process(
        "import sys; from skdeepfeat import BadImageError, FeatureCache\n"
        "FeatureCache(); print(*sys.modules)"
    )
    assert "skdeepfeat.cache" in loaded
    assert "torch" not in loaded


NETWORK_LIBRARIES = {"timm", "torchvision", "torch._dynamo"}
# Print the digest of the features of the embedded network, and of torchvision's and
# timm's, at several layers.
KNOWN_FEATURES = """
import hashlib, sys
import numpy as np
from skdeepfeat import PretrainedFeatureExtractor
X = np.arange(2 * 9 * 9 * 3, dtype=np.uint8).reshape(2, 9, 9, 3)
for model, weights, parameters in [
    ("efficientnet_lite0", "default", {}),
    ("efficientnet_lite0", "default", {"layer": -1, "pooling": "max"}),
    ("resnet18", "random", {}),
    ("resnet18", "random", {"layer": ["layer1", "neck"]}),
    ("test_vit", "random", {"layer": "blocks.1", "cache_layers": ["neck"]}),
    ("test_vit", "default", {}),
]:
    extractor = PretrainedFeatureExtractor(
        model, weights=weights, image_size=32, cache=sys.argv[1], **parameters
    )
    extractor.set_output(transform="pandas")
    features = extractor.fit_transform(X)
    print(hashlib.sha256(features.to_numpy().tobytes()).hexdigest())
    assert list(features.columns) == list(extractor.get_feature_names_out())
print(*sys.modules)
"""
IN_A_WORKER = """
import sys
import joblib
def work(code, arguments):
    import sys
    sys.argv = arguments
    exec(code, {})
    return list(sys.modules)
[modules] = joblib.Parallel(2)([joblib.delayed(work)(sys.argv[2], sys.argv)])
print(*modules)
"""


@pytest.fixture
def hub_weights(tmp_path, monkeypatch):
    """The weights of timm's miniature transformer, as a download leaves them."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    folder = tmp_path / "hf" / "hub" / "models--timm--test_vit.r160_in1k"
    snapshot = folder / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("a" * 40)
    network = timm.create_model("test_vit")
    torch.save(network.state_dict(), snapshot / "pytorch_model.bin")
    return snapshot / "pytorch_model.bin"


def cold_rows(tmp_path, cache):
    hub = str(tmp_path / "hf" / "hub")
    code = f"import huggingface_hub as h; h.constants.HF_HUB_CACHE = {hub!r}\n"
    *rows, _ = in_fork(code + KNOWN_FEATURES, cache)
    return rows


@pytest.mark.slow
def test_known_features_need_no_network_libraries(tmp_path, hub_weights):
    # They take as long to import as everything else together.
    cache = str(tmp_path / "cache")
    rows = cold_rows(tmp_path, cache)
    *again, modules = in_fresh_process_lines(KNOWN_FEATURES, cache)
    assert not NETWORK_LIBRARIES & set(modules.split())
    assert again == rows
    *_, modules = in_fresh_process_lines(IN_A_WORKER, cache, KNOWN_FEATURES)
    assert "skdeepfeat.cache" in modules.split()
    assert not NETWORK_LIBRARIES & set(modules.split())


@pytest.mark.slow
def test_changed_weights_never_give_rows_of_former_ones(tmp_path, hub_weights):
    cache = str(tmp_path / "cache")
    rows = cold_rows(tmp_path, cache)
    network = timm.create_model("test_vit")
    torch.nn.init.normal_(network.blocks[0].mlp.fc1.weight)
    torch.save(network.state_dict(), hub_weights)
    # Notes are read only by a process that has not imported the libraries.
    *now, _ = in_fresh_process_lines(KNOWN_FEATURES, cache)
    assert now[:-1] == rows[:-1]
    assert now[-1] != rows[-1]


def test_the_lists_agree():
    # One for people, one for type checkers, one for __getattr__.
    tree = ast.parse(pathlib.Path(skdeepfeat.__file__).read_text(encoding="utf-8"))
    static = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
    }
    lazy = {name: home for name, home in static.items() if home != "exceptions"}
    assert lazy == skdeepfeat._HOMES
    assert skdeepfeat.__all__ == sorted(static)


def test_every_name_is_the_one_of_its_home():
    for name in skdeepfeat.__all__:
        home = skdeepfeat._HOMES.get(name, "exceptions")
        home = importlib.import_module(f"skdeepfeat.{home}")
        assert getattr(skdeepfeat, name) is getattr(home, name)
        assert vars(skdeepfeat)[name] is getattr(home, name)
        assert getattr(home, name).__module__ != "skdeepfeat"


def test_star_import_and_dir():
    namespace = {}
    exec("from skdeepfeat import *", namespace)
    assert set(skdeepfeat.__all__) <= set(namespace)
    assert {*skdeepfeat.__all__, "cache", "networks", "__version__"} <= set(
        dir(skdeepfeat)
    )


@pytest.mark.slow
def test_rooms_are_attributes():
    out = in_fork(
        "import skdeepfeat\n"
        "print(skdeepfeat.cache.__name__, skdeepfeat.plotting.__name__)\n"
        "print(hasattr(skdeepfeat, 'nothing'))"
    )
    assert out == ["skdeepfeat.cache skdeepfeat.plotting", "False"]


def test_unknown_name():
    with pytest.raises(AttributeError, match="'skdeepfeat' has no attribute 'Nothing'"):
        skdeepfeat.Nothing  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        from skdeepfeat import Nothing  # noqa: F401


@pytest.mark.slow
def test_pickles_open_in_a_process_that_has_not_imported_the_package(tmp_path):
    path = tmp_path / "extractor.pickle"
    extractor = skdeepfeat.PretrainedFeatureExtractor("resnet18", layer=2)
    path.write_bytes(pickle.dumps(extractor))
    out = in_fork(
        f"import pickle; from pathlib import Path\n"
        f"print(pickle.loads(Path({str(path)!r}).read_bytes()).model)"
    )
    assert out == ["resnet18"]
