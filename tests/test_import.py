"""`import skdeepfeat` costs next to nothing, and nobody notices that it is lazy."""

import ast
import importlib
import pathlib
import pickle
import subprocess
import sys

import pytest

import skdeepfeat


def in_fresh_process(code):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


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


def test_known_features_need_no_network_libraries(tmp_path):
    # They take as long to import as everything else together.
    code = f"""
import sys
import numpy as np
from skdeepfeat import PretrainedFeatureExtractor
X = np.arange(2 * 9 * 9 * 3, dtype=np.uint8).reshape(2, 9, 9, 3)
extractor = PretrainedFeatureExtractor(image_size=32, cache={str(tmp_path / "c")!r})
assert extractor.fit_transform(X).shape == (2, 1280)
print(*sys.modules)
"""
    network_libraries = {"timm", "torchvision", "torch._dynamo"}
    assert network_libraries <= set(in_fresh_process(code))
    assert not network_libraries & set(in_fresh_process(code))


def test_the_three_lists_agree():
    # One for people, one for type checkers, one for __getattr__.
    tree = ast.parse(pathlib.Path(skdeepfeat.__file__).read_text(encoding="utf-8"))
    static = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
    }
    assert static == skdeepfeat._HOMES
    assert skdeepfeat.__all__ == sorted(static)


def test_every_name_is_the_one_of_its_home():
    for name in skdeepfeat.__all__:
        home = importlib.import_module(f"skdeepfeat.{skdeepfeat._HOMES[name]}")
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
    out = in_fresh_process(
        "import skdeepfeat\n"
        "print(skdeepfeat.cache.__name__, skdeepfeat.plotting.__name__)\n"
        "print(hasattr(skdeepfeat, 'nothing'))"
    )
    assert out == ["skdeepfeat.cache", "skdeepfeat.plotting", "False"]


def test_unknown_name():
    with pytest.raises(AttributeError, match="'skdeepfeat' has no attribute 'Nothing'"):
        skdeepfeat.Nothing  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        from skdeepfeat import Nothing  # noqa: F401


@pytest.mark.slow
def test_pickles_open_in_a_process_that_imported_nothing(tmp_path):
    path = tmp_path / "extractor.pickle"
    extractor = skdeepfeat.PretrainedFeatureExtractor("resnet18", layer=2)
    path.write_bytes(pickle.dumps(extractor))
    out = in_fresh_process(
        f"import pickle; from pathlib import Path\n"
        f"print(pickle.loads(Path({str(path)!r}).read_bytes()).model)"
    )
    assert out == ["resnet18"]
